#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace whence::detail {

/// SHA-256 of each file, by its name as seen from `folder`.
nlohmann::json file_digests(const std::vector<std::filesystem::path>& files, const std::filesystem::path& folder);

/// The files of `digests` whose bytes are others now. Only those are read that came to their place or changed after
/// `checkpoint` was written; a file that is gone counts as unchanged.
std::vector<std::string> changed_files(const nlohmann::json& digests, const std::filesystem::path& folder,
                                       const std::filesystem::path& checkpoint);

/// Where two tables of settings differ, key by key: "train.limit = 2000, now 1000".
std::vector<std::string> changed_settings(const nlohmann::json& then, const nlohmann::json& now);

/// JSON on one line that is UTF-8 whatever the texts in it hold.
std::string one_line(const nlohmann::json& json);

}  // namespace whence::detail
