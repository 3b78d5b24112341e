#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

namespace whence::cli {

/// What a file of data holds, before any pipeline names it: columns and what is in them, images, lines.
nlohmann::ordered_json inspect_source(const std::filesystem::path& path);

}  // namespace whence::cli
