#include "whence/stages/detail/training_record.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "whence/core/files.h"

namespace whence::detail {
namespace fs = std::filesystem;
using nlohmann::json;

fs::path absolute_folder(const fs::path& folder) { return folder.empty() ? fs::current_path() : fs::absolute(folder); }

json file_digests(const std::vector<fs::path>& files, const fs::path& folder) {
  auto out = json::object();
  for (const auto& file : files) {
    const auto name = fs::absolute(file).lexically_proximate(absolute_folder(folder)).string();
    if (!out.contains(name)) {
      out[name] = digest(file);
    }
  }
  return out;
}

std::vector<std::string> changed_files(const json& digests, const fs::path& folder, const fs::path& checkpoint) {
  std::vector<std::string> out;
  struct stat written = {}, found = {};
  if (::stat(checkpoint.c_str(), &written) != 0) {
    return out;
  }
  for (const auto& [name, held] : digests.items()) {
    const auto file = absolute_folder(folder) / name;
    // the inode's time, which moving an older file here renews too
    if (::stat(file.c_str(), &found) == 0 &&
        std::tie(found.st_ctim.tv_sec, found.st_ctim.tv_nsec) >=
            std::tie(written.st_mtim.tv_sec, written.st_mtim.tv_nsec) &&
        digest(file) != held.get<std::string>()) {
      out.push_back(name);
    }
  }
  return out;
}

std::vector<std::string> changed_settings(const json& then, const json& now) {
  const auto before = then.flatten(), after = now.flatten();
  std::set<std::string> keys;
  for (const auto* table : {&before, &after}) {
    for (const auto& [key, value] : table->items()) {
      keys.insert(key);
    }
  }
  const auto text = [](const json& table, const std::string& key) {
    return table.contains(key) ? one_line(table.at(key)) : "not given";
  };
  std::vector<std::string> out;
  for (const auto& key : keys) {
    const bool root = key.empty();  // an empty table, flattened
    if (root || (before.contains(key) && after.contains(key) && before.at(key) == after.at(key))) {
      continue;
    }
    auto name = key.substr(1);
    std::replace(name.begin(), name.end(), '/', '.');
    out.push_back(fmt::format("{} = {}, now {}", name, text(before, key), text(after, key)));
  }
  return out;
}

std::string one_line(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace whence::detail
