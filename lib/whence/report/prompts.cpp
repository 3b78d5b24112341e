#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/report/detail/markup.h"

namespace whence::detail {
namespace {

/// Where a demonstration stands: an id on the page.
std::string place(const std::string& anchor, std::int64_t number) {
  return fmt::format("demonstration-{}{}", escape(anchor), number);
}

std::string link(const std::string& to, std::string_view classes, const std::string& text, const std::string& title) {
  return fmt::format("<a class=\"{}\" href=\"#{}\" title=\"{}\">{}</a>", classes, to, escape(title), text);
}

/// Each query's score of one demonstration, as a square of its side's colour.
std::string by_query(const PromptPart& part, double largest) {
  std::string out;
  for (std::size_t j = 0; j < part.by_query.size(); ++j) {
    const double score = part.by_query[j];
    out += fmt::format("<span class=\"{}\" style=\"--share:{:.0f}%\" title=\"query {}: {}\"></span>", side_class(score),
                       100 * std::abs(score) / largest, j, number(score, true));
  }
  return element("span", "class=\"squares\" aria-label=\"by query\"", out);
}

std::string demonstration(const PromptPart& part, const std::string& anchor, double largest, double largest_by_query) {
  auto answer = escape(part.answer);
  if (part.drop) {
    answer +=
        part.instead.empty() ? "" : element("span", "class=\"instead\"", "the others say " + escape(part.instead));
    answer += element("span", "class=\"badge\"", "drop");
  }
  auto notes = fmt::format("<span>{}</span>", part.number);
  if (part.score) {
    notes +=
        element("span", "class=\"score\"", fmt::format("{} {}", side_class(*part.score), number(*part.score, true)));
  }
  if (!part.note.empty()) {
    notes += element("span", "", escape(part.note));
  }
  if (part.by_query.size() > 1) {
    notes += by_query(part, largest_by_query);
  }
  const double score = part.score.value_or(0);
  return element(
      "li",
      fmt::format("class=\"demonstration {}{}\" id=\"{}\" style=\"--share:{:.0f}%\"", side_class(score),
                  part.drop ? " dropped" : "", place(anchor, part.number), kDarkestShade * std::abs(score) / largest),
      folded_text(part.text) + element("div", "class=\"label\"", answer) + element("div", "class=\"origin\"", notes));
}

std::string chips(const char* word, const std::string& anchor,
                  const std::vector<std::pair<std::int64_t, double>>& list) {
  std::string out;
  for (const auto& [demonstration, score] : list) {
    out += link(place(anchor, demonstration), fmt::format("chip {}", side_class(score)),
                fmt::format("{} <small>{}</small>", demonstration, number(score, true)), word);
  }
  return out.empty() ? "" : element("div", "class=\"chips\"", fmt::format("<span>{}</span>", word) + out);
}

std::string question(const PromptQuestion& asked, const std::string& anchor) {
  return element("li", fmt::format("class=\"card question\" id=\"query-{}\"", asked.number),
                 element("h3", "", fmt::format("Query {}", asked.number)) + folded_text(asked.text) +
                     facts(asked.facts) + chips("most helpful", anchor, asked.helpful) +
                     chips("most harmful", anchor, asked.harmful));
}

}  // namespace

std::string prompt_section(const PromptCard& card) {
  double largest = 1e-300, largest_by_query = 1e-300;
  std::string dropped;
  for (const auto& part : card.parts) {
    largest = std::max(largest, std::abs(part.score.value_or(0)));
    for (const double score : part.by_query) {
      largest_by_query = std::max(largest_by_query, std::abs(score));
    }
  }
  for (const auto number : card.drop) {
    dropped += link(place(card.anchor, number), "chip bad", std::to_string(number), "drop");
  }
  std::string out;
  if (!dropped.empty()) {
    out += element("p", "class=\"chips\"", "<span>Drop these:</span>" + dropped);
  }
  out += element("h2", "", escape(card.title));
  if (largest > 1e-300) {
    out += element(
        "ul", "class=\"legend\"",
        element("li", "", "<span class=\"key helpful\"></span>helpful: without it the answers are less likely") +
            element("li", "", "<span class=\"key harmful\"></span>harmful: without it they are likelier") +
            (card.questions.size() > 1 ? element("li", "", "squares: by query") : ""));
  }
  std::string items;
  for (const auto& part : card.parts) {
    items += demonstration(part, card.anchor, largest, largest_by_query);
  }
  out += element("ol", "class=\"prompt\"", items);
  std::string questions;
  for (const auto& asked : card.questions) {
    questions += question(asked, card.anchor);
  }
  return out + (questions.empty()
                    ? ""
                    : element("h2", "", "What was asked") + element("ol", "class=\"questions\"", questions));
}

}  // namespace whence::detail
