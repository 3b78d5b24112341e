#pragma once
#include <filesystem>

namespace whence {

/// Where interrupted training waits that is to end in `checkpoint`: CHECKPOINT.unfinished. Pipeline::train goes on from
/// there; without the file it begins anew.
std::filesystem::path unfinished_path(const std::filesystem::path& checkpoint);

}  // namespace whence
