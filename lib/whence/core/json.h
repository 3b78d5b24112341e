#pragma once
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/text.h"

namespace whence {

/// Throws DataError, which begins with `where`, for a text that is not JSON. `Json` may be nlohmann::ordered_json.
template <class Json = nlohmann::json>
Json parse_json(std::string_view text, const std::string& where) {
  try {
    return Json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    throw DataError(where + ": not JSON (" + error.what() + ")");
  }
}

/// Throws what read_utf8() throws, and DataError naming a file that is not JSON.
template <class Json = nlohmann::json>
Json read_json(const std::filesystem::path& path) {
  return parse_json<Json>(read_utf8(path), path.string());
}

/// visit(json, line, "FILE: line N") for each line that is not blank; lines are counted from 1.
template <class Visit>
void read_json_lines(const std::filesystem::path& path, const Visit& visit) {
  const auto text = read_utf8(path);
  std::int64_t line = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const auto row = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), row.size() + 1));
    ++line;
    if (row.find_first_not_of(" \t\r") != row.npos) {
      const auto where = path.string() + ": line " + std::to_string(line);
      visit(parse_json(row, where), line, where);
    }
  }
}

}  // namespace whence
