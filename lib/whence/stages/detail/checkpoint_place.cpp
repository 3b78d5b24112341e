#include "whence/stages/detail/checkpoint_place.h"

#include <fmt/format.h>

#include "whence/core/error.h"
#include "whence/models/checkpoint.h"

namespace whence::detail {
namespace fs = std::filesystem;

void check_checkpoint_place(const std::string& stage, const fs::path& checkpoint, const fs::path& model_folder) {
  const auto resolved = fs::weakly_canonical(checkpoint);
  if (!model_folder.empty()) {
    const auto folder = fs::weakly_canonical(model_folder);
    if (resolved == folder || resolved.parent_path() == folder) {
      throw InvalidArgument(
          fmt::format("stage {}: checkpoint = {} is in the model's own folder, where nothing is written: choose "
                      "another, as checkpoint = \"run/{}\"",
                      stage, checkpoint.string(), stage));
    }
  }
  const bool there = fs::is_directory(checkpoint) ? !fs::is_empty(checkpoint) : fs::exists(checkpoint);
  if (there && !is_whence_checkpoint(checkpoint)) {
    throw InvalidArgument(
        fmt::format("stage {}: checkpoint = {} is there and was not written by whence, so it is left as it is: move it "
                    "away, or choose another, as checkpoint = \"run/{}\"",
                    stage, checkpoint.string(), stage));
  }
}

}  // namespace whence::detail
