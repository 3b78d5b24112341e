#include "whence/core/file_name.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "whence/core/error.h"

namespace whence {
namespace {

/// As JSON has it, in quotes and on one line; bytes that are not UTF-8 are replaced.
std::string quoted(std::string_view name) {
  return nlohmann::json(name).dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
}

bool is_utf8(std::string_view name) {
  try {
    nlohmann::json(name).dump();
    return true;
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
}

/// What is wrong with the name; empty where nothing is.
std::string_view fault(std::string_view name) {
  constexpr std::size_t kMost = 200;  // of the 255 bytes that file systems take: an ending may follow
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  if (name.empty()) {
    return "it is empty";
  }
  if (name.front() == '.') {
    return "it begins with a dot";
  }
  if (name.size() > kMost) {
    return "it is longer than 200 bytes";
  }
  if (name.find('/') != name.npos) {
    return "it has a slash in it";
  }
  if (std::any_of(name.begin(), name.end(), is_control)) {
    return "it has a control character in it";
  }
  return is_utf8(name) ? "" : "it is not UTF-8";
}

}  // namespace

void check_file_name(std::string_view name, const std::string& what) {
  if (const auto found = fault(name); !found.empty()) {
    throw DataError(fmt::format("{} = {}, expected the name of a folder or file: {}", what, quoted(name), found));
  }
}

}  // namespace whence
