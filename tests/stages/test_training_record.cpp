#include "support/near.h"
#include "support/tool.h"
#include "whence/stages/detail/training_record.h"
#include "whence/stages/pipeline.h"

using namespace whence;
using nlohmann::json;

TEST_SUITE_BEGIN("stages");

TEST_CASE("settings that differ are named key by key, from and to a table of none") {
  using Lines = std::vector<std::string>;
  const json some{{"train", {{"limit", 2000}}}};
  CHECK(whence::detail::changed_settings(some, {{"train", {{"limit", 1000}}}}) ==
        Lines{"train.limit = 2000, now 1000"});
  CHECK(whence::detail::changed_settings(json::object(), some) == Lines{"train.limit = not given, now 2000"});
  CHECK(whence::detail::changed_settings(some, json::object()) == Lines{"train.limit = 2000, now not given"});
  CHECK(whence::detail::changed_settings(json::object(), json::object()).empty());
}

TEST_CASE("how a training ended is read as it was written, and a text that is none as nothing") {
  StageTraining training;
  training.summary.converged = true;
  training.summary.iterations = 17;
  training.stationarity = {0.1, 1e-300, 3.0, 1.0 / 3};
  training.stationarity_of = "key";
  training.examples = 12;
  training.parameters = 34;
  training.summary.validation = {{8, 1.0 / 3, 0.5}, {16, 0.4, std::nan("")}};
  training.summary.kept = 8;
  training.summary.stopped_early = true;
  const auto read = whence::detail::read_training(whence::detail::training_text(training), "x");
  CHECK(read.summary.converged);
  CHECK(read.summary.iterations == 17);
  CHECK(read.stationarity.objective == 0.1);
  CHECK(read.stationarity.gradient_norm == 1e-300);
  CHECK(read.stationarity.data_gradient_norm == 3);
  CHECK(read.stationarity.relative_gradient_norm == 1.0 / 3);
  CHECK(read.stationarity_of == "key");
  CHECK(read.examples == 12);
  CHECK(read.parameters == 34);
  REQUIRE(read.summary.validation.size() == 2);
  CHECK(read.summary.validation[0].loss == 1.0 / 3);
  CHECK(read.summary.validation[0].accuracy == 0.5);
  CHECK(std::isnan(read.summary.validation[1].accuracy));
  CHECK(read.summary.kept == 8);
  CHECK(read.summary.stopped_early);
  CHECK(whence::detail::read_training("no JSON", "x").examples == 0);
  CHECK(whence::detail::parse_record("[1]") == json::object());
}

TEST_CASE("training measures how far from a minimum it ended, and what loads finds that until something is otherwise") {
  const test::ToolFolder folder;
  const auto open = [&](at::ScalarType dtype) { return Pipeline(folder / "pipeline.toml", {.dtype = dtype}); };
  const auto pipeline = open(at::kDouble);
  std::vector<double> ended;
  for (const auto k : {std::size_t{0}, std::size_t{1}}) {
    ended.push_back(pipeline.train(k, {}).stationarity.gradient_norm);
  }
  auto chain = open(at::kDouble).load();
  REQUIRE(chain.size() == 2);
  for (std::size_t k = 0; k < 2; ++k) {
    REQUIRE(chain[k].measured);
    CHECK(chain[k].measured->value.gradient_norm == ended[k]);
    chain[k].measured->value.gradient_norm = -7;  // to tell whether it is measured anew
    CHECK(stationarity(chain[k]).gradient_norm == -7);
    CHECK(stationarity(chain[k].objective, chain[k].theta, chain[k].parent).gradient_norm ==
          doctest::Approx(ended[k]).epsilon(1e-9));
  }
  auto moved = chain[1];
  moved.theta = clone(moved.theta);
  moved.theta[0].mul_(2);
  CHECK(stationarity(moved).gradient_norm > 0);
  moved = chain[1];
  moved.parent = clone(moved.parent);
  moved.parent[0].mul_(2);
  CHECK(stationarity(moved).gradient_norm > 0);
  for (const auto& stage : open(at::kFloat).load()) {  // of other passes
    REQUIRE(stage.measured);
    CHECK(stage.measured->of != stationarity_key(stage));
  }
}

TEST_CASE("methods of a record have the options of today, and what is not known stays as it was") {
  const auto settings = whence::detail::recorded_settings({{"settings",
                                                            {{"loss", "cross-entropy"},
                                                             {"tuning", "full:no-such-option=1"},
                                                             {"model", {{"spec", "linear"}}},
                                                             {"seed", 3}}}});
  CHECK(settings == json{{"loss", "cross-entropy:smoothing=0"},
                         {"tuning", "full:no-such-option=1"},
                         {"model", {{"spec", "linear:bias=true"}}},
                         {"seed", 3}});
  CHECK(whence::detail::changed_settings(settings, {{"loss", "cross-entropy:smoothing=0.5"},
                                                    {"tuning", "full:no-such-option=1"},
                                                    {"model", {{"spec", "linear:bias=true"}}},
                                                    {"seed", 3}}) ==
        std::vector<std::string>{"loss = \"cross-entropy:smoothing=0\", now \"cross-entropy:smoothing=0.5\""});
}

TEST_SUITE_END();
