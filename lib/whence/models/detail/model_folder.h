#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace whence::detail {

/// The files that hold a folder's weights: model.safetensors, or the shards that its index names; none where it holds
/// no weights of any kind. Throws DataError naming a shard that is missing, or the weights that are there in a format
/// that is not read, with what converts them: a training that took them for absent would start at random.
std::vector<std::filesystem::path> weight_files(const std::filesystem::path& directory);

/// Whether an adapter lies in the folder, and whether nothing else of a model does.
bool has_adapter(const std::filesystem::path& directory);
bool is_adapter(const std::filesystem::path& directory);
/// Throws DataError where one does: the weights there are not what was trained. `otherwise` is what else can be done.
void check_no_adapter(const std::filesystem::path& directory, const std::string& otherwise = {});

}  // namespace whence::detail
