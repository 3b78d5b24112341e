#include "faults/tree.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

namespace whence::faults {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
namespace {

void erase_times(Json& value, const std::set<std::string>& timed, const fs::path& folder) {
  if (value.is_object()) {
    for (auto entry = value.begin(); entry != value.end();) {
      entry = entry.key().starts_with("seconds") ? value.erase(entry) : std::next(entry);
    }
    if (const auto verdict = value.find("verdict"); verdict != value.end() && verdict->is_string()) {
      const auto text = verdict->get<std::string>();
      *verdict = text.substr(0, text.find("takes about"));
    }
    if (const auto files = value.find("files"); files != value.end() && files->is_object()) {
      for (const auto& name : timed) {
        const fs::path path(name);
        if (path.parent_path() == folder && files->contains(path.filename().string())) {
          (*files)[path.filename().string()] = "timed";
        }
      }
    }
  }
  if (value.is_structured()) {
    for (auto& part : value) {
      erase_times(part, timed, folder);
    }
  }
}

/// Where the first two lines differ.
std::string first_line_apart(const std::string& a, const std::string& b) {
  const auto shorter = std::min(a.size(), b.size());
  const auto at = static_cast<std::size_t>(std::distance(
      a.begin(), std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(shorter), b.begin()).first));
  constexpr std::size_t kBefore = 60, kShown = 160;
  const auto from = at > kBefore ? at - kBefore : 0;
  const auto shown = [&](const std::string& text) {
    auto part = text.substr(std::min(from, text.size()), kShown);
    std::replace_if(
        part.begin(), part.end(), [](unsigned char c) { return c < ' ' || c > '~'; }, ' ');
    return part;
  };
  return "at byte " + std::to_string(at) + " \"" + shown(a) + "\", expected \"" + shown(b) + "\"";
}

}  // namespace

std::string bytes_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write(const fs::path& file, const std::string& bytes) {
  if (file.has_parent_path()) {
    fs::create_directories(file.parent_path());
  }
  std::ofstream(file, std::ios::binary) << bytes;
}

Tree tree_of(const fs::path& folder) {
  Tree out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const auto name = entry.path().lexically_relative(folder).string();
    out[name] = entry.is_symlink()     ? "-> " + fs::read_symlink(entry.path()).string()
                : entry.is_directory() ? "/"
                                       : bytes_of(entry.path());
  }
  return out;
}

void make(const Tree& tree, const fs::path& folder) {
  const auto old = fs::file_time_type::clock::now() - std::chrono::hours(1);  // so that what is changed then is newer
  fs::remove_all(folder);
  fs::create_directories(folder);
  for (const auto& [name, bytes] : tree) {
    if (bytes == "/") {
      fs::create_directories(folder / name);
    } else if (bytes.starts_with("-> ")) {
      fs::create_symlink(bytes.substr(3), folder / name);
    } else {
      write(folder / name, bytes);
      fs::last_write_time(folder / name, old);
    }
  }
}

Tree told(const Tree& tree, const std::set<std::string>& timed) {
  Tree out;
  for (const auto& [name, bytes] : tree) {
    auto& kept = out[name] = bytes;
    if (fs::path(name).extension() == ".json") {
      auto json = Json::parse(bytes, nullptr, false);
      if (!json.is_discarded()) {
        erase_times(json, timed, fs::path(name).parent_path());
        if (json.is_object()) {
          json.erase("sha256");  // of the file itself
        }
        kept = json.dump(1, ' ', false, Json::error_handler_t::replace);
      }
    } else if (timed.contains(name)) {
      kept = "timed";
    }
  }
  return out;
}

std::set<std::string> differing(const Tree& a, const Tree& b) {
  std::set<std::string> out;
  for (const auto& [name, bytes] : a) {
    if (const auto other = b.find(name); other == b.end() || other->second != bytes) {
      out.insert(name);
    }
  }
  return out;
}

std::string difference(const Tree& found, const Tree& expected) {
  std::string out;
  const auto say = [&](const std::string& text) { out += (out.empty() ? "" : "; ") + text; };
  for (const auto& [name, bytes] : expected) {
    const auto other = found.find(name);
    if (other == found.end()) {
      say(name + " is missing");
    } else if (other->second != bytes) {
      say(name + " differs " + first_line_apart(other->second, bytes));
    }
  }
  for (const auto& [name, bytes] : found) {
    if (!expected.contains(name)) {
      say(name + " is left over");
    }
  }
  return out;
}

}  // namespace whence::faults
