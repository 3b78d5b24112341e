#pragma once
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "whence/core/json.h"
#include "whence/training/optimizer.h"

namespace whence {
struct StageDescription;
struct StageTraining;
}  // namespace whence

namespace whence::detail {

/// What training says of itself in the metadata of its checkpoint: under these keys its record, what it was trained
/// with, and how it ended.
inline constexpr const char* kTrainedFrom = "trained-from";
inline constexpr const char* kTraining = "training";
/// A key of the record: files had changed by the end that were read before.
inline constexpr const char* kChangedMeanwhile = "changed-meanwhile";

/// What was measured of a training: [[iteration, loss, accuracy or null], …], under this key.
inline constexpr const char* kValidation = "validation";
nlohmann::ordered_json validation_json(const std::vector<ValidationResult>& results);
/// Throws DataError for another value.
std::vector<ValidationResult> read_validation(const JsonView& told);

/// A record from its text; an empty table where that is none.
nlohmann::json parse_record(const std::string& text);

/// How a training ended, as text and back. Throws DataError naming `where` for a value of another type.
std::string training_text(const StageTraining& training);
StageTraining read_training(const std::string& text, const std::string& where);

/// SHA-256 of each file (kAbsent of what is not there), by its name as seen from `folder`.
nlohmann::json file_digests(const std::vector<std::filesystem::path>& files, const std::filesystem::path& folder);

/// The files of `digests` whose bytes are others now. Of those above 32 MiB only such are read as came to their place
/// or changed at `since` or later; a file that is gone counts as unchanged.
std::vector<std::string> changed_files(const nlohmann::json& digests, const std::filesystem::path& folder,
                                       const timespec& since);
/// Whether a file came to its place or changed at `since` or later; false where it is gone.
bool newer(const std::filesystem::path& file, const timespec& since);
/// When a file was written; the beginning of time where there is none.
timespec written(const std::filesystem::path& file);
/// Now, as files' times have it, which lag a little.
timespec now_of_files();

/// The table under a key of a training's record; an empty one where there is none.
nlohmann::json table_in(const nlohmann::json& record, const char* key);

/// The settings in a training's record. Methods are written out with their options of today: what an earlier version
/// did not know has its default.
nlohmann::json recorded_settings(const nlohmann::json& record);

/// Throws InvalidArgument where a training of whence's, by its record, began with another seed or head-start than the
/// stage has now: it is not known where.
void check_start(const nlohmann::json& record, const StageDescription& stage, std::uint64_t seed);

/// Where two tables of settings differ, key by key: "train.limit = 2000, now 1000".
std::vector<std::string> changed_settings(const nlohmann::json& then, const nlohmann::json& now);

/// Where the records of two trainings differ, a phrase a key: settings and what else they were run with, files ("x.csv
/// has changed"), the parent ("stage NAME has other weights"), examples that were read otherwise from the same files.
std::vector<std::string> changed_records(const nlohmann::json& then, const nlohmann::json& now,
                                         const std::string& parent);

}  // namespace whence::detail
