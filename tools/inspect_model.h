#pragma once
#include <filesystem>

#include "json.h"

namespace whence::cli {

/// What a model's folder in Hugging Face layout holds: the model, its weights, its classes, its tokenizer.
Json inspect_model(const std::filesystem::path& folder);

/// What a file of torch.export.save's holds: what forward takes and gives, the parameters, how much of them layers own.
Json inspect_exported(const std::filesystem::path& file);

/// What a tokenizer.json, with the settings beside it, makes of texts.
Json inspect_tokenizer(const std::filesystem::path& path);

}  // namespace whence::cli
