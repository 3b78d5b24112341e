#pragma once
#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>
#include <vector>

namespace whence::test {

/// What is wrong with a piece of HTML or SVG: a tag that is not closed, an attribute that is not quoted, a stray '<',
/// '>' or '&'. Empty where nothing is. Knows no more of the two languages than this project writes.
inline std::string markup_fault(std::string_view text) {
  const std::vector<std::string> without_end{"meta", "img"};
  std::vector<std::string> open;
  std::size_t i = 0;
  const auto name_at = [&](std::size_t from) {
    std::size_t end = from;
    while (end < text.size() && (std::isalnum(static_cast<unsigned char>(text[end])) != 0 || text[end] == '-')) {
      ++end;
    }
    return std::string(text.substr(from, end - from));
  };
  const auto entity_at = [&](std::size_t from) {
    const auto end = text.find(';', from);
    return end != text.npos && end - from <= 7;
  };
  if (text.starts_with("<!DOCTYPE html>")) {
    i = 15;
  }
  while (i < text.size()) {
    const char c = text[i];
    if (c == '>' || (c == '&' && !entity_at(i))) {
      return "stray " + std::string(text.substr(i, 40));
    }
    if (c != '<') {
      ++i;
      continue;
    }
    if (text.substr(i, 2) == "</") {
      const auto name = name_at(i + 2);
      if (open.empty() || open.back() != name || text[i + 2 + name.size()] != '>') {
        return "unexpected </" + name + ">";
      }
      open.pop_back();
      i += 3 + name.size();
      continue;
    }
    const auto name = name_at(i + 1);
    if (name.empty()) {
      return "stray " + std::string(text.substr(i, 40));
    }
    i += 1 + name.size();
    bool closed = false;
    while (i < text.size() && text[i] != '>') {
      if (text[i] == '/' && text.substr(i, 2) == "/>") {
        closed = true;
        ++i;
      } else if (text[i] == ' ') {
        const auto attribute = name_at(i + 1);
        i += 1 + attribute.size();
        if (attribute.empty() || text.substr(i, 2) != "=\"") {
          return "attribute of <" + name + ">: " + std::string(text.substr(i, 40));
        }
        const auto end = text.find('"', i + 2);
        const auto value = text.substr(i + 2, end - i - 2);
        if (end == text.npos || value.find('<') != value.npos) {
          return "value of " + attribute;
        }
        i = end + 1;
      } else {
        return "in <" + name + ">: " + std::string(text.substr(i, 40));
      }
    }
    ++i;
    if (name == "style") {
      i = std::min(text.find("</style>", i), text.size());
    }
    if (!closed && std::find(without_end.begin(), without_end.end(), name) == without_end.end()) {
      open.push_back(name);
    }
  }
  return open.empty() ? "" : "unclosed <" + open.back() + ">";
}

inline std::size_t count(std::string_view text, std::string_view part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) {
    ++found;
  }
  return found;
}

}  // namespace whence::test
