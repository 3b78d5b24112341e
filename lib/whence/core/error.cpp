#include "whence/core/error.h"

#include <algorithm>
#include <numeric>

namespace whence {
namespace {

/// Least number of insertions, deletions and replacements that turn `a` into `b`. Levenshtein 1966.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string unknown_name(std::string_view kind, std::string_view name, const std::vector<std::string>& known) {
  std::string message = "unknown ";
  ((message += kind) += " \"") += name;
  message += '"';
  if (known.empty()) {
    return message + ", expected none";
  }
  const auto distance = [&](const std::string& other) {  // a word cut short is as near as one letter
    constexpr std::size_t kLong = 200;                   // for a name that somebody typed
    if (std::max(name.size(), other.size()) > kLong) {
      return std::max(name.size(), other.size());
    }
    const bool swapped = name.size() == other.size() && std::is_permutation(name.begin(), name.end(), other.begin());
    return swapped || (!name.empty() && other.starts_with(name)) ? std::size_t{1} : edit_distance(name, other);
  };
  const auto nearest = std::min_element(known.begin(), known.end(),
                                        [&](const auto& a, const auto& b) { return distance(a) < distance(b); });
  constexpr std::size_t kShort = 4;  // of two letters in three nothing is known
  const auto far = name.size() < kShort ? std::size_t{1} : std::max<std::size_t>(2, name.size() / 3);
  if (nearest != known.end() && distance(*nearest) <= far) {
    message += "; did you mean \"" + *nearest + "\"? known: ";
  } else {
    message += ", known: ";
  }
  constexpr std::size_t kListed = 100;  // which only files have more of
  for (std::size_t i = 0; i < std::min(known.size(), kListed); ++i) {
    message += (i == 0 ? "" : ", ") + known[i];
  }
  return known.size() > kListed ? message + " and " + std::to_string(known.size() - kListed) + " more" : message;
}

}  // namespace whence
