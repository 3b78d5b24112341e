#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

namespace whence::cli {

/// What a model's folder in Hugging Face layout holds: the model, its weights, its classes, its tokenizer.
nlohmann::ordered_json inspect_model(const std::filesystem::path& folder);

/// What a tokenizer.json, with the settings beside it, makes of texts.
nlohmann::ordered_json inspect_tokenizer(const std::filesystem::path& path);

}  // namespace whence::cli
