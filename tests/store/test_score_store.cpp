#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "support/contents.h"
#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/random.h"
#include "whence/data/safetensors.h"
#include "whence/store/detail/coverage.h"
#include "whence/store/score_store.h"

using namespace whence;
using test::contains;
using whence::detail::Block;
using whence::detail::Coverage;
namespace fs = std::filesystem;

namespace {

struct StoreFolder {
  StoreFolder() {
    static int count = 0;
    path = fs::temp_directory_path() / ("whence-store-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    fs::remove_all(path);
  }
  ~StoreFolder() {
    fs::remove_all(path);
    fs::remove(path.string() + ".safetensors");
  }
  fs::path path;
};

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kQueries = 5, kExamples = 11;

at::Tensor truth(std::uint64_t seed = 1) { return Random(seed).normal({kQueries, kExamples}).to(at::kFloat); }
at::Tensor query_ids() { return at::arange(100, 100 + kQueries, at::kLong); }
at::Tensor example_ids() { return at::arange(kExamples, at::kLong) * 3; }

std::unique_ptr<ScoreStore> open(const fs::path& folder) {
  fs::create_directories(folder);
  return std::make_unique<ScoreStore>(folder, std::vector<ScoreLayout>{{"scores", example_ids()}}, query_ids(),
                                      at::kFloat);
}

fs::path result_of(const fs::path& folder) { return folder.string() + ".safetensors"; }

std::string written(ScoreStore& store, const fs::path& folder) {
  store.write(result_of(folder), "key");
  return read_text(result_of(folder));
}

/// The blocks that a run makes, in order: ragged in both directions.
std::vector<Block> blocks() {
  std::vector<Block> out;
  for (std::int64_t q = 0; q < kQueries; q += 3) {
    for (std::int64_t e = 0; e < kExamples; e += 4) {
      out.push_back({q, std::min<std::int64_t>(3, kQueries - q), e, std::min<std::int64_t>(4, kExamples - e)});
    }
  }
  return out;
}

at::Tensor cut(const at::Tensor& matrix, const Block& b) {
  return matrix.narrow(0, b.first_row, b.rows).narrow(1, b.first_column, b.columns);
}

/// Writes those of the first `limit` blocks that are missing; returns how many that were.
std::size_t fill(ScoreSink& sink, std::size_t limit = 1000) {
  std::size_t made = 0;
  const auto all = blocks();
  for (std::size_t i = 0; i < std::min(limit, all.size()); ++i) {
    const auto& b = all[i];
    if (!sink.has(b.first_row, b.rows, b.first_column, b.columns)) {
      sink.block(b.first_row, b.first_column, cut(truth(), b));
      ++made;
    }
  }
  return made;
}

std::string uninterrupted() {
  const StoreFolder folder;
  auto store = open(folder.path);
  fill(store->sink("scores"));
  return written(*store, folder.path);
}

void overwrite(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

/// No file may grow past `bytes` while this lives: a disk that is full.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) : handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit tight{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &tight);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

}  // namespace

TEST_SUITE("store") {
  TEST_CASE("coverage agrees with a bitmap") {
    const auto draws = Random(5).uniform({300, 4}, 0, 1);
    Coverage coverage(6);
    std::vector<std::vector<bool>> bitmap(6, std::vector<bool>(20));
    for (std::int64_t i = 0; i < draws.size(0); ++i) {
      const auto* u = draws.data_ptr<double>() + 4 * i;
      const Block b{static_cast<std::int64_t>(u[0] * 5), 1 + static_cast<std::int64_t>(u[1] * 1.5),
                    static_cast<std::int64_t>(u[2] * 16), static_cast<std::int64_t>(u[3] * 5)};
      bool held = true;
      for (auto r = b.first_row; r < b.first_row + b.rows; ++r) {
        for (auto c = b.first_column; c < b.first_column + b.columns; ++c) {
          held = held && bitmap[static_cast<std::size_t>(r)][static_cast<std::size_t>(c)];
        }
      }
      REQUIRE(coverage.holds(b) == held);
      if (i % 3 == 0 && i < 120) {
        coverage.add(b);
        for (auto r = b.first_row; r < b.first_row + b.rows; ++r) {
          for (auto c = b.first_column; c < b.first_column + b.columns; ++c) {
            bitmap[static_cast<std::size_t>(r)][static_cast<std::size_t>(c)] = true;
          }
        }
      }
    }
  }

  TEST_CASE("what is written comes back") {
    const StoreFolder folder;
    auto store = open(folder.path);
    CHECK(fill(store->sink("scores")) == blocks().size());
    written(*store, folder.path);
    fs::copy(result_of(folder.path), folder.path / "scores.safetensors");
    for (const auto& path : {folder.path, result_of(folder.path)}) {
      const auto scores = read_scores(path);
      CHECK(scores.query_ids.equal(query_ids()));
      REQUIRE(scores.stages.size() == 1);
      CHECK(scores.stages[0].scores.equal(truth()));
      CHECK(scores.stages[0].example_ids.equal(example_ids()));
    }
    CHECK(read_safetensors(result_of(folder.path)).contains("example-ids"));
  }

  TEST_CASE("several stages keep their own examples, and double keeps its bits") {
    const StoreFolder folder;
    const auto pretrain = Random(2).normal({kQueries, 4}), finetune = Random(3).normal({kQueries, 2});
    {
      fs::create_directories(folder.path);
      ScoreStore store(folder.path,
                       {{"scores.pre/train", at::arange(4, at::kLong)}, {"scores.finetune", at::arange(2, at::kLong)}},
                       query_ids(), at::kDouble);
      store.sink("scores.finetune").block(0, 0, finetune);
      store.sink("scores.pre/train").block(0, 0, pretrain);
      CHECK(contains(test::message_of<InvalidArgument>([&] { store.sink("scores.finetun"); }), "scores.finetune"));
      written(store, folder.path);
    }
    const auto scores = read_scores(result_of(folder.path));
    REQUIRE(scores.stages.size() == 2);
    CHECK(scores.stages[0].name == "scores.pre/train");
    CHECK(scores.stages[0].scores.equal(pretrain));
    CHECK(scores.stages[1].scores.equal(finetune));
    CHECK(scores.stages[1].example_ids.numel() == 2);
    CHECK(read_safetensors(result_of(folder.path)).contains("example-ids.finetune"));
  }

  TEST_CASE("a run stopped after any block goes on to the same bytes") {
    const auto expected = uninterrupted();
    for (std::size_t done = 0; done <= blocks().size(); ++done) {
      CAPTURE(done);
      const StoreFolder folder;
      fill(open(folder.path)->sink("scores"), done);
      auto store = open(folder.path);
      CHECK(fill(store->sink("scores")) == blocks().size() - done);
      CHECK(written(*store, folder.path) == expected);
    }
  }

  TEST_CASE("a journal torn at any byte loses only the torn blocks") {
    const auto expected = uninterrupted();
    const StoreFolder whole;
    fill(open(whole.path)->sink("scores"));
    const auto journal = read_text(whole.path / "journal.txt");
    for (std::size_t length = 0; length <= journal.size(); ++length) {
      CAPTURE(length);
      const StoreFolder folder;
      fs::copy(whole.path, folder.path, fs::copy_options::recursive);
      overwrite(folder.path / "journal.txt", journal.substr(0, length));
      const auto kept = static_cast<std::size_t>(
          std::count(journal.begin(), journal.begin() + static_cast<std::ptrdiff_t>(length), '\n'));
      {  // data of blocks that the journal does not name may be anything
        std::fstream data(folder.path / "scores.bin", std::ios::in | std::ios::out | std::ios::binary);
        for (auto i = kept; i < blocks().size(); ++i) {
          const auto b = blocks()[i];
          data.seekp((b.first_row * kExamples + b.first_column) * 4);
          data.write("\xff\xff\xff\xff", 4);
        }
      }
      {
        auto store = open(folder.path);
        CHECK(fill(store->sink("scores"), kept + 1) == (kept < blocks().size() ? 1 : 0));
      }
      auto store = open(folder.path);  // twice, so that what is appended after a torn line is read again
      CHECK(fill(store->sink("scores")) == blocks().size() - std::min(blocks().size(), kept + 1));
      CHECK(written(*store, folder.path) == expected);
    }
  }

  TEST_CASE("a bit that flipped in the journal or in the data costs the block, not the truth") {
    const StoreFolder whole;
    fill(open(whole.path)->sink("scores"));
    for (const char* name : {"journal.txt", "scores.bin"}) {
      const auto bytes = read_text(whole.path / name);
      for (std::size_t place = 0; place < bytes.size(); ++place) {
        CAPTURE(name);
        CAPTURE(place);
        const StoreFolder folder;
        fs::copy(whole.path, folder.path, fs::copy_options::recursive);
        auto flipped = bytes;
        flipped[place] = static_cast<char>(flipped[place] ^ (1 << (place % 8)));
        overwrite(folder.path / name, flipped);
        auto store = open(folder.path);
        CHECK(fill(store->sink("scores")) > 0);
        CHECK(written(*store, folder.path) == uninterrupted());
      }
    }
  }

  TEST_CASE("a missing matrix of a resumed run is an error, not zeros") {
    const StoreFolder folder;
    fill(open(folder.path)->sink("scores"), 2);
    fs::remove(folder.path / "scores.bin");
    const auto refused = test::message_of<DataError>([&] { open(folder.path); });
    CHECK(contains(refused, "0 bytes, expected 220"));
    CHECK(contains(refused, "remove " + folder.path.string() + " to begin anew"));
  }

  TEST_CASE("scores that are not finite are refused by name and never held") {
    const StoreFolder folder;
    auto store = open(folder.path);
    for (const double bad : {std::nan(""), kInfinity, -kInfinity, 1e300}) {  // the last overflows float32
      auto scores = at::zeros({2, 3}, at::kDouble);
      scores[1][2] = bad;
      CHECK(contains(test::message_of<NumericalError>([&] { store->sink("scores").block(3, 4, scores); }),
                     "query row 4 (id 104), example row 6 (id 18) is not finite"));
    }
    CHECK_FALSE(store->sink("scores").has(3, 2, 4, 3));
    CHECK_FALSE(store->sink("scores").has(3, 1, 4, 1));
  }

  TEST_CASE("blocks outside the matrix or of another shape are refused") {
    const StoreFolder folder;
    auto store = open(folder.path);
    auto& sink = store->sink("scores");
    CHECK_THROWS_AS(sink.block(0, 0, at::zeros({4})), InvalidArgument);
    CHECK_THROWS_AS(sink.block(4, 0, at::zeros({2, 2})), InvalidArgument);
    CHECK_THROWS_AS(sink.block(0, 9, at::zeros({2, 3})), InvalidArgument);
    CHECK_THROWS_AS(sink.block(-1, 0, at::zeros({1, 1})), InvalidArgument);
    CHECK(contains(test::message_of<InvalidArgument>([&] { sink.has(0, 6, 0, 1); }), "leaves the matrix [5, 11]"));
    CHECK_THROWS_AS(ScoreStore(folder.path, {{"score", example_ids()}}, query_ids(), at::kFloat), InvalidArgument);
    CHECK_THROWS_AS(ScoreStore(folder.path, {{"scores", example_ids()}}, query_ids(), at::kHalf), InvalidArgument);
    CHECK_THROWS_AS(ScoreStore(folder.path, {{"scores", at::zeros({2})}}, query_ids(), at::kFloat), InvalidArgument);
  }

  TEST_CASE("a result with a hole is not finished") {
    const StoreFolder folder;
    auto store = open(folder.path);
    fill(store->sink("scores"), blocks().size() - 1);
    CHECK(contains(test::message_of<InvalidArgument>([&] { written(*store, folder.path); }),
                   "no score for query row 3 (id 103), example row 8 (id 24)"));
    CHECK_FALSE(fs::exists(result_of(folder.path)));
    fill(store->sink("scores"));
    CHECK(written(*store, folder.path) == uninterrupted());
  }

  TEST_CASE("saved vectors come back in a later run") {
    const StoreFolder folder;
    ParameterSet vectors;
    vectors.add("body.0.weight", Random(4).normal({2, 3}));
    vectors.add("head.bias", Random(4).normal({2}));
    {
      auto store = open(folder.path);
      CHECK_FALSE(store->load_vectors("fine/tune 0-3"));
      store->save_vectors("fine/tune 0-3", vectors);
    }
    auto store = open(folder.path);
    const auto loaded = store->load_vectors("fine/tune 0-3");
    REQUIRE(loaded);
    CHECK(loaded->names() == vectors.names());
    CHECK(loaded->at("body.0.weight").equal(vectors.at("body.0.weight")));
    CHECK(reinterpret_cast<std::uintptr_t>(loaded->at("head.bias").const_data_ptr()) % 64 == 0);
    CHECK_FALSE(store->load_vectors("fine_tune 0-3"));
  }

  TEST_CASE("vectors that are not as they were saved are made again") {
    const StoreFolder folder;
    ParameterSet vectors;
    vectors.add("a", at::arange(3, at::kInt));  // which the file puts behind the wider one
    vectors.add("b", Random(4).normal({2}));
    auto store = open(folder.path);
    store->save_vectors("block", vectors);
    REQUIRE(store->load_vectors("block"));
    const auto path = folder.path / "vectors.block.safetensors";
    const auto bytes = read_text(path);
    for (std::size_t place = 0; place < bytes.size(); ++place) {
      auto flipped = bytes;
      flipped[place] = static_cast<char>(flipped[place] ^ 4);
      overwrite(path, flipped);
      CAPTURE(place);
      const auto loaded = store->load_vectors("block");  // padding of the header may be anything
      CHECK((!loaded || (loaded->at("a").equal(vectors.at("a")) && loaded->at("b").equal(vectors.at("b")))));
    }
    overwrite(path, bytes.substr(0, bytes.size() - 1));
    CHECK_FALSE(store->load_vectors("block"));
  }

  TEST_CASE("a full disk is an error with the system's reason and leaves no result") {
    const StoreFolder folder;
    auto store = open(folder.path);
    fill(store->sink("scores"), 3);
    {
      const FullDisk disk(200);  // the last row's end lies at byte 220
      CHECK(contains(test::message_of<DataError>([&] { fill(store->sink("scores")); }), "File too large"));
    }
    CHECK_FALSE(store->sink("scores").has(3, 2, 8, 3));
    fill(store->sink("scores"));
    {
      const FullDisk disk(220);  // the matrix fits, the result with its header does not
      CHECK(contains(test::message_of<DataError>([&] { written(*store, folder.path); }), ".safetensors"));
    }
    CHECK_FALSE(fs::exists(result_of(folder.path)));
    CHECK_FALSE(fs::exists(result_of(folder.path).string() + ".part"));
    CHECK(written(*store, folder.path) == uninterrupted());
  }

  TEST_CASE("no queries or no examples make a valid empty result") {
    const StoreFolder folder;
    fs::create_directories(folder.path);
    ScoreStore store(folder.path, {{"scores", at::empty({0}, at::kLong)}}, query_ids(), at::kFloat);
    written(store, folder.path);
    CHECK(read_scores(result_of(folder.path)).stages[0].scores.sizes() == at::IntArrayRef({kQueries, 0}));
  }

  TEST_CASE("read_scores refuses files that are no result") {
    const StoreFolder folder;
    fs::create_directories(folder.path);
    const auto path = folder.path / "scores.safetensors";
    CHECK_THROWS_AS(read_scores(folder.path), DataError);
    const auto refusal = [&](std::vector<std::pair<std::string, at::Tensor>> tensors) {
      ParameterSet set;
      for (auto& [name, value] : tensors) {
        set.add(name, value);
      }
      write_safetensors(path, set);
      return test::message_of<DataError>([&] { read_scores(path); });
    };
    const auto ids = at::arange(2, at::kLong);
    CHECK(refusal({{"scores", at::zeros({2, 2})}, {"query-ids", ids}, {"example-ids", ids}}) == "");  // none
    CHECK(contains(refusal({{"scores", at::zeros({2, 2})}, {"example-ids", ids}}), "\"query-ids\""));
    CHECK(contains(refusal({{"scores.a", at::zeros({2, 2})}, {"query-ids", ids}, {"example-ids", ids}}),
                   "\"example-ids.a\""));
    CHECK(contains(refusal({{"scores", at::zeros({2, 3})}, {"query-ids", ids}, {"example-ids", ids}}),
                   "[2, 3], expected floating [2, 2]"));
    CHECK(contains(refusal({{"scores", at::zeros({2, 2}, at::kLong)}, {"query-ids", ids}, {"example-ids", ids}}),
                   "Long"));
    CHECK(contains(refusal({{"scores", at::zeros({2, 2})}, {"query-ids", at::zeros({2})}, {"example-ids", ids}}),
                   "int64"));
    CHECK(contains(refusal({{"weights", at::zeros({2, 2})}, {"query-ids", ids}}), "no tensor \"scores\""));
    const auto whole = uninterrupted();
    for (std::size_t length = 0; length < whole.size(); length += 7) {
      overwrite(path, whole.substr(0, length));
      CHECK_THROWS_AS(read_scores(path), DataError);
    }
  }
}
