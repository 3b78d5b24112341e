#pragma once
#include <filesystem>

#include "json.h"

namespace whence::cli {

/// What a file of data holds, before any pipeline names it: columns and what is in them, images, lines.
Json inspect_source(const std::filesystem::path& path);

}  // namespace whence::cli
