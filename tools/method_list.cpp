#include "method_list.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "attribution_options.h"
#include "cli.h"
#include "whence/core/error.h"

namespace whence::cli {
namespace {

constexpr const char* kWords = "bm25";

std::vector<std::string> split_at(const std::string& text, char separator) {
  std::vector<std::string> out{""};
  for (const char c : text) {
    c == separator ? static_cast<void>(out.emplace_back()) : out.back().push_back(c);
  }
  return out;
}

ListedMethod method_of(const std::string& text) {
  ListedMethod out{text};
  if (text == kWords) {
    return out;
  }
  if (is_method<Attributor>(text)) {
    out.attributor = create<Attributor>(text);
    out.flags = text == "influence" ? "" : "--method " + text;
    return out;
  }
  out.attributor = create<Attributor>("influence");
  if (text == kUnrolled) {
    out.unrolled = true;
    out.flags = "--response " + text;
    return out;
  }
  const auto add = [&](const std::string& flag) { out.flags += (out.flags.empty() ? "" : " ") + flag; };
  for (const auto& part : split_at(text, '+')) {
    if (is_method<Curvature>(part) && out.asked.curvature_is_open()) {
      create<Curvature>(part);
      out.asked.curvature = part;
      add("--curvature " + part);
    } else if (is_method<Solver>(part)) {
      create<Solver>(part);
      out.asked.solver = part;
      add("--solver " + part);
    } else {
      try {
        if (part == kUnrolled) {
          throw UsageError(
              fmt::format("--methods: {}: {} goes through training itself, expected it alone", text, part));
        }
        read_response(part, out.asked.options);
        add("--response " + part);
      } catch (const InvalidArgument& error) {
        throw UsageError(fmt::format(
            "--methods: {} is no attribution method ({}, {}), curvature ({}), solver ({}) or response ({})", part,
            fmt::join(method_names<Attributor>(), ", "), kWords, fmt::join(method_names<Curvature>(), ", "),
            fmt::join(method_names<Solver>(), ", "), error.what()));
      }
    }
  }
  return out;
}

}  // namespace

std::vector<ListedMethod> method_list(const std::string& text, bool texts) {
  std::vector<std::string> names;
  for (const auto& piece : split_at(text, ',')) {
    const bool option = piece.find('=') != piece.npos && piece.find(':') > piece.find('=');
    if (option && !names.empty()) {
      names.back() += ',' + piece;
    } else if (!piece.empty()) {
      names.push_back(piece);
    }
  }
  const auto named = names.size();
  for (const std::string& always : texts ? std::vector<std::string>{"random", "grad-cos", kWords, "rep-sim"}
                                         : std::vector<std::string>{"random", "grad-cos"}) {
    if (std::find(names.begin(), names.end(), always) == names.end()) {
      names.push_back(always);
    }
  }
  std::vector<ListedMethod> out;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (std::find(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(i), names[i]) !=
        names.begin() + static_cast<std::ptrdiff_t>(i)) {
      throw UsageError(fmt::format("--methods: {} stands there twice", names[i]));
    }
    out.push_back(method_of(names[i]));
    out.back().named = i < named;
  }
  for (const auto& method : out) {
    if (!method.attributor && !texts) {
      throw UsageError(fmt::format("--methods: {} compares the words of texts, and these examples are none", kWords));
    }
  }
  return out;
}

}  // namespace whence::cli
