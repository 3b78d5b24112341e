#include "whence/store/result_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/json.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

/// Names that nobody else has: what lies there is whence's to clear away.
constexpr const char *kNew = ".whence-new", *kPartial = ".whence-partial";
constexpr const char *kRun = "run.json", *kDigest = "sha256", *kFiles = "files", *kKey = "key", *kBytes = "bytes";

std::string text_of(const Json& record) {  // paths and arguments may be any bytes
  return json_text(record, 2) + "\n";
}

std::string digest_of(const Json& record) {
  const auto text = text_of(record);
  return digest(std::as_bytes(std::span(text)));
}

void check(const std::error_code& code, const char* verb, const fs::path& path) {
  if (code) {
    throw DataError(fmt::format("cannot {} {}: {}", verb, path.string(), code.message()));
  }
}

void clear_away(const fs::path& path) {
  std::error_code code;
  fs::remove_all(path, code);
  check(code, "remove", path);
}

/// Whatever lies there, a link that leads nowhere too.
bool lies_at(const fs::path& path) {
  std::error_code code;
  return fs::exists(fs::symlink_status(path, code));
}

bool is_plain(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name != kRun && name.find('/') == name.npos;
}

bool is_file_entry(const Json& entry) {
  return entry.is_object() && entry.contains(kBytes) && entry[kBytes].is_number_integer() && entry.contains(kDigest) &&
         entry[kDigest].is_string();
}

/// run.json of a result, wherever it lies.
Json read_run_record(const fs::path& path) {
  auto run = read_json<Json>(path);
  if (!run.is_object() || !run.contains(kFiles) || !run.contains(kDigest)) {
    throw DataError(
        fmt::format("{}: not a run.json of this version of whence, which has \"files\" and \"sha256\"", path.string()));
  }
  run = read_record(path);
  const auto bad = [&](const char* key) {
    throw DataError(fmt::format("{}: \"{}\" is missing or of another type than in a run.json of this version of whence",
                                path.string(), key));
  };
  if (!run.contains(kKey) || !run[kKey].is_string()) {
    bad(kKey);
  }
  if (!run[kFiles].is_object()) {
    bad(kFiles);
  }
  for (const auto& [name, entry] : run[kFiles].items()) {
    if (!is_plain(name) || !is_file_entry(entry)) {
      bad(kFiles);
    }
  }
  return run;
}

/// Whether the file is there, with the bytes that `entry` tells of.
bool is_whole(const fs::path& path, const Json& entry) {
  std::error_code code;
  return fs::is_regular_file(path, code) && fs::file_size(path, code) == entry[kBytes].get<std::uintmax_t>() &&
         digest(path) == entry[kDigest].get<std::string>();
}

std::string command_of(const Json& run) {
  std::string out = "whence";
  for (const char* part : {"command", "arguments"}) {
    for (const auto& word : run.contains(part) ? run[part].flatten() : Json()) {
      out += word.is_string() ? ' ' + word.get<std::string>() : "";
    }
  }
  return out;
}

/// What ResultWriter::begin() wrote; nothing where it was damaged, so that nobody can tell whose work lies there.
std::optional<Json> begun_run_record(const fs::path& partial) {
  try {
    auto begun = lies_at(partial / kRun) ? std::optional(read_record(partial / kRun)) : std::nullopt;
    return begun && begun->contains(kKey) && !(*begun)[kKey].is_string() ? std::nullopt : begun;
  } catch (const DataError&) {
    return std::nullopt;
  }
}

/// That of a folder into which nothing is being moved.
Json finished_run_record(const fs::path& folder) {
  if (const auto staged = folder / kNew / kRun; lies_at(staged)) {
    throw DataError(fmt::format("{}: a run was stopped while it moved its files in; the same command finishes that: {}",
                                folder.string(), command_of(read_run_record(staged))));
  }
  if (!lies_at(folder / kRun)) {
    if (const auto begun = begun_run_record(folder / kPartial)) {
      const auto writer = OutputLock::writer_in(folder);
      throw DataError(fmt::format(
          "{}: its run is not done: {}: {}", folder.string(),
          writer.empty() ? "it was stopped, and the same command goes on from there" : writer + " is at work on it",
          command_of(*begun)));
    }
  }
  return read_run_record(folder / kRun);
}

}  // namespace

