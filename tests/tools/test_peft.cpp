// Adapters of PEFT's through the binary: as a stage's checkpoint, written by training, merged.
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

constexpr const char* kBaseStage = R"([[stage]]
name = "first"
train = { format = "tsv", file = "texts.tsv" }
loss = "next-token"
checkpoint = "base"
)";

/// A folder `base` that holds a stored checkpoint, its tokenizer of a few words, and a pipeline that tunes it, with a
/// stage for the base where `before` is one.
void write_pipeline(const ToolFolder& folder, const std::string& tuning, const std::string& checkpoint,
                    const std::string& before = kBaseStage) {
  write_base_model(folder, "gpt2");
  folder.write("texts.tsv", "text\na good film\na bad film\na happy film\na sad dull film\n");
  folder.write("text.toml",
               fmt::format(R"([model]
checkpoint = "base"
{}[[stage]]
name = "tuned"
train = {{ format = "tsv", file = "texts.tsv" }}
loss = "next-token"
weight-decay = 1e-2
{}optimizer = "adamw:learning-rate=1e-2,epochs=2,batch-size=4"
checkpoint = "{}"
[queries.test]
data = {{ format = "tsv", file = "texts.tsv", limit = 2 }}
)",
                           before, tuning.empty() ? "" : fmt::format("tuning = \"{}\"\n", tuning), checkpoint));
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("a stage whose checkpoint is a folder is written and read as an adapter, and merged") {
  const ToolFolder folder;
  write_pipeline(folder, "lora:rank=2,alpha=4,targets=c_attn", "run/tuned");
  const auto trained = folder.run("train text.toml");
  CAPTURE(trained.err);
  REQUIRE(trained.status == 0);
  const auto config = folder.json("run/tuned/adapter_config.json");
  CHECK(config["peft_type"] == "LORA");
  CHECK(config["r"] == 2);
  CHECK(config["fan_in_fan_out"] == true);
  CHECK(config["base_model_name_or_path"].get<std::string>().ends_with("base"));
  const auto tensors = read_safetensors(folder / "run/tuned/adapter_model.safetensors");
  CHECK(tensors.size() == 4);
  CHECK(folder.run("train text.toml").out.find("has a checkpoint") != std::string::npos);
  CHECK(folder.run("inspect run/tuned").out.find("lora:rank=2,alpha=4") != std::string::npos);
  auto edited = config;
  edited["lora_alpha"] = 5;
  folder.write("run/tuned/adapter_config.json", edited.dump());
  check_fails(folder.run("merge text.toml --stage tuned --out merged"), 1,
              "but run/tuned/adapter_config.json says lora_alpha = 5, expected 4: leave tuning out");
  folder.write("run/tuned/adapter_config.json", config.dump());

  write_pipeline(folder, "", "run/tuned");  // its settings say what it is
  CHECK(folder.run("inspect text.toml").out.find("lora:rank=2,alpha=4") != std::string::npos);
  REQUIRE(folder.run("merge text.toml --stage tuned --out merged").status == 0);
  const auto base = read_safetensors(folder / "base/model.safetensors");
  const auto merged = read_safetensors(folder / "merged/model.safetensors");
  for (const int block : {0, 1}) {
    const auto module = fmt::format("transformer.h.{}.attn.c_attn", block);
    const auto part = [&](const char* name) { return tensors.at(fmt::format("base_model.model.{}.{}", module, name)); };
    const auto change = at::mm(part("lora_B.weight"), part("lora_A.weight")).t() * 2;
    CHECK(change.abs().max().item<double>() > 0);
    const auto weight = module + ".weight";
    CHECK(test::relative_error(merged.at(weight), base.at(weight) + change) < 1e-6);
  }
  CHECK(at::equal(merged.at("transformer.wpe.weight"), base.at("transformer.wpe.weight")));
  CHECK(folder.run("inspect merged").status == 0);
  check_fails(folder.run("merge text.toml --stage tuned --out run/tuned"), 1, "tuned is the checkpoint of stage tuned");
  check_fails(folder.run("merge text.toml --stage tuned --out base"), 1,
              "a model lies there (config.json), in whose folder nothing is written");
  check_fails(folder.run("merge text.toml --stage tuned"), 2, "--out is missing");
}

TEST_CASE("an adapter that whence trained is as its tuning says, however that is written") {
  for (const char* more : {"alphas=c_attn:8", "ranks=c_attn:1", "dora=true"}) {
    CAPTURE(more);
    const ToolFolder folder;
    write_pipeline(folder, fmt::format("lora:rank=2,alpha=4,targets=c_attn,{}", more), "run/tuned");
    const auto trained = folder.run("train text.toml --quiet");
    CAPTURE(trained.err);
    REQUIRE(trained.status == 0);
    const auto merged = folder.run("merge text.toml --stage tuned --out merged");
    CAPTURE(merged.err);
    CHECK(merged.status == 0);
  }
}

TEST_CASE("a tuning that is written must be that of the adapter from elsewhere") {
  const ToolFolder folder;
  write_pipeline(folder, "lora:rank=2,alpha=16", "adapter");
  fs::copy(fs::path(WHENCE_TESTS) / "tuning/peft/lora-gpt2", folder / "adapter");
  check_fails(folder.run("merge text.toml --stage tuned --out merged"), 1,
              "stage tuned: tuning = \"lora:rank=2,alpha=16\", but adapter holds alpha = 3: leave tuning out");
  write_pipeline(folder, "", "adapter");
  CHECK(folder.run("merge text.toml --stage tuned --out merged").status == 0);
  check_fails(folder.run("train text.toml --stage tuned --force"), 1, "was not written by whence");
}

