// Models from elsewhere through the binary: folders that are not complete, weights under other names, inspect.
#include "support/near.h"
#include "support/tool.h"
#include "tools/base_model.h"
#include "whence/store/score_store.h"

using namespace whence;
using test::check_fails;
using test::ToolFolder;
using test::write_base_model;
namespace fs = std::filesystem;

namespace {

/// A folder `base` that holds a stored checkpoint; texts with labels.
void write_model(const ToolFolder& folder, const std::string& name) {
  write_base_model(folder, name);
  folder.write("texts.tsv",
               "label\ttext\npositive\ta good film\nnegative\ta bad film\npositive\thappy\nnegative\tsad\n");
  folder.write("text.toml", R"([model]
checkpoint = "base"
[[stage]]
name = "first"
train = { format = "tsv", file = "texts.tsv" }
loss = "next-token"
optimizer = "adamw:learning-rate=1e-2,epochs=1,batch-size=4"
checkpoint = "base"
[queries.test]
data = { format = "tsv", file = "texts.tsv" }
)");
}

std::string contents_of(const fs::path& directory) {
  std::string out;
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) {
    out += fmt::format("{} {}\n", path.string(), fs::is_directory(path) ? "" : digest(path));
  }
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("weights in pytorch_model.bin are named, and the folder is left as it was") {
  const ToolFolder folder;
  write_model(folder, "gpt2");
  fs::rename(folder / "base/model.safetensors", folder / "base/pytorch_model.bin");
  const auto before = contents_of(folder.path() / "base");
  for (const char* command :
       {"train text.toml", "rank text.toml --stage first --queries test", "inspect text.toml", "inspect base"}) {
    CAPTURE(command);
    const auto result = folder.run(command);
    check_fails(result, 1, "the weights are in pytorch_model.bin, and model.safetensors is not there");
    CHECK(result.err.find("t.AutoModelForCausalLM.from_pretrained(d).save_pretrained(o)") != std::string::npos);
  }
  CHECK(contents_of(folder.path() / "base") == before);
  CHECK(!fs::exists(folder / "base.unfinished"));
}

TEST_CASE("training writes nothing into the model's folder, nor over weights that it did not write") {
  const ToolFolder folder;
  write_model(folder, "gpt2");
  const auto train = [&](const std::string& checkpoint) {
    auto text = folder.read("text.toml");
    const std::string from = "checkpoint = \"base\"\n[queries";
    text.replace(text.find(from), from.size(), "checkpoint = \"" + checkpoint + "\"\n[queries");
    folder.write("other.toml", text);
    return folder.run("train other.toml --force --stage first --quiet");
  };
  const auto before = contents_of(folder.path() / "base");
  for (const char* place : {"base", "./base/", "base/mine.safetensors", "base/run"}) {
    CAPTURE(place);
    check_fails(train(place), 1, "is in the model's own folder, where nothing is written: choose another");
  }
  CHECK(contents_of(folder.path() / "base") == before);
  fs::copy(folder / "base", folder / "mine");
  check_fails(train("mine"), 1, "was not written by whence, so it is left as it is");
  CHECK(train("run/first/").status == 0);
  CHECK(train("run/first").status == 0);  // its own, again
  CHECK(fs::exists(folder / "run/first/tokenizer.json"));
  CHECK(!fs::exists(folder / "run/first.part"));
  folder.write("pipeline.toml", folder.pipeline("run/pretrain", "queries"));
  const auto data = digest(folder / "queries.safetensors");
  check_fails(folder.run("train pipeline.toml --force --stage pretrain"), 1, "was not written by whence");
  CHECK(digest(folder / "queries.safetensors") == data);
}

TEST_CASE("that a model's folder holds no weights is said before training from random ones, with --quiet too") {
  const ToolFolder folder;
  write_model(folder, "gpt2");
  fs::remove(folder / "base/model.safetensors");
  auto text = folder.read("text.toml");
  const std::string from = "checkpoint = \"base\"\n[queries";
  folder.write("text.toml", text.replace(text.find(from), from.size(), "checkpoint = \"run/first\"\n[queries"));
  const std::string warning = "whence: warning: base: no weights there, so stage first starts at random\n";
  const auto result = folder.run("train text.toml --quiet");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(result.err.find(warning) != std::string::npos);
  CHECK(folder.run("train text.toml").err.find(warning) == std::string::npos);  // trained already
}

TEST_CASE("no result is written into a model's folder") {
  const ToolFolder folder;
  write_model(folder, "gpt2");
  check_fails(folder.run("rank pipeline.toml --stage finetune --queries test --out base"), 1,
              "--out base: a model lies there (config.json), in whose folder nothing is written");
  CHECK(!fs::exists(folder / "base/run.json"));
}

TEST_CASE("an adapter beside the weights is refused, or ignored when asked to, and says so") {
  const ToolFolder folder;
  write_model(folder, "gpt2");
  folder.write("base/adapter_config.json", R"({"peft_type": "LORA"})");
  folder.write("base/adapter_model.safetensors", "x");
  const std::string rank =
      "rank text.toml --stage first --queries test --curvature gauss-newton --damping 1 --solver direct --out out";
  check_fails(folder.run(rank), 1, "an adapter (LORA) lies there");
  check_fails(folder.run(rank), 1, ", or leave it out with adapter = \"ignore\" in [model]");
  const auto folder_itself = folder.run("inspect base --json");  // has no [model], and says what there is
  CHECK(folder_itself.status == 0);
  CHECK(folder_itself.out.find("base: the adapter there is ignored") != std::string::npos);
  auto text = folder.read("text.toml");
  folder.write("text.toml", text.replace(text.find("checkpoint"), 0, "adapter = \"ignore\"\n"));
  const auto result = folder.run("inspect text.toml");
  CHECK(result.status == 0);
  CHECK(result.err.find("whence: note: base: the adapter there is ignored") != std::string::npos);
}

TEST_CASE("a file beside the model that appears later is told where it was looked for before") {
  const ToolFolder folder;
  write_model(folder, "gpt2");
  auto text = folder.read("text.toml");
  const std::string from = "checkpoint = \"base\"\n[queries";
  folder.write("text.toml", text.replace(text.find(from), from.size(), "checkpoint = \"run/first\"\n[queries"));
  const std::string rank = "rank text.toml --method random --quiet --out ";
  REQUIRE(folder.run("train text.toml --quiet").status == 0);
  REQUIRE(folder.run(rank + "out").status == 0);
  REQUIRE(folder.run("report out").status == 0);
  const auto key = folder.json("out/run.json")["key"];
  folder.write("base/special_tokens_map.json", "{}");
  check_fails(folder.run("report out"), 1, "base/special_tokens_map.json was not there when this was made");
  const auto again = folder.run(rank + "again");
  CHECK(again.status == 0);
  CHECK(again.err.find("base/special_tokens_map.json has changed") != std::string::npos);  // since it was trained
  CHECK(folder.json("again/run.json")["key"] != key);
  fs::remove(folder / "base/special_tokens_map.json");
  CHECK(folder.run("report out").status == 0);
  CHECK(folder.run(rank + "out").err.find("has changed") == std::string::npos);
}

TEST_CASE("a comma in the folder's name") {
  const ToolFolder folder;
  write_model(folder, "gpt2");
  fs::rename(folder / "base", folder / "base, v2");
  auto text = folder.read("text.toml");
  for (auto at = text.find("\"base\""); at != text.npos; at = text.find("\"base\"")) {
    text.replace(at, 6, "\"base, v2\"");
  }
  folder.write("text.toml", text);
  const auto result = folder.run("inspect text.toml");
  CAPTURE(result.err);
  CHECK(result.status == 0);
}

TEST_CASE("weights of a PyTorch nn.Sequential are those of the mlp, and what went where is said") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --stage pretrain --quiet").status == 0);
  const auto own = read_safetensors(folder / "run/pretrain.safetensors");
  const auto write = [&](const std::string& name, const std::vector<std::pair<std::string, std::string>>& names) {
    ParameterSet other;
    for (const auto& [to, from] : names) {
      other.add(to, own.at(from));
    }
    write_safetensors(folder / name, other);
  };
  write("torch.safetensors", {{"module.0.bias", "body.0.bias"},
                              {"module.0.weight", "body.0.weight"},
                              {"module.2.bias", "head.bias"},
                              {"module.2.weight", "head.weight"}});
  const std::string one_stage = folder.pipeline().substr(0, folder.pipeline().rfind("[[stage]]")) +
                                folder.pipeline().substr(folder.pipeline().find("[queries"));
  const auto with = [&](const std::string& checkpoint) {
    auto text = one_stage;
    const std::string from = "\"run/pretrain.safetensors\"";
    return text.replace(text.find(from), from.size(), checkpoint);
  };
  folder.write("own.toml", one_stage);
  folder.write("torch.toml", with("\"torch.safetensors\""));
  const std::string rank = " --stage pretrain --queries test --curvature hessian --solver direct --damping 1e-3 --out ";
  REQUIRE(folder.run("score own.toml" + rank + "own --quiet").status == 0);
  const auto result = folder.run("score torch.toml" + rank + "torch");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(result.err.find("matched in order and by shape: module.0 is body.0, module.2 is head") != std::string::npos);
  CHECK(result.err.find("this is mlp:widths=6,activation=tanh") != std::string::npos);
  CHECK(at::equal(read_scores(folder / "own").stages[0].scores, read_scores(folder / "torch").stages[0].scores));
  CHECK(folder.json("torch/run.json")["notes"].dump().find("module.0 is body.0") != std::string::npos);
  write("words.safetensors", {{"hidden.bias", "body.0.bias"},
                              {"hidden.weight", "body.0.weight"},
                              {"out.bias", "head.bias"},
                              {"out.weight", "head.weight"}});
  folder.write("words.toml", with("\"words.safetensors\"\nrename = { \"hidden\" = \"body.0\", \"out\" = \"head\" }"));
  CHECK(folder.run("score words.toml" + rank + "words --quiet").status == 0);
  CHECK(at::equal(read_scores(folder / "own").stages[0].scores, read_scores(folder / "words").stages[0].scores));
  folder.write("words.toml", with("\"words.safetensors\"\nrename = { \"hiden\" = \"body.0\" }"));
  check_fails(folder.run("score words.toml" + rank + "bad --quiet"), 1, "rename: unknown tensor \"hiden\"");
}

