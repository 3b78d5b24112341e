// Tables through the binary: columns by name, classes across stages and checkpoints, what is refused before anything is
// trained.
#include "support/near.h"
#include "support/stale_warning.h"
#include "support/tool.h"
#include "whence/store/score_store.h"

using namespace whence;
using test::check_fails;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

/// A table with a number, a far number, a category with a missing cell and labels yes and no; columns in this order.
std::string people(std::int64_t first, std::int64_t count, bool swapped = false) {
  std::string out = swapped ? "answer,job,born,age\n" : "age,born,job,answer\n";
  for (auto i = first; i < first + count; ++i) {
    const auto age = 20 + i * 7 % 40;
    const auto born = 1700000000000 - age * 31 - i % 5;
    const char* job = i % 9 == 4 ? "?" : (i % 3 == 0 ? "clerk" : "baker");
    const char* answer = (age > 40) != (i % 11 == 0) ? "yes" : "no";
    out += swapped ? fmt::format("{},{},{},{}\n", answer, job, born, age)
                   : fmt::format("{},{},{},{}\n", age, born, job, answer);
  }
  return out;
}

void write_tables(const ToolFolder& folder, const std::string& keys = "") {
  folder.write("train.csv", people(0, 60));
  folder.write("later.csv", people(60, 30, true));
  folder.write("queries.csv", people(90, 6));
  folder.write("swapped.csv", people(90, 6, true));
  folder.write("table.toml", fmt::format(R"(
[model]
spec = "mlp:widths=4,activation=tanh"
[[stage]]
name = "first"
train = {{ format = "csv", file = "train.csv", label = "answer"{} }}
weight-decay = 1e-2
checkpoint = "run/first.safetensors"
[[stage]]
name = "second"
train = {{ format = "csv", file = "later.csv", label = "answer", classes = ["yes", "no"] }}
tuning = "full:proximity=0.1"
weight-decay = 1e-2
checkpoint = "run/second.safetensors"
[queries.plain]
data = {{ format = "csv", file = "queries.csv" }}
[queries.swapped]
data = {{ format = "csv", file = "swapped.csv" }}
)",
                                         keys));
}

/// A `linear` checkpoint of another program: weights [classes, inputs] and no metadata.
void write_linear(const ToolFolder& folder, const std::string& name, std::int64_t classes, std::int64_t inputs) {
  fs::create_directories((folder / name).parent_path());
  ParameterSet theta;
  auto draws = Random(5);
  theta.add("head.weight", draws.normal({classes, inputs}));
  theta.add("head.bias", draws.normal({classes}));
  write_safetensors(folder / name, theta);
}

std::string linear_pipeline(const std::string& data) {
  return fmt::format(R"([model]
spec = "linear"
[[stage]]
name = "fit"
train = {{ {} }}
weight-decay = 1e-2
checkpoint = "run/fit.safetensors"
[queries.test]
data = {{ {} }}
)",
                     data, data);
}

const std::string kScore = " --method grad-dot --quiet --dtype float64 --out ";

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("tables: a chain reads every table by the first one's columns, found by name") {
  const ToolFolder folder;
  write_tables(folder);
  const auto trained = folder.run("train table.toml");
  CAPTURE(trained.err);
  REQUIRE(trained.status == 0);
  CHECK(
      trained.err.find("train.csv: 5 inputs: 2 numbers, standardised (standardize = false leaves them as they are); 1 "
                       "category, one input a level; 7 missing cells, a level \"?\"") != std::string::npos);
  for (const std::string stage : {"first", "second"}) {
    const auto score = "score table.toml --stage " + stage + " --queries ";
    for (const std::string split : {"plain", "swapped"}) {
      const auto result = folder.run(score + split + kScore + split + stage);
      CAPTURE(result.err);
      REQUIRE(result.status == 0);
    }
    const auto plain = read_scores(folder / ("plain" + stage)), swapped = read_scores(folder / ("swapped" + stage));
    CHECK(at::equal(plain.stages[0].scores, swapped.stages[0].scores));
  }
  const auto before = folder.read("queries.csv");  // which --format csv writes too
  check_fails(folder.run("score table.toml --stage first --queries plain --format csv --method random --quiet --out ."),
              1, "queries.csv was not written by whence and would be overwritten");
  CHECK(folder.read("queries.csv") == before);
  CHECK_FALSE(fs::exists(folder / "scores.safetensors"));
  const auto told = nlohmann::json::parse(folder.run("inspect run/second.safetensors --json").out)["metadata"];
  CHECK(told["classes"] == "[\"yes\",\"no\"]");
  CHECK(told["standardize"] == "true");
}

