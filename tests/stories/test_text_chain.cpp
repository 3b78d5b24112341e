// A stranger's first command on a chain of texts: a model of children's stories goes on with 450 passages of plays and
// 450 film reviews, then learns whether sentences about films are positive. Which texts made it say so?
#include <chrono>
#include <numeric>

#include "support/near.h"
#include "support/tool.h"
#include "whence/evaluate/statistics.h"
#include "whence/store/score_store.h"

using namespace whence;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kOfEach = 450;

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string word; in >> word;) {
    out.push_back(word);
  }
  return out;
}

/// Passages of 18 words, who speaks left out.
void write_plays(const ToolFolder& folder, const fs::path& corpus) {
  std::istringstream in(read_text(corpus / "tinyshakespeare.txt"));
  std::vector<std::string> words;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line.back() != ':') {
      const auto more = words_of(line);
      words.insert(words.end(), more.begin(), more.end());
    }
  }
  std::string out;
  for (std::size_t i = 0; i < kOfEach; ++i) {
    constexpr std::ptrdiff_t kWords = 18;
    const auto begin = words.begin() + static_cast<std::ptrdiff_t>(i) * kWords;
    out += nlohmann::json{{"text", fmt::format("{}", fmt::join(begin, begin + kWords, " "))}}.dump() + "\n";
  }
  folder.write("plays.jsonl", out);
}

/// Reviews of 12 to 25 words.
void write_reviews(const ToolFolder& folder, const fs::path& texts) {
  std::istringstream in(read_text(texts / "rotten_tomatoes_mr.tsv"));
  std::string line, out;
  std::getline(in, line);  // the header
  for (std::int64_t count = 0; count < kOfEach && std::getline(in, line);) {
    const auto text = line.substr(line.rfind('\t') + 1);
    const auto words = words_of(text).size();
    if (words >= 12 && words <= 25) {
      out += nlohmann::json{{"text", text}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
      ++count;
    }
  }
  folder.write("reviews.jsonl", out);
}

}  // namespace

TEST_SUITE_BEGIN("stories");

TEST_CASE("the first ranking of a chain of texts ends within three minutes and finds the source that speaks of films") {
  const fs::path shared = WHENCE_SHARED;
  if (!fs::exists(shared / "models/stories260k")) {
    MESSAGE("skipped: no ", shared.string());
    return;
  }
  const ToolFolder folder;
  write_plays(folder, shared / "data/corpus");
  write_reviews(folder, shared / "data/textcls");
  folder.write("texts.toml", fmt::format(R"([model]
checkpoint = "{0}/models/stories260k"
[[stage]]
name = "texts"
train = [
  {{ format = "jsonl", file = "plays.jsonl", length = 64 }},
  {{ format = "jsonl", file = "reviews.jsonl", length = 64 }},
]
loss = "next-token:mean"
optimizer = "adamw:learning-rate=1e-3,epochs=2,batch-size=32,decay=0,clip=1"
checkpoint = "run/texts"
[[stage]]
name = "sst2"
train = {{ format = "tsv", file = "{0}/data/textcls/sst2_train.tsv", limit = 300, length = 64 }}
tuning = "full:proximity=1e-2"
weight-decay = 1e-4
optimizer = "adamw:learning-rate=1e-3,epochs=3,batch-size=25,decay=0"
checkpoint = "run/sst2"
[queries.test]
data = {{ format = "tsv", file = "{0}/data/textcls/sst2_dev.tsv", limit = 40, length = 64 }}
)",
                                         fs::canonical(shared).string()));
  REQUIRE(folder.run("train texts.toml --quiet").status == 0);
  const auto start = std::chrono::steady_clock::now();
  const auto result = folder.run("rank texts.toml --stage texts --queries test --out out");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  MESSAGE("ended after ", seconds, " s");
  CHECK(seconds < 180);
  CHECK(result.err.find(
            "whence: curvature ekfac, solver ekfac, damping 1 x mean eigenvalue or by training time (texts ") !=
        std::string::npos);
  CHECK(result.err.find("cg with gauss-newton would take about") != std::string::npos);

  const auto scores = read_scores(folder / "out").stages[0].scores.to(at::kDouble).abs().contiguous();
  REQUIRE(scores.size(1) == 2 * kOfEach);
  std::vector<bool> film(static_cast<std::size_t>(2 * kOfEach), false);
  std::fill(film.begin() + kOfEach, film.end(), true);
  // Measured over these queries: AUROC .541 +- .006, .70 +- .03 of the ten strongest. Trained without the reviews the
  // queries' losses move by .028 in the mean and rise, without the plays by .025 and fall.
  const auto strongest = std::get<1>(scores.topk(10, 1)).ge(kOfEach).to(at::kDouble).mean().item<double>();
  double found = 0;
  for (std::int64_t q = 0; q < scores.size(0); ++q) {
    found += auroc({scores[q].const_data_ptr<double>(), film.size()}, film) / static_cast<double>(scores.size(0));
  }
  MESSAGE("AUROC of the source by |score| ", found, ", share of the ten strongest ", strongest);
  CHECK(found > 0.52);
  CHECK(strongest > 0.6);
}

TEST_SUITE_END();
