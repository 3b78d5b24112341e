#include "whence/report/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/error.h"
#include "whence/report/detail/style.h"
#include "whence/report/detail/text.h"

namespace whence {
namespace {

using detail::escape;
using detail::number;

constexpr std::size_t kStageColours = 4;

/// <name attributes>content</name>, the content being markup.
std::string element(std::string_view name, std::string_view attributes, std::string_view content) {
  return fmt::format("<{0}{1}{2}>{3}</{0}>\n", name, attributes.empty() ? "" : " ", attributes, content);
}

/// The distinct names of the examples' stages, in order of first appearance: a stage's place is its colour.
std::vector<std::string> stages_of(const Page& page) {
  std::vector<std::string> stages;
  for (const auto& query : page.queries) {
    for (const auto* list : {&query.proponents, &query.opponents}) {
      for (const auto& example : *list) {
        if (!example.stage.empty() && std::find(stages.begin(), stages.end(), example.stage) == stages.end()) {
          stages.push_back(example.stage);
        }
      }
    }
  }
  return stages;
}

/// A card's parts, given what all cards of the page share.
class Renderer {
 public:
  explicit Renderer(const Page& page) : page_(page), stages_(stages_of(page)) {}
  std::string document() const;

 private:
  std::string evidence() const;
  std::string warnings() const;
  std::string legend() const;
  std::string evaluations() const;
  std::string index() const;
  std::string query(const QueryCard& card) const;
  std::string side(const QueryCard& card, std::string_view title, const std::vector<ExampleCard>& examples) const;
  std::string example(const ExampleCard& card, double largest) const;
  std::string stage_mark(const std::string& stage) const;
  std::string prompt(const PromptCard& card) const;
  static std::string prompt_legend();

