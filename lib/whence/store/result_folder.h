#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "whence/core/json.h"
#include "whence/core/output.h"

namespace whence {

/// A finished result: a folder with the files that one run left and its run.json, which beside all that the run tells
/// of itself has
///   "key": a digest of everything that the numbers rest on; two results of one key are the same;
///   "files": {"scores.safetensors": {"bytes": 4000, "sha256": "…"}, …}, those that whence wrote there;
///   "sha256": of run.json itself without this entry.
class Result {
 public:
  /// Throws DataError where there is no run.json, or that of a run that is not done, one of another program or version,
  /// one that was changed, or one whose files were being moved in when a run was killed.
  explicit Result(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  const JsonView& run() const { return run_; }
  std::string key() const { return run_["key"].get<std::string>(); }
  /// Names of its files, but run.json.
  std::vector<std::string> files() const;
  bool has(const std::string& name) const { return run_["files"].contains(name); }
  /// Whether a listed file is there, with the bytes that whence wrote. Cost: SHA-256 of the file.
  bool whole(const std::string& name) const;
  /// The path of a file. Throws DataError, naming it, where it is not listed, is missing or was changed since.
  std::filesystem::path file(const std::string& name) const;

 private:
  std::filesystem::path folder_;
  JsonView run_;
  mutable std::set<std::string> whole_;  // known to be, since hashing takes a second or two a GB
};

/// Whether the folder holds a result, or what a run that was stopped left of one.
bool is_result(const std::filesystem::path& folder);

/// Makes the result of one run visible in a folder as a whole.
///
///   ResultWriter out(folder, {"scores.safetensors"});   // before any work: is the place free?
///   if (out.finished(key, {"scores.safetensors"})) …    // nothing to do
///   write_safetensors(out.place("scores.safetensors"), …);
///   out.publish(key, run);
///
/// Files are written into FOLDER/.whence-new. publish() writes run.json there last; from then on the result counts, and
/// a run that is killed while files move in is finished by the next writer. Before, the folder holds what it held.
/// Files of another key that run.json lists and that are as whence wrote them go; whatever else lies there stays.
///
/// One writer at a time holds the folder's lock. Every member throws DataError with the system's reason.
class ResultWriter {
 public:
  /// `outputs`: names of all files that may be placed, but run.json. Makes nothing yet. Throws InvalidArgument where
  /// one of them lies there and whence did not write it, or it was changed since; where run.json is of something else;
  /// where another process is writing.
  ResultWriter(std::filesystem::path folder, std::vector<std::string> outputs);
  /// What was placed and not published goes, and the folder where it was made for that.
  ~ResultWriter();
  ResultWriter(const ResultWriter&) = delete;
  ResultWriter& operator=(const ResultWriter&) = delete;

  const std::filesystem::path& folder() const { return folder_; }
  /// The finished result here of this key, where it has all of `files`; else null.
  const Result* finished(const std::string& key, const std::vector<std::string>& files) const;
  /// What is known of earlier runs here: the finished one's run.json, then that of begin().
  std::vector<JsonView> earlier() const;

  /// FOLDER/.whence-partial, for what a run keeps while it works so that, killed, it can go on: empty, or with what an
  /// earlier run of this key left. `run` is what run.json will say as far as it is known. Throws InvalidArgument where
  /// a run of another key is unfinished. publish() of the same key removes it.
  std::filesystem::path begin(const std::string& key, nlohmann::ordered_json run);
  /// Removes what begin() gave.
  void abandon();

  /// Where to write the file that will be FOLDER/NAME.
  std::filesystem::path place(const std::string& name);
  /// Where the file lies now: as placed, or else in the finished result. Throws as Result::file.
  std::filesystem::path find(const std::string& name) const;
  /// Moves what was placed into the folder, with `run` as run.json; files of a finished result of the same key stay
  /// beside them.
  void publish(const std::string& key, nlohmann::ordered_json run);

 private:
  void hold();
  void check_outputs() const;
  void move_in();
  void read_former();

  std::filesystem::path folder_, new_, partial_;
  std::vector<std::string> outputs_;
  std::optional<Result> former_;
  OutputLock lock_;
  bool held_ = false, made_ = false, begun_ = false;
};

/// run.json and the like: a JSON object that has its own digest under "sha256".
void write_record(const std::filesystem::path& path, nlohmann::ordered_json record);
/// Throws DataError where it is none, or was changed.
nlohmann::ordered_json read_record(const std::filesystem::path& path);

}  // namespace whence
