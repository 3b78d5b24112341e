#pragma once
#include <filesystem>
#include <set>
#include <string>

namespace whence::test {

using Names = std::set<std::string>;

/// What is in a folder, hidden files too.
inline Names names_in(const std::filesystem::path& folder) {
  Names out;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    out.insert(entry.path().filename().string());
  }
  return out;
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

}  // namespace whence::test
