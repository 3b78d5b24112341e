#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "whence/training/optimizer.h"

namespace whence::detail {

/// Training that is not at its end, in a file (unfinished_path()): where it stands and the record of what it began
/// with. The file appears whole.
void write_unfinished(const std::filesystem::path& path, const TrainingState& state, const nlohmann::json& record);

/// Where training stands, on the device of `like`, the parameters that training would begin with. `parent` is the stage
/// before, `anew` what to type to begin anew. Throws InvalidArgument where training began with another record, naming
/// what is otherwise, and DataError where the file is damaged or holds other parameters.
TrainingState read_unfinished(const std::filesystem::path& path, const nlohmann::json& record, const TensorList& like,
                              const std::string& parent, const std::string& anew);

}  // namespace whence::detail
