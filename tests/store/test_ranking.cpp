#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "support/contents.h"
#include "support/near.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/store/ranking.h"

using namespace whence;
using test::contains;
namespace fs = std::filesystem;

namespace {

std::vector<std::int64_t> ids_of(const std::vector<RankedExample>& list) {
  std::vector<std::int64_t> ids;
  for (const auto& entry : list) {
    ids.push_back(entry.example);
  }
  return ids;
}
using Ids = std::vector<std::int64_t>;

struct TemporaryFile {
  fs::path path = fs::temp_directory_path() / ("whence-ranking-" + std::to_string(::getpid()) + ".jsonl");
  ~TemporaryFile() { fs::remove(path); }
};

std::string failure(const fs::path& path, const std::string& text) {
  write_text(path, text);
  try {
    read_rankings(path);
  } catch (const DataError& error) {
    return error.what();
  }
  return "no error";
}

const std::string kGoodLine = R"({"query":4,"measurement":0.5,"proponents":[],"opponents":[]})";

}  // namespace

TEST_SUITE("store") {
  TEST_CASE("intervals are kept, and order is unsure where they overlap the next one's") {
    Ranking ranking;
    ranking.proponents = {{.example = 1, .score = -9, .removal = 0.9, .interval = {{0.8, 1.0}}},
                          {.example = 2, .score = -6, .removal = 0.6, .interval = {{0.5, 0.7}}},
                          {.example = 3, .score = -5, .removal = 0.5, .interval = {{0.4, 0.55}}},
                          {.example = 4, .score = -1, .removal = 0.1, .interval = {}}};
    mark_unsure_order(ranking);
    const TemporaryFile file;
    write_rankings(file.path, {ranking});
    const auto read = read_rankings(file.path).at(0);
    CHECK_FALSE(read.proponents[0].order_unsure);
    CHECK(read.proponents[1].order_unsure);
    CHECK_FALSE(read.proponents[2].order_unsure);
    CHECK(read.proponents[0].interval == std::pair(0.8, 1.0));
    CHECK_FALSE(read.proponents[3].interval.has_value());
  }

  TEST_CASE("proponents speak for the outcome: the lowest scores of a loss, the highest of the others") {
    const auto scores = at::tensor({0.5, -2.0, 3.0, 0.5, -2.0, 0.0}, at::kDouble);
    const auto ids = at::tensor({50, 40, 30, 20, 10, 5}, at::kLong);
    const auto loss = rank_examples(scores, ids, 3, Measurement::kLoss);
    CHECK(ids_of(loss.proponents) == Ids{10, 40});  // ties go by lower id, and no other example speaks for the outcome
    CHECK(ids_of(loss.opponents) == Ids{30, 20, 50});
    CHECK(loss.proponents[0].score == -2);
    CHECK(loss.proponents[0].removal == 2.0 / 6);  // left out, the loss rises
    CHECK(loss.opponents[0].removal == -3.0 / 6);
    for (const auto measurement : {Measurement::kLogProbability, Measurement::kLogit, Measurement::kMargin}) {
      const auto other = rank_examples(scores, ids, 2, measurement);
      CHECK(ids_of(other.proponents) == Ids{30, 20});
      CHECK(other.proponents[0].score == 3);
      CHECK(other.proponents[0].removal == -3.0 / 6);  // left out, the log-probability falls
      CHECK(ids_of(other.opponents) == Ids{10, 40});
    }
    const auto order = rank_examples(scores, ids, 1, Measurement::kMargin, /*predicts_removal=*/false);
    CHECK_FALSE(order.proponents[0].removal.has_value());
  }

  TEST_CASE("ranking takes what there is, in any dtype and stride") {
    const auto matrix = at::arange(12, at::kFloat).view({4, 3});
    const auto ids = at::arange(4, at::kLong);
    const auto ranking = rank_examples(matrix.select(1, 1), ids, 10, Measurement::kLogit);
    CHECK(ids_of(ranking.proponents) == Ids{3, 2, 1, 0});
    CHECK(ranking.opponents.empty());
    CHECK(rank_examples(matrix.select(1, 1), ids, 0, Measurement::kLogit).proponents.empty());
    CHECK(rank_examples(at::empty({0}), at::empty({0}, at::kLong), 5, Measurement::kLoss).opponents.empty());
  }

  TEST_CASE("ranking refuses what it cannot order") {
    const auto ids = at::arange(2, at::kLong);
    const auto loss = Measurement::kLoss;
    CHECK_THROWS_AS(rank_examples(at::tensor({1.0, NAN}), ids, 1, loss), NumericalError);
    CHECK_THROWS_AS(rank_examples(at::zeros({3}), ids, 1, loss), InvalidArgument);
    CHECK_THROWS_AS(rank_examples(at::zeros({2}), ids, -1, loss), InvalidArgument);
    CHECK_THROWS_AS(rank_examples(at::zeros({2}), at::zeros({2}), 1, loss), InvalidArgument);
  }

  TEST_CASE("rankings come back as they were written") {
    const TemporaryFile file;
    const auto ids = at::tensor(Ids{7, 8, 1L << 60}, at::kLong);
    auto first = rank_examples(at::tensor({0.1, -1e-30, 7.25}, at::kDouble), ids, 2, Measurement::kLogit);
    first.query = 12;
    first.measurement = 1.0 / 3;
    first.stage = "pre \"train\"\n";
    first.prediction =
        Prediction{.predicted = "cat", .expected = "dog", .probability = 0.75, .expected_probability = 0.25};
    auto second = rank_examples(at::tensor({0.1, 0.2, 0.3}, at::kDouble), ids, 1, Measurement::kLogit, false);
    second.query = 13;
    second.tasks = {{"alarm", -0.5}, {"a \"b\"", 0.25}};
    second.prediction = Prediction{.tokens = 5, .first_choices = 2, .perplexity = 3.5};
    write_rankings(file.path, std::vector<Ranking>{first, second});
    const auto read = read_rankings(file.path);
    REQUIRE(read.size() == 2);
    CHECK(read[0].query == 12);
    CHECK(read[0].stage == first.stage);
    CHECK(read[0].measurement == first.measurement);
    CHECK(ids_of(read[0].proponents) == Ids{1L << 60, 7});
    CHECK(ids_of(read[0].opponents) == Ids{8});
    CHECK(read[0].opponents[0].score == -1e-30);
    CHECK(read[0].opponents[0].removal == first.opponents[0].removal);
    REQUIRE(read[0].prediction.has_value());
    CHECK(read[0].prediction->predicted == "cat");
    CHECK(read[0].prediction->expected == "dog");
    CHECK(read[0].prediction->probability == 0.75);
    CHECK(read[0].prediction->expected_probability == 0.25);
    CHECK(std::isnan(read[0].prediction->perplexity));
    CHECK(read[1].stage.empty());
    CHECK(read[1].opponents.empty());
    CHECK(read[0].tasks.empty());
    CHECK(read[1].tasks == second.tasks);
    CHECK_FALSE(read[1].proponents[0].removal.has_value());
    CHECK(read[1].prediction->tokens == 5);
    CHECK(read[1].prediction->first_choices == 2);
    CHECK(read[1].prediction->perplexity == 3.5);
    const auto text = read_text(file.path);
    CHECK(text.find(R"({"query":12,"stage":)") == 0);
    CHECK_FALSE(contains(text.substr(text.find('\n')), "stage"));
    CHECK_FALSE(contains(text.substr(text.find('\n')), "removal"));
  }

  TEST_CASE("damaged rankings are refused with their line") {
    const TemporaryFile file;
    const auto path = file.path;
    CHECK(failure(path, kGoodLine + "\n" + kGoodLine) == "no error");
    CHECK(contains(failure(path, kGoodLine + "\n" + kGoodLine.substr(0, 30)), "line 2"));
    CHECK(failure(path, kGoodLine + "\n\n") == "no error");  // blank lines hold nothing
    CHECK(contains(failure(path, "[]\n"), path.string() + ": line 1: a list of 0, expected an object"));
    for (std::size_t length = 1; length < kGoodLine.size(); ++length) {
      CHECK(failure(path, kGoodLine.substr(0, length)) != "no error");
    }
    CHECK(contains(failure(path, R"({"query":1.5,"measurement":0,"proponents":[],"opponents":[]})"),
                   "query = 1.5, expected a whole number"));
    CHECK(contains(failure(path, R"({"query":1,"measurement":"x","proponents":[],"opponents":[]})"),
                   "line 1: measurement = \"x\", expected a number"));
    CHECK(contains(failure(path, R"({"query":1,"measurement":0,"proponents":{},"opponents":[]})"),
                   "proponents = an object of 0, expected a list"));
    CHECK(contains(failure(path, R"({"query":1,"measurement":0,"proponents":[{"example":1}],"opponents":[]})"),
                   "proponents[0]: the key \"score\" is missing"));
  }

  TEST_CASE("a number that JSON cannot hold is never written") {
    const TemporaryFile file;
    Ranking ranking;
    ranking.measurement = INFINITY;
    CHECK_THROWS_AS(write_rankings(file.path, std::vector<Ranking>{ranking}), NumericalError);
    CHECK_FALSE(fs::exists(file.path));
  }
}