TEST_CASE("a tuning of a model's folder needs no stage for the base, and is scored as with one") {
  const ToolFolder folder;
  const auto score = [&](const std::string& which, const std::string& out) {
    const auto result = folder.run(fmt::format(
        "score text.toml --stage {} --queries test --curvature gauss-newton --relative-damping 0.1 --out {}", which,
        out));
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    return result.err;
  };
  write_pipeline(folder, "lora:rank=2,alpha=4,targets=c_attn", "with");
  REQUIRE(folder.run("train text.toml --quiet").status == 0);
  CHECK(score("tuned", "scores-with").find("nothing is scored") == std::string::npos);
  write_pipeline(folder, "lora:rank=2,alpha=4,targets=c_attn", "alone", "");
  const auto trained = folder.run("train text.toml --quiet");
  CAPTURE(trained.err);
  REQUIRE(trained.status == 0);
  const auto tensors = read_safetensors(folder / "alone/adapter_model.safetensors");
  const auto others = read_safetensors(folder / "with/adapter_model.safetensors");
  for (const auto& name : others.names()) {
    CHECK(at::equal(tensors.at(name), others.at(name)));
  }
  CHECK(folder.json("alone/adapter_config.json") == folder.json("with/adapter_config.json"));
  CHECK(score("all", "scores-alone")
            .find("stage tuned tunes the model as its folder has it: nothing is scored for what that was trained on") !=
        std::string::npos);
  const auto alone = read_scores(folder / "scores-alone"), with = read_scores(folder / "scores-with");
  REQUIRE(alone.stages.size() == 1);
  CHECK(at::equal(alone.stages[0].scores, with.stages.at(0).scores));
  CHECK(with.stages[0].scores.abs().max().item<double>() > 0);
  CHECK(folder.run("evaluate text.toml --stage tuned --scores scores-alone --examples 2").status == 0);

  write_pipeline(folder, "", "alone", "");  // the folder says what it is
  REQUIRE(folder.run("merge text.toml --stage tuned --out merged").status == 0);
  CHECK(!at::equal(read_safetensors(folder / "merged/model.safetensors").at("transformer.h.0.attn.c_attn.weight"),
                   read_safetensors(folder / "base/model.safetensors").at("transformer.h.0.attn.c_attn.weight")));
  fs::remove_all(folder / "alone");
  write_pipeline(folder, "lora:rank=2", "alone", "");
  fs::remove(folder / "base/model.safetensors");  // a body drawn at random is none to tune
  check_fails(test::less_warnings(folder.run("train text.toml --quiet")), 1, "needs a stage before it");
}

TEST_CASE("what PEFT has no type for is said before training") {
  const ToolFolder folder;
  write_pipeline(folder, "hut:rank=2", "run/tuned");
  check_fails(test::less_warnings(folder.run("train text.toml --quiet")), 1,
              "checkpoint = run/tuned is a folder, and PEFT has none that holds tuning = \"hut:rank=2\": write "
              "checkpoint = \"run/tuned.safetensors\"");
  CHECK(!fs::exists(folder / "run/tuned"));
}

TEST_CASE("a prefix is merged beside its model") {
  const ToolFolder folder;
  write_pipeline(folder, "prefix:length=2", "run/tuned");
  REQUIRE(folder.run("train text.toml").status == 0);
  CHECK(folder.json("run/tuned/adapter_config.json")["peft_type"] == "PREFIX_TUNING");
  REQUIRE(folder.run("merge text.toml --stage tuned --out merged").status == 0);
  const auto trained = read_safetensors(folder / "run/tuned/adapter_model.safetensors");
  const auto beside = read_safetensors(folder / "merged-prefix/adapter_model.safetensors");
  CHECK(at::equal(beside.at("prompt_embeddings"), trained.at("prompt_embeddings")));
  const auto base = read_safetensors(folder / "base/model.safetensors");
  CHECK(at::equal(read_safetensors(folder / "merged/model.safetensors").at("transformer.h.0.attn.c_attn.weight"),
                  base.at("transformer.h.0.attn.c_attn.weight")));
}

TEST_CASE("a built-in model is merged into a file that serves as a checkpoint") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --quiet").status == 0);
  REQUIRE(folder.run("merge pipeline.toml --stage finetune --out plain/whole.safetensors").status == 0);
  const auto trained = read_safetensors(folder / "run/finetune.safetensors");
  const auto whole = read_safetensors(folder / "plain/whole.safetensors");
  CHECK(whole.size() == trained.size());
  for (const auto& name : trained.names()) {
    CHECK(at::equal(whole.at(name), trained.at(name)));
  }
  check_fails(folder.run("merge pipeline.toml --stage finetune --out plain"), 1, "expected a .safetensors file");
  check_fails(folder.run("merge pipeline.toml --out plain/other.safetensors"), 2, "--stage is missing");
  folder.write("one.toml",
               "[model]\nspec = \"linear\"\n[[stage]]\nname = \"fit\"\ncheckpoint = \"one.safetensors\"\n"
               "train = { format = \"safetensors\", file = \"pretrain.safetensors\", limit = 20 }\n");
  REQUIRE(folder.run("train one.toml --quiet").status == 0);
  CHECK(folder.run("merge one.toml --out plain/one.safetensors").status == 0);  // after the only stage
  check_fails(folder.run("merge pipeline.toml --stage finetune --out queries.safetensors"), 1,
              "it was not written by whence");
}

TEST_SUITE_END();
