// What lies in a model's folder beside what is read: weights of other kinds, adapters, keys of config.json.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "models/language.h"
#include "support/scratch.h"
#include "whence/core/described.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/models/checkpoint.h"
#include "whence/models/detail/config_keys.h"

using namespace whence;
using nlohmann::json;
using test::checkpoint;
using test::message_of;
using test::Scratch;
namespace fs = std::filesystem;

namespace {

json config_of(const std::string& name) { return json::parse(read_text(checkpoint(name) / "config.json")); }

/// A folder with the config.json of a stored checkpoint, changed.
class Folder : public Scratch {
 public:
  explicit Folder(const std::string& name) : name_(name), config(config_of(name)) { write(); }
  void write() const { put("config.json", config.dump()); }
  void add_weights() const {
    fs::copy_file(checkpoint(name_) / "model.safetensors", *this / "model.safetensors",
                  fs::copy_options::overwrite_existing);
  }
  std::unique_ptr<Model> open(bool ignore_adapter = false) const {
    write();
    return open_model_folder(folder(), ignore_adapter);
  }
  std::vector<std::string> notes() const {
    const auto model = open();
    return dynamic_cast<const LanguageModel&>(*model).notes();
  }
  std::string refusal() const {
    return message_of<DataError>([&] { open(); });
  }

 private:
  std::string name_;

 public:
  json config;
};

bool holds(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

at::Tensor logits(const Model& model, const ParameterSet& theta, const Dataset& data) {
  return model.output(theta, data.batch(0, data.size()));
}

}  // namespace

TEST_SUITE_BEGIN("models");

TEST_CASE("a model of a folder is what its config.json says, wherever the folder lies") {
  Folder here("gpt2"), there("gpt2");
  const auto said = identity(*here.open());
  CHECK(identity(*there.open()) == said);
  CHECK(identity(*create<Model>("transformer:directory=" + here.folder().string())) == said);
  there.config["layer_norm_epsilon"] = 1e-3;
  CHECK(identity(*there.open()) != said);
}

TEST_CASE("weights of another kind are named with what converts them, and nothing starts at random") {
  const char* const kElsewhere = "where it was trained, save_pretrained";
  const char* const kIndexAlone = "an index names the files of a model, which are missing";
  const char* const kUnfinished = "a download that has not ended: download it again";
  for (const auto& [file, part] :
       {std::pair("pytorch_model.bin", "t.AutoModelForCausalLM.from_pretrained(d).save_pretrained(o)"),
        std::pair("pytorch_model-00001-of-00002.bin", "t.AutoModelForCausalLM.from_pretrained(d)"),
        std::pair("tf_model.h5", "from_tf=True"),
        std::pair("flax_model.msgpack", "from_flax=True"),
        std::pair("model-Q4.gguf", "gguf_file='model-Q4.gguf'"),
        std::pair("model.onnx", kElsewhere),
        std::pair("bert_model.ckpt.data-00000-of-00001", "from_tf=True"),
        std::pair("bert_model.ckpt.index", "from_tf=True"),
        std::pair("last.ckpt", kElsewhere),
        std::pair("consolidated.00.pth", kElsewhere),
        std::pair("weights.safetensors", "rename it"),
        std::pair("MODEL.SafeTensors", "rename it"),
        std::pair("rust_model.ot", kElsewhere),
        std::pair("best.th", kElsewhere),
        std::pair("model.npz", kElsewhere),
        std::pair("weights.npy", kElsewhere),
        std::pair("saved_model.pb", kElsewhere),
        std::pair("pytorch_model.bin.index.json", kIndexAlone),
        std::pair("tf_model.h5.index.json", kIndexAlone),
        std::pair("model.safetensors.gz", "unpack it"),
        std::pair("model.pt.zip", "unpack it"),
        std::pair("model.safetensors.incomplete", kUnfinished),
        std::pair("pytorch_model.bin.part", kUnfinished),
        std::pair("model-00001-of-00002.safetensors", "model.safetensors.index.json, is missing: download it")}) {
    CAPTURE(file);
    const Folder folder("gpt2");
    folder.put(file, "x");
    const auto refusal = folder.refusal();
    CAPTURE(refusal);
    CHECK(holds(refusal, fmt::format("the weights are in {}, and model.safetensors is not there", file)));
    CHECK(holds(refusal, part));
    CHECK(message_of<DataError>([&] { checkpoint_files(folder.folder()); }) == refusal);
    folder.add_weights();  // beside the others they are read, as by transformers
    CHECK(folder.refusal().empty());
  }
  const Folder alone("gpt2");
  alone.put("model.safetensors.index.json", R"({"weight_map": {"wte.weight": "model-00001-of-00002.safetensors"}})");
  CHECK(holds(alone.refusal(), "the shard model-00001-of-00002.safetensors, which holds \"wte.weight\", is missing"));
  const Folder linked("gpt2");  // as a cache has it whose blobs are gone
  fs::create_symlink("../blobs/4f2a", linked / "model.safetensors");
  CHECK(holds(linked.refusal(), "model.safetensors: a link to ../blobs/4f2a, which is not there: download it again"));
  const Folder large("gpt2");  // a name that says nothing, and too much for a note
  large.put("model.bf16", std::string(1 << 20, 'x'));
  CHECK(holds(large.refusal(), "the weights are in model.bf16"));
  const Folder below("gpt2");
  fs::create_directories(below / "original");
  below.put("original/consolidated.00.pth", "x");
  CHECK(holds(below.refusal(), "the weights are in original/consolidated.00.pth"));
  const Folder none("gpt2");  // what trainers leave beside is no model
  for (const char* file : {"training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "tokenizer.bin",
                           "notes.xyz", "run.log.gz"}) {
    none.put(file, "x");
  }
  none.put("tokenizer.model", std::string(1 << 20, 'x'));
  none.put("train.jsonl.gz", std::string(1 << 20, 'x'));
  CHECK(none.refusal().empty());
  CHECK(checkpoint_files(none.folder()).empty());
}

TEST_CASE("an adapter beside the weights is said and refused, unless it is to be ignored") {
  const Folder folder("gpt2");
  folder.add_weights();
  folder.put("adapter_config.json",
             R"({"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "gpt2"})");
  folder.put("adapter_model.safetensors", "x");
  CHECK(holds(folder.refusal(), "an adapter (LORA) lies there (adapter_model.*, of gpt2)"));
  CHECK(holds(folder.refusal(), "AutoPeftModelForCausalLM"));
  CHECK_FALSE(holds(folder.refusal(), "[model]"));  // which only a pipeline has
  const auto model = folder.open(true);
  CHECK(holds(dynamic_cast<const LanguageModel&>(*model).notes().at(0), "the adapter there is ignored"));
  fs::remove(folder / "model.safetensors");  // alone it is no model either
  CHECK(holds(message_of<DataError>([&] { checkpoint_files(folder.folder()); }), "an adapter (LORA)"));
}

