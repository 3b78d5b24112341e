#include "whence/models/text_model.h"

#include <fmt/format.h>

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

}  // namespace whence
