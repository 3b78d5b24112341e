#include "whence/models/text_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/core/random.h"
#include "whence/models/checkpoint.h"
#include "whence/models/model.h"

namespace whence {

TextModel read_text_model(const std::filesystem::path& folder, at::ScalarType dtype, at::Device device,
                          std::int64_t classes) {
  const std::shared_ptr<const Model> model = open_model_folder(folder);
  if (checkpoint_files(folder).empty()) {
    throw DataError(fmt::format("{}: no weights, expected model.safetensors or its index", folder.string()));
  }
  Random random(0);
  auto theta = model->initial({}, classes, random).to(dtype, device);
  return {std::dynamic_pointer_cast<const LanguageModel>(model), std::move(theta), Tokenizer(folder)};
}

std::vector<std::filesystem::path> text_model_files(const std::filesystem::path& folder,
                                                    const std::filesystem::path& tokenizer_json) {
  auto out = checkpoint_files(folder);
  auto others = tokenizer_files(tokenizer_json);
  others.insert(others.begin(), {folder / "config.json", folder / "model.safetensors"});
  for (auto& file : others) {
    if (std::find(out.begin(), out.end(), file) == out.end()) {
      out.push_back(std::move(file));
    }
  }
  return out;
}

}  // namespace whence