TEST_CASE("labels by name meet the outputs of a checkpoint's head by id2label") {
  const ToolFolder folder;
  write_model(folder, "gpt2-classification");
  auto config = folder.json("base/config.json");
  config["id2label"] = {{"0", "positive"}, {"1", "negative"}, {"2", "neither"}};  // not in the order of the alphabet
  config.erase("label2id");
  folder.write("base/config.json", config.dump());
  auto text = folder.read("text.toml");
  text.replace(text.find("next-token"), 10, "cross-entropy");
  folder.write("words.toml", text);
  auto numbers = folder.read("texts.tsv");
  for (const auto& [word, number] : {std::pair("positive", "0"), std::pair("negative", "1")}) {
    for (auto at = numbers.find(word); at != numbers.npos; at = numbers.find(word)) {
      numbers.replace(at, 8, number);
    }
  }
  folder.write("numbers.tsv", numbers);
  for (auto at = text.find("texts.tsv"); at != text.npos; at = text.find("texts.tsv")) {
    text.replace(at, 9, "numbers.tsv");
  }
  folder.write("numbers.toml", text);
  const auto losses = [&](const std::string& name) {
    const auto result =
        folder.run("rank " + name + ".toml --stage first --queries test --method grad-dot --quiet --out " + name);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    std::vector<double> out;
    const auto lines = folder.read(name + "/ranking.jsonl");
    for (std::size_t at = 0; at < lines.size(); at = lines.find('\n', at) + 1) {
      out.push_back(nlohmann::json::parse(lines.substr(at, lines.find('\n', at) - at))["measurement"]);
    }
    return out;
  };
  const auto by_word = losses("words"), by_number = losses("numbers");
  REQUIRE(by_word.size() == 4);
  CHECK(by_word == by_number);
  CHECK(by_word[0] != doctest::Approx(by_word[1]));
  folder.write("texts.tsv", "label\ttext\nham\ta good film\nspam\ta bad film\n");
  check_fails(folder.run("rank words.toml --stage first --queries test --quiet"), 1, "positive, negative, neither");
  text = folder.read("words.toml");  // only a start: its names do not bind other labels, and that is said
  const std::string from = "checkpoint = \"base\"\n[queries";
  text.replace(text.find(from), from.size(), "checkpoint = \"run/other\"\n[queries");
  folder.write("other.toml", text);
  const auto result = folder.run("train other.toml");
  CAPTURE(result.err);
  CHECK(result.status == 0);
  CHECK(
      result.err.find("the head in base is one of positive, negative, neither, not of ham, spam: training starts from "
                      "a new one") != std::string::npos);
}

