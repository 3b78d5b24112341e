#pragma once
#include <filesystem>
#include <map>
#include <string>

#include "whence/evaluate/retraining.h"

namespace whence {

/// Writes a file of a bank, sealed, and makes its folder where there is none. What cannot be written leaves no empty
/// folder. Throws as write_sealed() does.
void keep_in_bank(const std::filesystem::path& file, const ParameterSet& tensors,
                  const std::map<std::string, std::string>& metadata);

/// Retrainings kept in a folder, a sealed file each, written as each one ends: what was stopped goes on, and later runs
/// take what earlier ones trained. `key` is a digest of all that the trainings rest on but the example weights: the
/// objectives, the optimizers, where training begins, the queries. Throws DataError where a file was changed.
///
/// The result holds copies of its arguments. One file is about 200 bytes and 8 a query.
RetrainingCache training_bank(const std::filesystem::path& folder, const std::string& key);

}  // namespace whence
