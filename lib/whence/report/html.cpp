#include "whence/report/html.h"

#include <fmt/format.h>

#include <algorithm>

#include "whence/report/detail/markup.h"
#include "whence/report/detail/style.h"

namespace whence {
namespace {

using namespace detail;

std::string verdict(const Page& page) {
  if (page.verdict.value.empty()) {
    return "";
  }
  const auto state = page.verdict.state == Fact::State::kGood  ? "good"
                     : page.verdict.state == Fact::State::kBad ? "bad"
                                                               : "warning";
  return element("p", fmt::format("class=\"verdict {}\" role=\"note\"", state), escape(page.verdict.value));
}

std::string warnings(const Page& page) {
  std::string items;
  for (const auto& warning : page.warnings) {
    items += element("li", "", escape(warning));
  }
  return items.empty() ? "" : element("ul", "class=\"warnings\" role=\"note\" aria-label=\"Warnings\"", items);
}

std::string evaluations(const std::vector<EvaluationSection>& sections) {
  std::string out;
  for (const auto& evaluation : sections) {
    const auto plot = evaluation.plot        ? element("div", "", scatter_svg(*evaluation.plot))
                      : evaluation.intervals ? element("div", "", interval_svg(*evaluation.intervals))
                                             : "";
    const auto figures = element("h3", "", escape(evaluation.title)) + facts(evaluation.figures);
    out += element("section", !plot.empty() ? "class=\"card evaluation\"" : "class=\"card\"",
                   plot + element("div", "", figures));
  }
  return out;
}

/// What the verdict rests on, folded: the page is for the examples.
std::string evidence(const Page& page) {
  auto inside = warnings(page) + evaluations(page.evaluations);
  inside += page.evidence.empty() ? "" : element("section", "class=\"card\"", facts(page.evidence));
  if (inside.empty()) {
    return "";
  }
  const auto count = page.warnings.size();
  const auto told = count == 0 ? std::string() : fmt::format(" ({} warning{})", count, count == 1 ? "" : "s");
  return element("details", "class=\"evidence\"", element("summary", "", "Evidence" + told) + inside);
}

/// Links to the queries, where there are several.
std::string index(const std::vector<QueryCard>& queries) {
  if (queries.size() < 2) {
    return "";
  }
  std::string links;
  for (const auto& card : queries) {
    const auto picture = card.content.image.empty() ? "" : image(card.content.image, "", "");
    links += element("a", fmt::format("href=\"#query-{}\"", card.id), picture + fmt::format("{}", card.id));
  }
  return element("nav", "aria-label=\"Queries\"", links);
}

/// Several results: how far each can be trusted, then the queries with what each says of them, then the prompts.
std::string joined(const std::vector<Page>& results) {
  std::string out, prompts;
  std::size_t queries = 0;
  for (const auto& result : results) {
    out += element("section", "class=\"card result\"",
                   element("h2", "", escape(result.title)) + element("p", "class=\"origin\"", escape(result.subtitle)) +
                       verdict(result) + evidence(result));
    queries = std::max(queries, result.queries.size());
    prompts += result.prompt ? prompt_section(*result.prompt) : "";
  }
  const auto asked = std::find_if(results.begin(), results.end(), [](const Page& at) { return !at.queries.empty(); });
  out += asked == results.end() ? "" : index(asked->queries);
  for (std::size_t query = 0; query < queries; ++query) {
    out += joint_card(results, query);
  }
  return out + prompts;
}

}  // namespace

std::string render_page(const Page& page) {
  auto body = element("header", "", element("h1", "", escape(page.title)) + element("p", "", escape(page.subtitle)));
  body += verdict(page) + evaluations(page.shown) + evidence(page);
  if (!page.queries.empty()) {
    body += index(page.queries) + query_legend(page.words);
    for (const auto& card : page.queries) {
      body += query_card(card, page.words);
    }
  }
  body += joined(page.joined);
  body += suspect_section(page.suspects, page.words);
  if (page.prompt) {
    body += prompt_section(*page.prompt);
  }
  body += element("footer", "", escape(page.footer));
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src "
      "'unsafe-inline'\">\n"
      "<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
      escape(page.title), kStyle, body);
}

}  // namespace whence
