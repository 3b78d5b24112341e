#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/stages/pipeline_file.h"

using namespace whence;
using test::Scratch;

namespace {

PipelineFile read(const Scratch& scratch, const std::string& text) {
  scratch.put("p.toml", text);
  return read_pipeline_file(scratch / "p.toml");
}

const std::string kModel = "[model]\nspec = \"mlp\"\n";

/// A stage of that name, with `more` keys.
std::string stage(const std::string& name, const std::string& more = "") {
  return "[[stage]]\nname = \"" + name + "\"\ntrain = { file = \"x\" }\ncheckpoint = \"run/" + name + "\"\n" + more;
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("a pipeline file is read without looking at anything that it names") {
  const Scratch scratch;
  const auto file =
      read(scratch, "seed = 7\n[model]\ncheckpoint = \"gone\"\ntokenizer = \"words.json\"\nadapter = \"ignore\"\n" +
                        stage("a") +
                        stage("b",
                              "tuning = \"head\"\nloss = \"squared-error\"\nweight-decay = 0.5\nsnapshots = 3\n"
                              "optimizer = \"sgd:epochs=2\"\nrename = { \"out\" = \"head\" }\n") +
                        "[queries.test]\ndata = { file = \"y\" }\n");
  CHECK(file.path == scratch / "p.toml");
  CHECK(file.seed == 7);
  CHECK(file.model.spec.empty());
  CHECK(file.model.folder == scratch / "gone");
  CHECK(file.model.tokenizer == scratch / "words.json");
  CHECK(file.model.ignore_adapter);
  CHECK(file.model.table.size() == 3);
  REQUIRE(file.stages.size() == 2);
  const auto& plain = file.stages[0];
  CHECK(plain.train == nlohmann::json{{"file", "x"}});
  CHECK(plain.checkpoint == scratch / "run/a");
  CHECK(plain.tuning == "full");
  CHECK(plain.loss == "cross-entropy");
  CHECK(plain.optimizer == "lbfgs");
  CHECK(plain.weight_decay == 0);
  CHECK(plain.snapshots == 0);
  CHECK(plain.rename.empty());
  const auto& told = file.stages[1];
  CHECK(told.name == "b");
  CHECK(told.tuning == "head");
  CHECK(told.loss == "squared-error");
  CHECK(told.optimizer == "sgd:epochs=2");
  CHECK(told.weight_decay == 0.5);
  CHECK(told.snapshots == 3);
  CHECK(told.rename == Renaming{{"out", "head"}});
  CHECK(file.queries == std::map<std::string, nlohmann::json>{{"test", {{"file", "y"}}}});
}

TEST_CASE("a head that starts at random is one of which nothing is said") {
  const Scratch scratch;
  const auto start = [&](const std::string& word) {
    const auto text = stage("a", "head-start = \"" + word + "\"\n");
    return read(scratch, "[model]\nspec = \"linear\"\n" + text).stages[0].head_start;
  };
  CHECK(start("random").empty());
  CHECK(start("regression") == "regression");
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage a: head-start = \"luck\", expected random or regression", start("luck"));
}

TEST_CASE("a stage says what its training is validated by, and how") {
  const Scratch scratch;
  const auto of = [&](const std::string& keys) {
    return read(scratch, "[model]\nspec = \"linear\"\n" + stage("a", keys)).stages[0];
  };
  const auto plain = of("");
  CHECK(plain.validation.is_null());
  const auto told = of("validation = { file = \"v\" }\n");
  CHECK(told.validation == nlohmann::json{{"file", "v"}});
  CHECK(told.patience == 5);
  CHECK(told.validation_every == 0);
  CHECK(told.validation_draws == 0);
  CHECK(told.validation_by == "loss");
  const auto all =
      of("validation = { file = \"v\" }\npatience = 0\nvalidation-every = 3\nvalidation-draws = 4\n"
         "validation-by = \"accuracy\"\n");
  CHECK(all.patience == 0);
  CHECK(all.validation_every == 3);
  CHECK(all.validation_draws == 4);
  CHECK(all.validation_by == "accuracy");
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage a: validation-draws = 4, which is for a stage with the key validation",
                      of("validation-draws = 4\n"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage a: validation-by = \"luck\", expected loss or accuracy",
                      of("validation = { file = \"v\" }\nvalidation-by = \"luck\"\n"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage a: patience = -1, expected a whole number >= 0",
                      of("validation = { file = \"v\" }\npatience = -1\n"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage a: validation and snapshots = 2: expected one of the two",
                      of("validation = { file = \"v\" }\nsnapshots = 2\n"));
}

TEST_CASE("what is wrong with a pipeline file is said in one line, with where it stands") {
  const Scratch scratch;
  CHECK_MESSAGE_HOLDS(DataError, "p.toml: line 2: ", read(scratch, "seed = 1\nseed = 2\n"));
  CHECK_MESSAGE_HOLDS(DataError, "p.toml: line 1: 2020-01-01 is a date or time", read(scratch, "seed = 2020-01-01\n"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "p.toml: the pipeline: the key \"model\" is missing", read(scratch, stage("a")));
  CHECK_MESSAGE_HOLDS(InvalidArgument,
                      "p.toml: [model]: expected one of the keys \"spec\", \"checkpoint\" and \"exported\"",
                      read(scratch, "[model]\n" + stage("a")));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "[model]: adapter = \"merge\", expected refuse or ignore",
                      read(scratch, "[model]\ncheckpoint = \"x\"\nadapter = \"merge\"\n" + stage("a")));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "p.toml: stage a: another stage has that name",
                      read(scratch, kModel + stage("a") + stage("a")));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage all: name = \"all\", expected a word other than \"all\"",
                      read(scratch, kModel + stage("all")));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage a: snapshots = -1, expected a whole number >= 0",
                      read(scratch, kModel + stage("a", "snapshots = -1\n")));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage a: unknown loss \"cross\"",
                      read(scratch, kModel + stage("a", "loss = \"cross\"\n")));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "[queries.test]: unknown key \"date\"; did you mean \"data\"?",
                      read(scratch, kModel + stage("a") + "[queries.test]\ndate = {}\n"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "[[stage]]: expected one table or more", read(scratch, "stage = []\n" + kModel));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "p.toml: [stage]: write [[stage]], once for each stage",
                      read(scratch, kModel + "[stage]\nname = \"a\"\n"));
}

TEST_SUITE_END();
