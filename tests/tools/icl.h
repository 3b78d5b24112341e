#pragma once
#include <filesystem>

#include "support/near.h"
#include "support/tool.h"
#include "whence/models/language_model.h"
#include "whence/models/model.h"

namespace whence::test {

/// A folder with a tiny random Llama that speaks a real tokenizer's tokens, tiny/.
class IclFolder : public ToolFolder {
 public:
  IclFolder() {
    namespace fs = std::filesystem;
    using Json = nlohmann::json;
    const auto& folder = *this;
    fs::create_directories(folder / "tiny");
    fs::copy_file(fs::path(WHENCE_TESTS) / "text/tokenizers/llama3.json", folder / "tiny/tokenizer.json");
    folder.write("tiny/config.json", Json{{"model_type", "llama"},
                                          {"vocab_size", 700},
                                          {"hidden_size", 16},
                                          {"intermediate_size", 24},
                                          {"num_hidden_layers", 3},
                                          {"num_attention_heads", 2},
                                          {"rms_norm_eps", 1e-5},
                                          {"hidden_act", "silu"},
                                          {"max_position_embeddings", 300}}
                                         .dump());
    const auto model = create<Model>("transformer:directory=" + (folder / "tiny").string());
    Random random(3);
    const auto theta = model->initial({}, 0, random);
    fs::create_directories(folder / "made");
    dynamic_cast<const LanguageModel&>(*model).write_directory(folder / "made", theta.to(at::kFloat, at::kCPU), {});
    for (const auto& entry : fs::directory_iterator(folder / "made")) {
      fs::copy_file(entry.path(), folder / ("tiny/" + entry.path().filename().string()),
                    fs::copy_options::overwrite_existing);
    }
  }
};

/// Six demonstrations and three queries, of which the last has no output.
inline nlohmann::json icl_task() {
  auto demonstrations = nlohmann::json::array();
  for (const char* text : {"good film", "dull film", "bright", "sad end", "happy end", "grey"}) {
    demonstrations.push_back({{"input", text}, {"output", demonstrations.size() % 2 == 0 ? "positive" : "very bad"}});
  }
  return {{"demonstrations", demonstrations},
          {"queries",
           {{{"input", "a film"}, {"output", "positive"}},
            {{"input", "the end"}, {"output", "very bad"}},
            {{"input", "x"}}}}};
}

/// Two kinds of input, of which demonstrations 2 and 7 have the other's output.
inline nlohmann::json mislabelled() {
  auto demonstrations = nlohmann::json::array();
  for (int i = 0; i < 12; ++i) {
    const bool good = i % 2 == 0, wrong = i == 2 || i == 7;
    demonstrations.push_back(
        {{"input", fmt::format("{} {}", good ? "good film" : "sad end", i)}, {"output", good != wrong ? "yes" : "no"}});
  }
  return {{"demonstrations", demonstrations},
          {"queries", {{{"input", "good film 20"}, {"output", "yes"}}, {{"input", "sad end 21"}, {"output", "no"}}}},
          {"template", "{input}: {output}"},
          {"separator", "\n"}};
}

}  // namespace whence::test