void write_record(const fs::path& path, Json record) {
  record.erase(kDigest);
  record[kDigest] = digest_of(record);
  write_text(path, text_of(record));
}

Json read_record(const fs::path& path) {
  auto record = read_json<Json>(path);
  const auto told = record.is_object() && record.contains(kDigest) ? record[kDigest] : Json();
  if (!told.is_string()) {
    throw DataError(fmt::format("{}: no \"sha256\" of itself", path.string()));
  }
  auto rest = record;
  rest.erase(kDigest);
  if (const auto found = digest_of(rest); found != told.get<std::string>()) {
    throw DataError(fmt::format("{} was changed since whence wrote it (SHA-256 {}…, it says {}…)", path.string(),
                                found.substr(0, 12), told.get<std::string>().substr(0, 12)));
  }
  return record;
}

bool is_result(const fs::path& folder) {
  return lies_at(folder / kRun) || lies_at(folder / kNew / kRun) || lies_at(folder / kPartial / kRun);
}

Result::Result(const fs::path& folder) : folder_(folder), run_(finished_run_record(folder), (folder / kRun).string()) {}

std::vector<std::string> Result::files() const {
  std::vector<std::string> out;
  for (const auto& [name, entry] : run_[kFiles].items()) {
    out.push_back(name);
  }
  return out;
}

bool Result::whole(const std::string& name) const {
  if (!whole_.contains(name) && is_whole(folder_ / name, run_.json()[kFiles][name])) {
    whole_.insert(name);
  }
  return whole_.contains(name);
}

fs::path Result::file(const std::string& name) const {
  const auto path = folder_ / name;
  if (!has(name)) {
    throw DataError(fmt::format("{}: run.json lists no {}: it is no part of this result", folder_.string(), name));
  }
  if (!whole(name)) {
    const bool other = name.starts_with("evaluation") || name == "report.html";  // which another command made
    throw DataError(fmt::format(
        "{}{}",
        lies_at(path) ? fmt::format("{} was changed since whence wrote it; to have it made again, remove it and repeat",
                                    path.string())
                      : fmt::format("{} is missing; made by", path.string()),
        other ? fmt::format(" whence {}", name == "report.html" ? "report" : "evaluate")
              : ": " + command_of(run_.json())));
  }
  return path;
}

ResultWriter::ResultWriter(fs::path folder, std::vector<std::string> outputs)
    : folder_(std::move(folder)), new_(folder_ / kNew), partial_(folder_ / kPartial), outputs_(std::move(outputs)) {
  if (lies_at(folder_)) {
    hold();
  }
}

/// What would be written over must be what whence wrote.
void ResultWriter::check_outputs() const {
  for (const auto& name : outputs_) {
    const auto path = folder_ / name;
    if (!lies_at(path)) {
      continue;
    }
    if (!former_ || !former_->has(name)) {
      throw InvalidArgument(
          fmt::format("{} was not written by whence and would be overwritten: move it away, or choose another --out",
                      path.string()));
    }
    if (!former_->whole(name)) {
      throw InvalidArgument(
          fmt::format("{} was changed since whence wrote it: remove it to have it made again, or choose another --out",
                      path.string()));
    }
  }
}

ResultWriter::~ResultWriter() {
  std::error_code ignored;
  if (held_ && !lies_at(new_ / kRun)) {  // else the next writer moves in what counts already
    fs::remove_all(new_, ignored);
  }
  if (begun_ && std::distance(fs::directory_iterator(partial_, ignored), fs::directory_iterator()) == 1) {
    fs::remove_all(partial_, ignored);  // nothing but what begin() wrote
  }
  lock_ = OutputLock();
  if (made_) {
    fs::remove(folder_, ignored);  // which fails where anything is in it
  }
}

/// Whoever holds the folder finishes or clears away what a killed run left.
void ResultWriter::hold() {
  if (held_) {
    return;
  }
  made_ = !lies_at(folder_);
  make_folder(folder_);
  lock_ = OutputLock::in(folder_);
  held_ = true;
  if (lies_at(new_ / kRun)) {
    move_in();
  }
  clear_away(new_);
  read_former();
  check_outputs();
}

