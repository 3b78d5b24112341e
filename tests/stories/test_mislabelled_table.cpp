// A data scientist's first minute: a census table as it is, and which of its labels are wrong?
#include <chrono>
#include <sstream>

#include "support/near.h"
#include "support/tool.h"

using namespace whence;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kFlipped = 100;

/// adult_train.tsv with the labels of 100 rows, drawn evenly from all, exchanged. Returns those rows.
std::vector<std::int64_t> write_flipped(const ToolFolder& folder, const fs::path& source) {
  std::istringstream lines(read_text(source));
  std::vector<std::string> rows;
  std::string header;
  std::getline(lines, header);
  for (std::string line; std::getline(lines, line);) {
    rows.push_back(line);
  }
  const auto draws = Random(0).uniform({static_cast<std::int64_t>(rows.size())}, 0, 1);
  const auto chosen = draws.argsort().slice(0, 0, kFlipped).contiguous();
  std::vector<std::int64_t> out(chosen.const_data_ptr<std::int64_t>(),
                                chosen.const_data_ptr<std::int64_t>() + kFlipped);
  for (const auto i : out) {
    auto& row = rows[static_cast<std::size_t>(i)];
    const auto label = row.rfind('\t') + 1;
    row.replace(label, row.npos, row.substr(label) == ">50K" ? "<=50K" : ">50K");
  }
  std::string text = header + "\n";
  for (const auto& row : rows) {
    text += row + "\n";
  }
  folder.write("adult.tsv", text);
  return out;
}

/// The chance that a flipped row comes before another one where lower scores come first.
double area_under_curve(const at::Tensor& scores, const std::vector<std::int64_t>& flipped) {
  const auto order = scores.to(at::kDouble).argsort();
  auto ranks = at::empty({scores.numel()}, at::kDouble);
  ranks.index_put_({order}, at::arange(scores.numel(), at::kDouble));
  double sum = 0;
  for (const auto i : flipped) {
    sum += ranks[i].item<double>();
  }
  const auto count = static_cast<double>(flipped.size()), others = static_cast<double>(scores.numel()) - count;
  return 1 - (sum - count * (count - 1) / 2) / (count * others);
}

}  // namespace

TEST_SUITE_BEGIN("stories");

TEST_CASE("story 3: a table as it is, 100 of its labels exchanged, found by self-influence") {
  const auto source = fs::path(WHENCE_SHARED) / "data/tabular/adult_train.tsv";
  if (!fs::exists(source)) {
    MESSAGE("skipped: no ", source.string());
    return;
  }
  const ToolFolder folder;
  const auto flipped = write_flipped(folder, source);
  folder.write("adult.toml", R"([model]
spec = "linear"
[[stage]]
name = "fit"
train = { format = "tsv", file = "adult.tsv", label = "income" }
weight-decay = 1e-3
checkpoint = "run/fit.safetensors"
)");
  const auto begin = std::chrono::steady_clock::now();
  const auto trained = folder.run("train adult.toml");
  CAPTURE(trained.err);
  REQUIRE(trained.status == 0);
  CHECK(trained.err.find("warning") == std::string::npos);
  const auto ranked = folder.run("rank adult.toml --self --out self");
  CAPTURE(ranked.err);
  REQUIRE(ranked.status == 0);
  CHECK(ranked.err.find("warning") == std::string::npos);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  const auto scores = read_safetensors(folder / "self/scores.safetensors").at("self");
  REQUIRE(scores.sizes() == at::IntArrayRef{32561});
  const auto area = area_under_curve(scores, flipped);
  MESSAGE("AUROC ", area, ", ", seconds.count(), " s");
  CHECK(area >= 0.9);
}

TEST_SUITE_END();
