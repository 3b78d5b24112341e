#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/report/detail/markup.h"

namespace whence::detail {

std::string prompt_legend() {
  return element(
      "ul", "class=\"legend\"",
      element("li", "", "<span class=\"key helpful\"></span>helpful: the demonstration speaks for the answer") +
          element("li", "", "<span class=\"key harmful\"></span>harmful: it speaks against it"));
}

std::string prompt_card(const PromptCard& card) {
  double largest = 1e-300;
  for (const auto& part : card.parts) {
    largest = std::max(largest, std::abs(part.score));
  }
  std::string items;
  for (const auto& part : card.parts) {
    auto shown = element("div", "class=\"text\"", escape(part.text));
    shown += element("div", "class=\"label\"", escape(part.answer));
    shown += element("div", "class=\"origin\"",
                     fmt::format("#{} ", part.number) + element("span", "class=\"score\"", number(part.score, true)) +
                         element("span", "", escape(part.note)));
    items += element("li",
                     fmt::format("class=\"demonstration {}\" style=\"--share:{:.0f}%\"", side_class(part.score),
                                 kDarkestShade * std::abs(part.score) / largest),
                     shown);
  }
  auto out = element("h3", "", escape(card.title)) + element("ol", "class=\"prompt\"", items);
  if (!card.question.empty()) {
    out += element("div", "class=\"question\"",
                   element("div", "class=\"text\"", escape(card.question)) +
                       element("div", "class=\"label\"", escape(card.answer)));
  }
  return element("article", "class=\"card asked\"", out);
}

}  // namespace whence::detail