  const Page& page_;
  std::vector<std::string> stages_;
};

std::string_view state_class(Fact::State state) {
  switch (state) {
    case Fact::State::kGood:
      return "class=\"good\"";
    case Fact::State::kWarning:
      return "class=\"warning\"";
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

std::string_view sign_class(double score) { return score < 0 ? "down" : "up"; }

std::string content(const Content& shown, const std::string& description) {
  std::string out;
  if (!shown.image.empty()) {
    out += image(shown.image, "class=\"picture\" ", description);
  }
  if (!shown.text.empty()) {
    out += element("p", "class=\"text\"", escape(shown.text));
  }
  if (!shown.tokens.empty()) {
    double largest = 1e-300;
    for (const auto& [text, value] : shown.tokens) {
      largest = std::max(largest, std::abs(value));
    }
    std::string spans;
    for (const auto& [text, value] : shown.tokens) {
      spans += fmt::format("<span class=\"{}\" style=\"--share:{:.0f}%\" title=\"{}\">{}</span>", sign_class(value),
                           70 * std::abs(value) / largest, number(value, true), escape(text));
    }
    out += element("p", "class=\"text tokens\"", spans);
  }
  if (!shown.values.empty()) {
    std::string rows;
    for (const auto& [name, value] : shown.values) {
      rows += element("tr", "", element("th", "scope=\"row\"", escape(name)) + element("td", "", escape(value)));
    }
    out += element("table", "class=\"values\"", element("tbody", "", rows));
  }
  return out;
}

std::string Renderer::stage_mark(const std::string& stage) const {
  const auto place = static_cast<std::size_t>(std::find(stages_.begin(), stages_.end(), stage) - stages_.begin());
  return element("span", fmt::format("class=\"stage stage-{}\"", place % kStageColours), escape(stage));
}

std::string Renderer::example(const ExampleCard& card, double largest) const {
  const double share = largest > 0 ? std::abs(card.score) / largest : 0;
  auto origin = element("span", "", fmt::format("#{}", card.id));
  if (!card.stage.empty()) {
    origin += stage_mark(card.stage);
  }
  auto out = content(card.content, fmt::format("Example {}", card.id));
  out += card.label.empty() ? "" : element("div", "class=\"label\"", escape(card.label));
  out += element("div", "class=\"origin\"", origin);
  out += element("div", "class=\"score\"", number(card.score, true));
  out += element("div", "class=\"bar\"", element("span", fmt::format("style=\"width:{:.1f}%\"", 100 * share), ""));
  out += element("div", "class=\"removal\"", fmt::format("left out {}", number(card.removal, true)));
  return element("li", fmt::format("class=\"example {}\"", sign_class(card.score)), out);
}

std::string Renderer::side(const QueryCard& card, std::string_view title,
                           const std::vector<ExampleCard>& examples) const {
  double largest = 0;
  for (const auto* list : {&card.proponents, &card.opponents}) {
    for (const auto& shown : *list) {
      largest = std::max(largest, std::abs(shown.score));
    }
  }
  const bool wide = std::any_of(examples.begin(), examples.end(), [](const ExampleCard& shown) {
    return !shown.content.text.empty() || !shown.content.tokens.empty() || !shown.content.values.empty();
  });
  std::string items;
  for (const auto& shown : examples) {
    items += example(shown, largest);
  }
  const auto list = items.empty() ? element("p", "class=\"none\"", "none")
                                  : element("ol", wide ? "class=\"examples wide\"" : "class=\"examples\"", items);
  return element("section", "class=\"side\"", element("h3", "", title) + list);
}

std::string Renderer::query(const QueryCard& card) const {
  auto subject = element("h2", "", fmt::format("Query #{}", card.id));
  subject += content(card.content, fmt::format("Query {}", card.id));
  subject += card.label.empty() ? "" : element("div", "class=\"label\"", escape(card.label));
  subject += card.measurement.empty() ? "" : element("div", "class=\"measurement\"", escape(card.measurement));
  const auto sides = side(card, "Proponents: more of these raises the measurement", card.proponents) +
                     side(card, "Opponents: more of these lowers the measurement", card.opponents);
  return element("article", fmt::format("class=\"query card\" id=\"query-{}\"", card.id),
                 element("div", "class=\"subject\"", subject) + element("div", "", sides));
}

std::string Renderer::prompt_legend() {
  return element("ul", "class=\"legend\"",
                 element("li", "", "<span class=\"key up\"></span>positive: the demonstration helps the answer") +
                     element("li", "", "<span class=\"key down\"></span>negative: it hurts"));
}

std::string Renderer::prompt(const PromptCard& card) const {
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
                     fmt::format("class=\"demonstration {}\" style=\"--share:{:.0f}%\"", sign_class(part.score),
                                 45 * std::abs(part.score) / largest),
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

std::string Renderer::evidence() const {
  return page_.evidence.empty()
             ? ""
             : element("h2", "", "Evidence") + element("section", "class=\"card\"", facts(page_.evidence));
}

std::string Renderer::warnings() const {
  std::string items;
  for (const auto& warning : page_.warnings) {
    items += element("li", "", escape(warning));
  }
  return items.empty() ? "" : element("ul", "class=\"warnings\" role=\"note\" aria-label=\"Warnings\"", items);
}

std::string Renderer::legend() const {
  auto items = element("li", "", "<span class=\"key up\"></span>positive: more of this example raises the measurement");
  items += element("li", "", "<span class=\"key down\"></span>negative: more of it lowers the measurement");
  items += element("li", "", "\u201cleft out\u201d: predicted change of the measurement without the example");
  if (stages_.size() > 1) {
    std::string marks;
    for (const auto& stage : stages_) {
      marks += stage_mark(stage);
    }
    items += element("li", "", "stages: " + marks);
  }
  return element("ul", "class=\"legend\"", items);
}

std::string Renderer::evaluations() const {
  std::string out;
  for (const auto& evaluation : page_.evaluations) {
    const auto plot = evaluation.plot ? element("div", "", scatter_svg(*evaluation.plot)) : "";
    const auto figures = element("h3", "", escape(evaluation.title)) + facts(evaluation.figures);
    out += element("section", evaluation.plot ? "class=\"card evaluation\"" : "class=\"card\"",
                   plot + element("div", "", figures));
  }
  return out.empty() ? "" : element("h2", "", "Against the truth") + out;
}

/// Links to the queries, where there are several.
std::string Renderer::index() const {
  if (page_.queries.size() < 2) {
    return "";
  }
  std::string links;
  for (const auto& card : page_.queries) {
    const auto picture = card.content.image.empty() ? "" : image(card.content.image, "", "");
    links += element("a", fmt::format("href=\"#query-{}\"", card.id), picture + fmt::format("#{}", card.id));
  }
  return element("nav", "aria-label=\"Queries\"", links);
}

std::string Renderer::document() const {
  auto body = element("header", "", element("h1", "", escape(page_.title)) + element("p", "", escape(page_.subtitle)));
  body += warnings() + evidence() + evaluations();
  if (!page_.queries.empty()) {
    body += element("h2", "", "Strongest examples") + index() + legend();
    for (const auto& card : page_.queries) {
      body += query(card);
    }
  }
  if (!page_.prompts.empty()) {
    body += element("h2", "", "The prompt") + prompt_legend();
    for (const auto& card : page_.prompts) {
      body += prompt(card);
    }
  }
  body += element("footer", "", escape(page_.footer));
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src "
      "'unsafe-inline'\">\n"
      "<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
      escape(page_.title), detail::kStyle, body);
}

}  // namespace

std::string render_page(const Page& page) { return Renderer(page).document(); }

}  // namespace whence