TEST_CASE("a folder that whence did not write is never written to") {
  const test::LanguageCase c("gpt2");
  const Folder folder("gpt2");
  folder.put("pytorch_model.bin", "x");
  const auto before = test::bytes_of(folder / "config.json");
  CHECK_MESSAGE_HOLDS(InvalidArgument, "holds files that whence did not write",
                      c.language->write_directory(folder.folder(), c.theta, {}));
  CHECK(test::bytes_of(folder / "config.json") == before);
  CHECK(!fs::exists(folder / "model.safetensors"));
  CHECK(!fs::exists(folder.folder().string() + ".part"));
  const Scratch own;
  c.language->write_directory(own / "run", c.theta, {});
  own.put("run/notes.txt", "mine");
  c.language->write_directory(own / "run", c.theta, {});  // its own again, and what lies beside stays
  CHECK(test::bytes_of(own / "run/notes.txt") == "mine");
  CHECK(is_whence_checkpoint(own / "run"));
  CHECK(!is_whence_checkpoint(checkpoint("gpt2")));
}

TEST_CASE("pointers, pages, pickles and cut files in place of weights are called what they are") {
  const Folder folder("gpt2");
  const auto refusal = [&](const std::string& bytes) {
    folder.put("model.safetensors", bytes);
    Random random(1);
    return message_of<DataError>([&] { folder.open()->initial({}, 0, random); });
  };
  CHECK(holds(refusal("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548105171\n"),
              "a Git LFS pointer to 548105171 bytes, not the file itself: run `git lfs pull`"));
  CHECK(holds(refusal("<!DOCTYPE html><html>404</html>"), "a page of HTML or XML: a download that failed"));
  CHECK(holds(refusal("PK\x03\x04 and more of a zip"), "a zip archive, as PyTorch's .pt, .pth and .bin are"));
  CHECK(holds(refusal("GGUF and more than eight bytes"), "a GGUF file"));
  const auto whole = test::bytes_of(checkpoint("gpt2") / "model.safetensors");
  CHECK(holds(refusal(whole.substr(0, whole.size() / 2)), "the file is cut short; copy or download it again"));
  CHECK(holds(refusal(whole.substr(0, 100)), "the file is cut short; copy or download it again"));
}

