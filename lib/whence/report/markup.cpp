#include "whence/report/detail/markup.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/error.h"

namespace whence::detail {
namespace {

constexpr std::size_t kShown = 260;  // bytes of a text before it folds
constexpr std::size_t kSpare = 60;   // not worth folding

bool begins_character(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

/// A paragraph or, where there is a rest, a beginning that unfolds. Both are markup.
std::string unfolding(std::string_view classes, const std::string& head, const std::string& rest) {
  return rest.empty() ? fmt::format("<p class=\"{}\">{}</p>\n", classes, head)
                      : fmt::format("<details class=\"{}\"><summary>{}</summary>{}</details>\n", classes, head, rest);
}

using Ranges = std::vector<std::pair<std::size_t, std::size_t>>;

std::string shaded_tokens(const std::vector<std::pair<std::string, double>>& tokens, double outcome,
                          const Ranges& ranges) {
  double largest = 1e-300;
  std::size_t bytes = 0;
  for (const auto& [text, value] : tokens) {
    largest = std::max(largest, std::abs(value));
    bytes += text.size();
  }
  std::string head, rest;
  std::size_t shown = 0;
  for (const auto& [text, value] : tokens) {
    const bool shared = std::any_of(ranges.begin(), ranges.end(), [&, size = text.size()](const auto& range) {
      return shown < range.second && range.first < shown + size;
    });
    const bool folds = bytes > kShown + kSpare && shown >= kShown;
    (folds ? rest : head) += fmt::format("<span class=\"{}{}\" style=\"--share:{:.0f}%\" title=\"{}\">{}</span>",
                                         side_class(outcome * value), shared ? " shared" : "",
                                         kDarkestShade * std::abs(value) / largest, number(value, true), escape(text));
    shown += text.size();
  }
  return unfolding("text tokens", head, rest);
}

std::string table(const std::vector<Cell>& cells) {
  const bool paired = std::any_of(cells.begin(), cells.end(), [](const Cell& cell) { return !cell.beside.empty(); });
  std::string rows;
  for (const auto& cell : cells) {
    auto row = element("th", "scope=\"row\"", escape(cell.name)) + element("td", "", escape(cell.value));
    if (paired) {
      row += element("td", cell.value == cell.beside ? "class=\"beside\"" : "class=\"beside differs\"",
                     escape(cell.beside));
    }
    rows += element("tr", "", row);
  }
  const auto head = paired ? element("thead", "",
                                     element("tr", "",
                                             element("th", "", "column") + element("th", "class=\"value\"", "here") +
                                                 element("th", "class=\"value\"", "query")))
                           : "";
  return element("table", "class=\"values\"", head + element("tbody", "", rows));
}

}  // namespace

std::string element(std::string_view name, std::string_view attributes, std::string_view content) {
  return fmt::format("<{0}{1}{2}>{3}</{0}>\n", name, attributes.empty() ? "" : " ", attributes, content);
}

std::string_view side_class(double help) { return help < 0 ? "harmful" : "helpful"; }

std::string_view state_class(Fact::State state) {
  switch (state) {
    case Fact::State::kGood:
      return "class=\"good\"";
    case Fact::State::kWarning:
      return "class=\"warning\"";
    case Fact::State::kBad:
      return "class=\"bad\"";
    default:
      return "";
  }
}

std::string facts(const std::vector<Fact>& list) {
  constexpr std::size_t kLong = 24;  // characters that fit one column
  std::string out;
  for (const auto& fact : list) {
    const auto note = fact.note.empty() ? "" : element("small", "", escape(fact.note));
    const auto value = element("dd", state_class(fact.state), escape(fact.value) + note);
    out +=
        element("div", fact.value.size() > kLong ? "class=\"long\"" : "", element("dt", "", escape(fact.name)) + value);
  }
  return element("dl", "class=\"facts\"", out);
}

std::string image(const std::string& address, std::string_view attributes, const std::string& description) {
  if (!address.starts_with("data:image/")) {
    throw InvalidArgument(fmt::format("report: image \"{}\", expected a data:image/ address", address.substr(0, 60)));
  }
  return fmt::format("<img {}src=\"{}\" alt=\"{}\" loading=\"lazy\">\n", attributes, escape(address),
                     escape(description));
}

std::string folded_text(const std::string& text) {
  if (text.size() <= kShown + kSpare) {
    return unfolding("text", escape(text), "");
  }
  auto cut = kShown;
  while (cut < text.size() && !begins_character(text[cut])) {
    ++cut;
  }
  if (const auto space = text.rfind(' ', cut); space != text.npos && space + 40 > cut) {
    cut = space;
  }
  return unfolding("text", escape(std::string_view(text).substr(0, cut)), escape(std::string_view(text).substr(cut)));
}

std::string content(const Content& shown, const std::string& description, double outcome) {
  std::string out;
  if (!shown.image.empty()) {
    out += image(shown.image, "class=\"picture\" ", description);
  }
  out += shown.text.empty() ? "" : folded_text(shown.text);
  out += shown.tokens.empty() ? "" : shaded_tokens(shown.tokens, outcome, shown.shared);
  out += shown.cells.empty() ? "" : table(shown.cells);
  return out;
}

}  // namespace whence::detail
