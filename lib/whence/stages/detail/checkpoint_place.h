#pragma once
#include <filesystem>
#include <string>

namespace whence::detail {

/// Throws InvalidArgument unless training may write a stage's `checkpoint` (and its .unfinished and snapshots beside
/// it): never into the folder of the model that it starts from, nor over anything that whence did not write.
void check_checkpoint_place(const std::string& stage, const std::filesystem::path& checkpoint,
                            const std::filesystem::path& model_folder);

}  // namespace whence::detail