TEST_CASE("keys of config.json that ask for what is not computed are refused by name") {
  for (const auto& [name, key, value] :
       {std::tuple("llama", "quantization_config", R"({"quant_method": "gptq", "bits": 4})"),
        std::tuple("llama", "partial_rotary_factor", "0.5"), std::tuple("gpt2", "add_cross_attention", "true"),
        std::tuple("bert-base", "is_decoder", "true"),
        std::tuple("bert-base", "position_embedding_type", R"("relative_key")"),
        std::tuple("bert-base", "pruned_heads", R"({"0": [1]})"), std::tuple("llama", "is_encoder_decoder", "true"),
        std::tuple("llama", "rope_scaling", R"({"rope_type": "longrope"})"),
        std::tuple("qwen2", "layer_types", R"(["full_attention"])"), std::tuple("gpt2", "hidden_size", "17"),
        std::tuple("llama", "hidden_act", R"("mish")")}) {
    CAPTURE(key);
    Folder folder(name);
    folder.config[key] = json::parse(value);
    const auto refusal = folder.refusal();
    CAPTURE(refusal);
    CHECK(holds(refusal, key));
    CHECK(holds(refusal, "expected"));
    CHECK(holds(refusal, "config.json"));
  }
  Folder folder("llama");
  folder.config["quantization_config"] = nullptr;
  folder.config["is_decoder"] = true;  // what it is
  folder.config["new_kind_of_norm"] = nullptr;
  CHECK(folder.notes().empty());
  folder.config["new_kind_of_norm"] = 0.5;
  folder.config["auto_map"] = {{"AutoModel", "modeling.Own"}};
  const auto notes = folder.notes();
  REQUIRE(notes.size() == 2);
  CHECK(holds(notes[0], "neither whence nor transformers' own llama reads new_kind_of_norm = 0.5"));
  CHECK(holds(notes[1], "auto_map names code of the folder's own, which is not run"));
}

TEST_CASE("keys of config.json that mean what their absence means, or less than the weights: the same outputs") {
  for (const auto& [name, key, value, note] :
       {std::tuple("llama", "num_key_value_heads", json(nullptr), ""),
        std::tuple("gpt2-untied", "tie_word_embeddings", json(true),
                   "config.json ties the head to the embedding, but lm_head.weight there is another")}) {
    CAPTURE(key);
    Folder folder(name);
    folder.add_weights();
    folder.config[key] = value;
    const test::LanguageCase c(name);
    Random random(1);
    const auto model = folder.open();
    const auto theta = model->initial({}, 0, random).to(at::kDouble, at::kCPU);
    CHECK(test::relative_error(logits(*model, theta, c.data), logits(*c.model, c.theta, c.data)) == 0);
    const auto notes = folder.notes();
    CHECK(notes.size() == (*note == '\0' ? 0 : 1));
    CHECK((notes.empty() || holds(notes[0], note)));
  }
}

TEST_CASE("a stage's folder of another model is refused by what differs") {
  const test::LanguageCase c("llama");
  Folder other("llama");
  other.add_weights();
  other.config["rms_norm_eps"] = 1e-3;
  other.write();
  CHECK_MESSAGE_HOLDS(DataError, "the norms' epsilon: 0.001, expected 1e-06",
                      c.language->read_directory(other.folder(), c.theta));
}

TEST_CASE("what keys decide is what transformers computes with them: make_settings.py") {
  const auto rows = json::parse(read_text(fs::path(WHENCE_TESTS) / "models/settings.json"));
  CHECK(rows.size() > 30);
  for (const auto& row : rows) {
    const auto name = row[0].get<std::string>();
    CAPTURE(name);
    CAPTURE(row[1].dump());
    Folder folder(name);
    folder.add_weights();
    folder.config.update(row[1]);
    const auto model = folder.open();
    const test::LanguageCase c(name);
    Random random(1);
    const auto theta = model->initial({}, c.data.head_outputs(), random).to(at::kDouble, at::kCPU);
    for (std::int64_t text = 0; text < c.data.size(); ++text) {
      const auto batch = c.data.batch(text, text + 1);
      const auto loss = c.loss->per_example(model->output(theta, batch), batch).item<double>();
      CHECK(loss == doctest::Approx(row[2][static_cast<std::size_t>(text)].get<double>())
                        .epsilon(3e-7));  // its rotary frequencies are float32
    }
  }
}

TEST_CASE("every key that transformers' own configurations hold is known") {
  const auto stored = json::parse(read_text(fs::path(WHENCE_TESTS) / "models/config_keys.json"));
  CHECK(stored.size() == 19);
  for (const auto& [family, keys] : stored.items()) {
    CAPTURE(family);
    CHECK(keys.size() > 20);
    for (const auto& key : keys) {
      CAPTURE(key);
      CHECK(!whence::detail::use_of_key(key, family).empty());
    }
    CHECK(whence::detail::use_of_key("num_labels", family) == "obeyed");
    CHECK(whence::detail::use_of_key("new_kind_of_norm", family).empty());
  }
}

TEST_SUITE_END();