TEST_CASE("tables: training again follows the data, not what the old checkpoint says") {
  const ToolFolder folder;
  folder.write("t.csv", "x,label\n1,80\n2,160\n3,240\n4,160\n");
  folder.write("p.toml", linear_pipeline("format = \"csv\", file = \"t.csv\""));
  REQUIRE(folder.run("train p.toml --quiet").status == 0);
  CHECK(read_safetensors(folder / "run/fit.safetensors").at("head.weight").size(0) == 3);
  folder.write("t.csv", "x,label\n1,160\n2,160\n3,80\n4,160\n");
  REQUIRE(folder.run("train p.toml --quiet --force").status == 0);
  CHECK(read_safetensors(folder / "run/fit.safetensors").at("head.weight").size(0) == 2);
  // also where the data no longer fits what the old one says: a class more
  folder.write("t.csv", "x,label\n1,80\n2,160\n3,240\n4,160\n");
  folder.write("p.toml", linear_pipeline("format = \"csv\", file = \"t.csv\", classes = [80, 160, 240]"));
  const auto stale = folder.run("rank p.toml --method random");
  check_fails(test::less_stale_warning(stale), 1, "unknown class \"240\"");
  const auto again = folder.run("train p.toml --quiet --force");
  CAPTURE(again.err);
  REQUIRE(again.status == 0);
  CHECK(read_safetensors(folder / "run/fit.safetensors").at("head.weight").size(0) == 3);
}

TEST_CASE("tables: a checkpoint made elsewhere gets numbers as they are, and its outputs are met by place") {
  const ToolFolder folder;
  write_linear(folder, "run/fit.safetensors", 10, 2);
  folder.write("t.csv", "a,b,label\n10,2,3\n20,4,8\n30,5,3\n");
  folder.write("p.toml", linear_pipeline("format = \"csv\", file = \"t.csv\""));
  folder.write("raw.toml", linear_pipeline("format = \"csv\", file = \"t.csv\", standardize = false"));
  folder.write("classes.toml", linear_pipeline("format = \"csv\", file = \"t.csv\", classes = [3, 8]"));
  for (const std::string name : {"p", "raw", "classes"}) {
    const auto result = folder.run("score " + name + ".toml --stage fit --queries test" + kScore + name);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
  }
  const auto whole = read_scores(folder / "p").stages[0].scores;
  CHECK(at::equal(whole, read_scores(folder / "raw").stages[0].scores));
  CHECK(at::equal(whole, read_scores(folder / "classes").stages[0].scores));
  // grad-dot of a linear softmax by hand: -(p - y).(p' - y') (x.x' + 1), decay on the query's side left out
  const auto theta = read_safetensors(folder / "run/fit.safetensors");
  const auto x = at::tensor({10.0, 2.0, 20.0, 4.0, 30.0, 5.0}, at::kDouble).view({3, 2});
  auto residual =
      at::softmax(at::addmm(theta.at("head.bias").to(at::kDouble), x, theta.at("head.weight").to(at::kDouble).t()), 1);
  residual = residual - at::one_hot(at::tensor({3, 8, 3}, at::kLong), 10).to(at::kDouble);
  const auto expected = -(residual.mm(residual.t()) * (x.mm(x.t()) + 1));
  CHECK(test::relative_error(whole, expected) < 1e-10);
}

TEST_CASE("tables: which class a checkpoint's outputs are is asked for where labels are words") {
  const ToolFolder folder;
  write_linear(folder, "run/fit.safetensors", 2, 1);
  folder.write("t.csv", "x,label\n1,yes\n2,no\n");
  folder.write("p.toml", linear_pipeline("format = \"csv\", file = \"t.csv\""));
  check_fails(folder.run("score p.toml --stage fit --queries test --method grad-dot --quiet --out out"), 1,
              "list all 2 classes in the order of the outputs: classes = [\"no\", \"yes\"]");
  folder.write("p.toml", linear_pipeline("format = \"csv\", file = \"t.csv\", classes = [\"yes\", \"no\"]"));
  CHECK(folder.run("score p.toml --stage fit --queries test --method grad-dot --quiet --out out").status == 0);
}

TEST_CASE("tables: what cannot be read is refused before training, in one line that says what to type") {
  const ToolFolder folder;
  const auto refuse = [&](const std::string& text, const std::string& part, const std::string& flags = "") {
    folder.write("t.csv", text);
    folder.write("p.toml", linear_pipeline("format = \"csv\", file = \"t.csv\""));
    check_fails(folder.run("train p.toml --quiet " + flags), 1, part);
    CHECK(!fs::exists(folder / "run/fit.safetensors"));
  };
  refuse("x,label\n1,caf\xe9\n2,b\n", "t.csv: line 2, byte 14 of the file: 0xE9 is not UTF-8");
  refuse("x,label\n1,a\n?,b\n", "line 3, column \"x\": \"?\", one of 1 missing in the column; missing = \"mean\"");
  refuse("x,label\n1,a\n1e999,b\n", "\"1e999\" is not a finite number: float64 reaches 1.8e308");
  refuse("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer");
  folder.write("p.toml", linear_pipeline("format = \"csv\", file = \"t.csv\", standardize = false"));
  folder.write("t.csv", "x,label\n1,a\n1e39,b\n");
  check_fails(folder.run("train p.toml --quiet"), 1, "column \"x\": 1e+39 is beyond the reach of float32: use --dtype");
  folder.write("p.toml", std::string("\xFF\xFE[\0m\0", 6));
  check_fails(folder.run("train p.toml --quiet"), 1, "p.toml: the text is UTF-16, expected UTF-8: iconv");
}