TEST_CASE("inspect says what a model's folder and a tokenizer are") {
  const ToolFolder folder;
  write_model(folder, "gpt2-classification");
  auto config = folder.json("base/config.json");
  config["id2label"] = {{"0", "positive"}, {"1", "negative"}, {"2", "neither"}};
  config.erase("label2id");
  folder.write("base/config.json", config.dump());
  auto result = folder.run("inspect base --json");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const auto out = nlohmann::json::parse(result.out);
  CHECK(out["kind"] == "model");
  CHECK(out["family"] == "gpt2");
  CHECK(out["layers"] == 2);
  CHECK(out["classes"]["0"] == "positive");
  CHECK(out["weights"]["dtype"] == "Float");
  CHECK(out["tokenizer"]["tokens"] == 8);
  CHECK(folder.run("inspect base").out.find("family           gpt2") != std::string::npos);
  result = folder.run("inspect base/tokenizer.json --json");
  CHECK(nlohmann::json::parse(result.out)["model"] == "WordLevel");
  result = folder.run("inspect texts.tsv --json");
  const auto table = nlohmann::json::parse(result.out);
  CHECK(table["rows looked at"] == 4);
  CHECK(table["columns"]["label"] == "words, 2 different: 2 × negative, 2 × positive");
  CHECK(table["columns"]["text"].get<std::string>().starts_with("words, 4 different"));
  check_fails(folder.run("inspect absent.csv"), 1, "absent.csv: no such file or folder");
  fs::create_directories(folder / "nothing");
  check_fails(folder.run("inspect nothing"), 1, "expected a folder with a config.json (a model) or a run.json");
}

TEST_SUITE_END();
