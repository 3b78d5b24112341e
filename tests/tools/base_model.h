#pragma once
#include <filesystem>
#include <string>

#include "support/tool.h"

namespace whence::test {

/// Puts a stored checkpoint into a folder `base`, with a tokenizer of the words of a few short reviews.
inline void write_base_model(const ToolFolder& folder, const std::string& checkpoint) {
  namespace fs = std::filesystem;
  fs::create_directories(folder / "base");
  for (const char* file : {"config.json", "model.safetensors"}) {
    fs::copy_file(fs::path(WHENCE_TESTS) / "models/checkpoints" / checkpoint / file, folder / "base" / file,
                  fs::copy_options::overwrite_existing);
  }
  nlohmann::json vocabulary{{"<unk>", 0}};
  for (const char* word : {"a", "good", "bad", "film", "sad", "happy", "dull"}) {
    vocabulary[word] = vocabulary.size();
  }
  const nlohmann::json tokenizer{{"model", {{"type", "WordLevel"}, {"vocab", vocabulary}, {"unk_token", "<unk>"}}},
                                 {"pre_tokenizer", {{"type", "Whitespace"}}},
                                 {"post_processor", nullptr}};
  folder.write("base/tokenizer.json", tokenizer.dump());
}

}  // namespace whence::test
