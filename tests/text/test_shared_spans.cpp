#include <doctest/doctest.h>

#include <random>

#include "whence/text/shared_spans.h"

using namespace whence;

namespace {

std::vector<std::string> texts_of(const std::string& query, const std::string& text, std::size_t least,
                                  std::size_t most = 3) {
  std::vector<std::string> out;
  for (const auto& span : shared_spans(query, text, least, most)) {
    out.push_back(text.substr(span.begin, span.end - span.begin));
  }
  return out;
}
using Texts = std::vector<std::string>;

}  // namespace

TEST_SUITE("text") {
  TEST_CASE("shared spans: the longest runs of words that a query has too, where they stand") {
    const std::string query = "who wrote the Origin of Species in 1859?";
    CHECK(texts_of(query, "Darwin wrote  the origin of\nspecies, and later the Descent of Man", 3) ==
          Texts{"wrote  the origin of"});
    CHECK(texts_of(query, "of Species in 1859? Yes: who wrote the book", 3) ==
          Texts{"of Species in 1859?", "who wrote the"});
    CHECK(texts_of(query, "of Species in 1859? Yes: who wrote the book", 3, 1) == Texts{"of Species in 1859?"});
    CHECK(texts_of(query, query, 4) == Texts{query});
    CHECK(texts_of(query, "nothing of it", 2).empty());
    CHECK(texts_of("", "a b c", 1).empty());
    CHECK(texts_of("a b c", "", 1).empty());
  }

  TEST_CASE("shared spans: the longest is as long as trying every pair of places finds") {
    std::mt19937 random(5);
    for (int round = 0; round < 300; ++round) {
      const auto letters = [&](int count) {
        std::string out;
        for (int i = 0; i < count; ++i) {
          out += (i > 0 ? " " : "") + std::string(1, static_cast<char>('a' + random() % 3));
        }
        return out;
      };
      const auto query = letters(12), text = letters(15);
      std::size_t longest = 0;
      for (std::size_t i = 0; i < text.size(); i += 2) {
        for (std::size_t j = 0; j < query.size(); j += 2) {
          std::size_t same = 0;
          while (i + 2 * same < text.size() && j + 2 * same < query.size() &&
                 text[i + 2 * same] == query[j + 2 * same]) {
            ++same;
          }
          longest = std::max(longest, same);
        }
      }
      CAPTURE(query);
      CAPTURE(text);
      const auto spans = shared_spans(query, text, 1, 1);
      REQUIRE(spans.size() == (longest > 0 ? 1 : 0));
      if (longest > 0) {
        CHECK(spans[0].words == longest);
        CHECK(query.find(text.substr(spans[0].begin, spans[0].end - spans[0].begin)) != std::string::npos);
      }
    }
  }
}
