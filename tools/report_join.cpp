#include "report_join.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "whence/core/error.h"

namespace whence::cli {
namespace {

/// The words of a text as tokenizers may hand them back: in small letters (ASCII's), one space between them and around.
std::string words_of(const std::string& text) {
  std::string out = " ";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool space = c == ' ' || (byte >= '\t' && byte <= '\r');
    if (!space) {
      out += byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte - 'A' + 'a') : c;
    } else if (out.back() != ' ') {
      out += ' ';
    }
  }
  return out.back() == ' ' ? out : out + ' ';
}

std::string text_of(const Content& content) {
  std::string text = content.text;
  for (const auto& [token, score] : content.tokens) {
    text += token;
  }
  return text;
}

bool equal(const Content& a, const Content& b) {
  const auto text_a = text_of(a), text_b = text_of(b);
  if (!text_a.empty() || !text_b.empty()) {
    return words_of(text_a) == words_of(text_b);
  }
  if (a.image.empty() && a.cells.empty()) {
    return false;  // nothing is shown of it, by which it could be told
  }
  return a.image == b.image &&
         std::equal(a.cells.begin(), a.cells.end(), b.cells.begin(), b.cells.end(),
                    [](const Cell& x, const Cell& y) { return x.name == y.name && x.value == y.value; });
}

/// The only query that is `wanted`: equal to it, of several the one of its id; or, where none is, the same by another
/// template. Throws InvalidArgument where several are equal and none or more than one is of its id.
std::optional<std::size_t> find(const JoinedResult& result, const QueryCard& wanted) {
  const auto& queries = result.page.queries;
  std::vector<std::size_t> alike, same;
  for (std::size_t i = 0; i < queries.size(); ++i) {
    if (equal(queries[i].content, wanted.content)) {
      alike.push_back(i);
    } else if (same_query(queries[i].content, wanted.content)) {
      same.push_back(i);
    }
  }
  if (alike.size() > 1) {
    const auto of_id = [&](std::size_t i) { return queries[i].id == wanted.id; };
    if (std::count_if(alike.begin(), alike.end(), of_id) == 1) {
      return *std::find_if(alike.begin(), alike.end(), of_id);
    }
    throw InvalidArgument(
        fmt::format("{}: its queries {} and {} are equal, and no id tells which is query {}: leave "
                    "out one of them",
                    result.name, queries[alike[0]].id, queries[alike[1]].id, wanted.id));
  }
  const auto& found = alike.empty() ? same : alike;
  return found.size() == 1 ? std::optional(found.front()) : std::nullopt;
}

}  // namespace

bool same_query(const Content& a, const Content& b) {
  if (equal(a, b)) {
    return true;
  }
  const auto words_a = words_of(text_of(a)), words_b = words_of(text_of(b));
  const auto& [shorter, longer] =
      std::minmax(words_a, words_b, [](const std::string& x, const std::string& y) { return x.size() < y.size(); });
  return shorter.size() > 1 && longer.find(shorter) != longer.npos;
}

Page join(std::vector<JoinedResult> results) {
  const auto first =
      std::find_if(results.begin(), results.end(), [](const JoinedResult& at) { return !at.of_no_query; });
  for (const auto& result : results) {
    const bool belongs = !result.of_no_query || std::any_of(results.begin(), results.end(), [&](const auto& other) {
      return !other.of_no_query && other.pipeline == result.pipeline;
    });
    if (!belongs) {
      throw InvalidArgument(
          fmt::format("{} is of no query, and none of the others is of its pipeline: report it alone", result.name));
    }
  }
  std::vector<std::vector<QueryCard>> kept(results.size());
  for (const auto& query : first->page.queries) {
    std::vector<std::size_t> at(results.size());
    bool everywhere = true;
    for (std::size_t r = 0; r < results.size() && everywhere; ++r) {
      if (!results[r].of_no_query) {
        const auto found = find(results[r], query);
        everywhere = found.has_value();
        at[r] = found.value_or(0);
      }
    }
    for (std::size_t r = 0; r < results.size() && everywhere; ++r) {
      if (!results[r].of_no_query) {
        kept[r].push_back(results[r].page.queries[at[r]]);
      }
    }
  }
  const auto other = [&] {  // the first that shares no query with the first one, else any other
    auto last = results.end();
    for (auto at = results.begin(); at != results.end(); ++at) {
      if (at == first || at->of_no_query) {
        continue;
      }
      last = at;
      const auto& queries = first->page.queries;
      if (std::none_of(queries.begin(), queries.end(), [&](const QueryCard& query) { return find(*at, query); })) {
        break;
      }
    }
    return last;
  };
  if (kept[static_cast<std::size_t>(first - results.begin())].empty()) {
    const auto at = other();
    throw InvalidArgument(
        at == results.end() ? fmt::format("{} has no query: report each result alone", first->name)
                            : fmt::format("{} and {} are of no query in common ({} and {} of them): expected results "
                                          "of the same query, told by its text",
                                          first->name, at->name, first->page.queries.size(), at->page.queries.size()));
  }
  Page page;
  const auto shown = kept[static_cast<std::size_t>(first - results.begin())].size();
  page.title = fmt::format("What is behind the answer{} to {}", shown == 1 ? "" : "s",
                           shown == 1 ? "one query" : fmt::format("{} queries", shown));
  page.subtitle = fmt::format("{} results of the same quer{}", results.size(), shown == 1 ? "y" : "ies");
  page.footer = "Made by whence. Each result has a scale of its own: what its scores are is told in its evidence.";
  for (std::size_t r = 0; r < results.size(); ++r) {
    auto& part = results[r].page;
    if (const auto had = part.queries.size(); had > kept[r].size()) {
      part.subtitle += fmt::format("; of its {} queries {} are asked of every result here", had, kept[r].size());
    }
    part.queries = std::move(kept[r]);
    if (part.prompt) {
      part.prompt->title = "The prompt of " + results[r].name;
      part.prompt->anchor = fmt::format("{}-", r);
      part.prompt->questions.clear();  // shown once, with what the others say of them
    }
    page.joined.push_back(std::move(part));
  }
  return page;
}

}  // namespace whence::cli