void ResultWriter::read_former() {
  former_.reset();
  if (!lies_at(folder_ / kRun)) {
    return;
  }
  try {
    former_.emplace(folder_);
  } catch (const DataError& error) {
    throw InvalidArgument(fmt::format("{}; move it away, or choose another --out", error.what()));
  }
  const auto begun = begun_run_record(partial_);
  if (!begun || !begun->contains(kKey) || begun->value(kKey, "") == former_->key()) {  // nobody's, or this one's
    clear_away(partial_);
  }
}

const Result* ResultWriter::finished(const std::string& key, const std::vector<std::string>& files) const {
  if (!former_ || former_->key() != key) {
    return nullptr;
  }
  for (const auto& name : files) {
    if (!former_->has(name) || !lies_at(folder_ / name)) {
      return nullptr;
    }
    former_->file(name);
  }
  return &*former_;
}

std::vector<JsonView> ResultWriter::earlier() const {
  std::vector<JsonView> out;
  if (former_) {
    out.push_back(former_->run());
  }
  if (auto begun = begun_run_record(partial_)) {
    out.emplace_back(std::move(*begun), (partial_ / kRun).string());
  }
  return out;
}

fs::path ResultWriter::begin(const std::string& key, Json run) {
  hold();
  const auto begun = begun_run_record(partial_);
  if (begun && begun->value(kKey, key) != key) {
    throw InvalidArgument(fmt::format(
        "{} holds an unfinished run with other settings; finish it ({}), choose another --out, or remove {}",
        folder_.string(), command_of(*begun), partial_.string()));
  }
  if (!begun || !begun->contains(kKey)) {
    clear_away(partial_);
  }
  make_folder(partial_);
  begun_ = true;
  run[kKey] = key;
  write_record(partial_ / kRun, std::move(run));
  return partial_;
}

void ResultWriter::abandon() {
  if (begun_) {
    clear_away(partial_);
  }
}

fs::path ResultWriter::place(const std::string& name) {
  hold();
  make_folder(new_);
  return new_ / name;
}

fs::path ResultWriter::find(const std::string& name) const {
  if (lies_at(new_ / name)) {
    return new_ / name;
  }
  if (!former_) {
    throw DataError(fmt::format("{}: there is no {}", folder_.string(), name));
  }
  return former_->file(name);
}

void ResultWriter::publish(const std::string& key, Json run) {
  const auto there = [&](const std::string& name) { return lies_at(folder_ / name); };
  if (former_ && former_->run() == run && !lies_at(new_) && std::ranges::all_of(former_->files(), there)) {
    return;
  }
  hold();
  make_folder(new_);
  std::map<std::string, Json> files;  // in an order of their own, however they came
  if (former_ && former_->key() == key) {
    for (const auto& name : former_->files()) {
      if (lies_at(folder_ / name)) {
        files[name] = former_->run().json()[kFiles][name];
      }
    }
  }
  for (const auto& entry : fs::directory_iterator(new_)) {
    files[entry.path().filename().string()] = {{kBytes, entry.file_size()}, {kDigest, digest(entry.path())}};
  }
  run[kKey] = key;
  run[kFiles] = files.empty() ? Json::object() : Json(files);
  write_record(new_ / kRun, std::move(run));
  move_in();
  read_former();
}

/// Every step may be done again.
void ResultWriter::move_in() {
  const auto run = read_run_record(new_ / kRun);
  const auto move = [&](const std::string& name) {
    std::error_code code;
    fs::rename(new_ / name, folder_ / name, code);
    check(code, "write", folder_ / name);
  };
  for (const auto& [name, entry] : run[kFiles].items()) {
    if (lies_at(new_ / name)) {
      move(name);
    }
  }
  if (lies_at(folder_ / kRun)) {
    const auto former = read_run_record(folder_ / kRun);
    for (const auto& [name, entry] : former[kFiles].items()) {
      if (!run[kFiles].contains(name) && is_whole(folder_ / name, entry)) {
        clear_away(folder_ / name);
      }
    }
  }
  move(kRun);
  clear_away(new_);
}

}  // namespace whence