TEST_CASE("tables: a folder whose name is no UTF-8, or has a comma") {
  const ToolFolder folder;
  for (const std::string name : {"caf\xe9", "a, b"}) {
    fs::create_directories(folder / name);
    folder.write(name + "/t.csv", "x,label\n1,a\n2,b\n3,a\n");
    folder.write(name + "/p.toml", linear_pipeline("format = \"csv\", file = \"t.csv\""));
    CHECK(folder.run("train '" + name + "/p.toml' --quiet").status == 0);
    const auto result =
        folder.run("score '" + name + "/p.toml' --stage fit --queries test" + kScore + "'" + name + "/out'");
    CAPTURE(result.err);
    CHECK(result.status == 0);
    CHECK(fs::exists(folder / (name + "/out/run.json")));
  }
}

TEST_CASE("tables: labels that the training data drops are dropped from its queries, and an unknown one says how") {
  const ToolFolder folder;
  folder.write("t.csv", "x,label\n1,yes\n2,no\n3,maybe\n4,\n5,yes\n");
  folder.write("q.csv", "x,label\n1,maybe\n2,no\n3,\n4,yes\n");
  folder.write("q.jsonl",
               "{\"x\": 1, \"label\": \"maybe\"}\n{\"x\": 2, \"label\": null}\n{\"x\": 3, \"label\": \"no\"}\n");
  const std::string train = "format = \"csv\", file = \"t.csv\", drop-labels = [\"maybe\", \"\"]";
  const auto score = [&](const std::string& queries, const std::string& out) {
    auto text = linear_pipeline(train);
    text.replace(text.rfind(train), train.size(), queries);
    folder.write("p.toml", text);
    return folder.run("score p.toml --stage fit --queries test" + kScore + out);
  };
  folder.write("p.toml", linear_pipeline(train));
  REQUIRE(folder.run("train p.toml --quiet").status == 0);
  const auto result = score("format = \"csv\", file = \"q.csv\"", "csv");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(at::equal(read_scores(folder / "csv").query_ids, at::tensor({1, 3}, at::kLong)));
  REQUIRE(score("format = \"jsonl\", file = \"q.jsonl\"", "jsonl").status == 0);
  CHECK(at::equal(read_scores(folder / "jsonl").query_ids, at::tensor({2}, at::kLong)));
  check_fails(
      score("format = \"csv\", file = \"q.csv\", drop-labels = [\"\"]", "own"), 1,  // their own word counts
      "line 2, column \"label\" has label maybe, expected one of no, yes; classes = [\"no\", \"yes\"] leaves such "
      "examples out");
}

TEST_CASE("tables: one class is refused before training, and where an old checkpoint has one") {
  const ToolFolder folder;
  folder.write("p.toml", linear_pipeline("format = \"csv\", file = \"t.csv\""));
  for (const std::string text : {"x,label\n1,a\n2,a\n", "x,label\n1,a\n"}) {
    folder.write("t.csv", text);
    check_fails(folder.run("train p.toml --quiet"), 1, "every label of t.csv is \"a\": one class leaves nothing");
    CHECK(!fs::exists(folder / "run"));
  }
  folder.write("t.csv", "x,label\n1,0\n2,0\n");
  write_linear(folder, "run/fit.safetensors", 1, 1);
  check_fails(folder.run("rank p.toml --method grad-dot --quiet"), 1, "every label of t.csv is \"0\"");
}

TEST_CASE("channels: mean and std that leave no plausible inputs are a warning, before training and after") {
  const ToolFolder folder;
  const auto warnings = [&](const std::string& keys) {
    folder.write("p.toml", linear_pipeline("format = \"safetensors\", file = \"pretrain.safetensors\", " + keys));
    const auto result = folder.run("train p.toml --quiet --force");
    CAPTURE(result.err);
    CHECK(result.status == 0);
    return result.err + folder.run("rank p.toml --method grad-dot --limit-queries 1 --quiet").err;
  };
  const std::string warning = "warning: stage fit: mean = [33.3] leave inputs of mean -33.";
  const auto told = warnings("mean = 33.3");
  CAPTURE(told);
  CHECK(told.find(warning) != std::string::npos);
  CHECK(told.find(warning) < told.rfind(warning));
  CHECK(warnings("mean = 0.1307, std = 0.3081").find("leave inputs") == std::string::npos);
}

TEST_SUITE_END();
