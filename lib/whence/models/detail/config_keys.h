#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "whence/models/detail/config_file.h"

namespace whence::detail {

/// Puts the keys of a config.json under the names that its family's own files have: GPT-2 also goes by hidden_size
/// (Family). Throws DataError where both are there with different values.
void take_other_spellings(nlohmann::json& values, const std::filesystem::path& path);

/// Throws DataError naming a key that asks for what whence does not compute.
void check_config_keys(const ConfigFile& config, const std::string& family);

/// A line for each thing that may matter and is not followed: keys that transformers does not read for the family
/// either, code of the folder's own.
std::vector<std::string> notes_on_keys(const ConfigFile& config, const std::string& family);

/// Whether a key decides nothing that is computed here, in any family: dropout, generation, how transformers runs,
/// where a file came from.
bool decides_nothing(std::string_view key);

/// What becomes of a key of config.json: "obeyed", "no effect", the only value that is taken, or empty for a key that
/// transformers does not read either. The table of docs/models.md.
std::string use_of_key(const std::string& key, const std::string& family);

}  // namespace whence::detail
