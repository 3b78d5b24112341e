#include "faults/scene.h"

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

namespace whence::faults {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kPipeline = R"(seed = 3
[model]
spec = "mlp:widths=3,activation=tanh"
[[stage]]
name = "pretrain"
train = { format = "csv", file = "pretrain.csv" }
weight-decay = 1e-2
optimizer = "adam:epochs=6,batch-size=8,learning-rate=0.05"
snapshots = 3
checkpoint = "run/pretrain.safetensors"
[[stage]]
name = "finetune"
train = { format = "csv", file = "finetune.csv" }
tuning = "full:proximity=0.1"
weight-decay = 1e-2
optimizer = "adam:epochs=4,batch-size=8,learning-rate=0.05"
snapshots = 2
checkpoint = "run/finetune.safetensors"
[queries.test]
data = { format = "csv", file = "queries.csv" }
)";

const std::vector<std::string> kWords{"<unk>", "Input", "Output", ":",      "good", "dull", "film",
                                      "sad",   "happy", "end",    "bright", "grey", "yes",  "no"};

constexpr int kWidth = 8, kInner = 12, kLayers = 2, kContext = 128;

Json task(int first) {
  Json demonstrations = Json::array();
  for (int i = first; i < first + 6; ++i) {
    const auto& word = kWords[static_cast<std::size_t>(4 + i % 8)];
    demonstrations.push_back({{"input", word + " film"}, {"output", i % 2 == 0 ? "yes" : "no"}});
  }
  return {{"demonstrations", demonstrations},
          {"queries", {{{"input", "good end"}, {"output", "yes"}}, {{"input", "sad film"}, {"output", "no"}}}}};
}

void add_model(Tree& tree) {
  Json vocabulary;
  for (std::size_t i = 0; i < kWords.size(); ++i) {
    vocabulary[kWords[i]] = i;
  }
  tree["model/tokenizer.json"] = Json{{"added_tokens", Json::array()},
                                      {"normalizer", nullptr},
                                      {"pre_tokenizer", {{"type", "Whitespace"}}},
                                      {"post_processor", nullptr},
                                      {"decoder", nullptr},
                                      {"model", {{"type", "WordLevel"}, {"vocab", vocabulary}, {"unk_token", "<unk>"}}}}
                                     .dump();
  const int words = static_cast<int>(kWords.size());
  tree["model/config.json"] = Json{{"model_type", "llama"},        {"vocab_size", words},
                                   {"hidden_size", kWidth},        {"intermediate_size", kInner},
                                   {"num_hidden_layers", kLayers}, {"num_attention_heads", 2},
                                   {"rms_norm_eps", 1e-5},         {"hidden_act", "silu"},
                                   {"tie_word_embeddings", false}, {"max_position_embeddings", kContext}}
                                  .dump();
  std::map<std::string, std::vector<int>> shapes{{"model.embed_tokens.weight", {words, kWidth}},
                                                 {"model.norm.weight", {kWidth}},
                                                 {"lm_head.weight", {words, kWidth}}};
  for (int layer = 0; layer < kLayers; ++layer) {
    const auto block = "model.layers." + std::to_string(layer) + ".";
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
      shapes[block + "self_attn." + name + ".weight"] = {kWidth, kWidth};
    }
    shapes[block + "mlp.gate_proj.weight"] = shapes[block + "mlp.up_proj.weight"] = {kInner, kWidth};
    shapes[block + "mlp.down_proj.weight"] = {kWidth, kInner};
    shapes[block + "input_layernorm.weight"] = shapes[block + "post_attention_layernorm.weight"] = {kWidth};
  }
  tree["model/model.safetensors"] = safetensors(shapes);
}

}  // namespace

std::string table(int rows, unsigned seed) {
  std::mt19937 random(seed);
  const auto draw = [&] { return static_cast<double>(random() % 4000) / 1000 - 2; };
  std::string out = "a,b,label\n";
  for (int i = 0; i < rows; ++i) {
    const double a = draw(), b = draw();
    std::array<char, 64> line{};
    std::snprintf(line.data(), line.size(), "%.3f,%.3f,%s\n", a, b, a + b + draw() / 4 > 0 ? "yes" : "no");
    out += line.data();
  }
  return out;
}

std::string safetensors(const std::map<std::string, std::vector<int>>& shapes) {
  std::mt19937 random(5);
  Json header;
  std::string data;
  for (const auto& [name, shape] : shapes) {
    const auto begin = data.size();
    std::size_t entries = 1;
    for (const int size : shape) {
      entries *= static_cast<std::size_t>(size);
    }
    for (std::size_t i = 0; i < entries; ++i) {
      const float value = static_cast<float>(random() % 2000) / 1000 - 1;
      data.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
  }
  auto text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + text + data;
}

Tree scene() {
  Tree out{{"p.toml", kPipeline},
           {"pretrain.csv", table(40, 1)},
           {"finetune.csv", table(24, 2)},
           {"queries.csv", table(5, 3)},
           {"task.json", task(0).dump()},
           {"tasks", "/"},
           {"tasks/a.json", task(0).dump()},
           {"tasks/b.json", task(1).dump()}};
  add_model(out);
  return out;
}

}  // namespace whence::faults
