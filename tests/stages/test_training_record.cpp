#include "support/near.h"
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
