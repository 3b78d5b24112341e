#include <cmath>

#include "report/markup.h"
#include "support/near.h"
#include "whence/core/error.h"
#include "whence/report/detail/text.h"
#include "whence/report/html.h"

using namespace whence;
using whence::detail::escape;
using whence::detail::number;
using whence::test::count;
using whence::test::markup_fault;

namespace {

const std::string kPixel = "data:image/png;base64,AAAA";

ExampleCard example(std::int64_t id, double score) {
  ExampleCard card{id};
  card.origin = "row " + std::to_string(id);
  card.label = "seven";
  card.score = score;
  card.removal = -score / 100;
  card.content.image = kPixel;
  return card;
}

Page full_page() {
  Page page;
  page.title = "Digits";
  page.subtitle = "whence rank";
  page.verdict = {"verdict", "can be trusted: every solve within 1e-6", Fact::State::kGood};
  page.evidence = {{"Solver", "cg", Fact::State::kGood, "converged"}, {"Gradient norm", "0.1", Fact::State::kWarning}};
  page.warnings = {"far from a minimum"};
  EvaluationSection evaluation;
  evaluation.title = "Leave-one-out";
  evaluation.plot = ScatterPlot{"Plot", "x", "y", {{1, 2, "a"}}, true, PlotLine{1, 0}};
  evaluation.figures = {{"Spearman", "0.9"}};
  page.evaluations = {evaluation, {}};
  QueryCard query{12};
  query.facts = {{"predicts", "9 (p 0.93)", Fact::State::kGood}, {"loss", "0.2"}};
  query.origin = "row 12 of test.tsv";
  query.content.image = kPixel;
  query.stages = {{"pretrain", "rows of a.tsv", {example(1, -4)}, {}},
                  {"finetune", "rows of b.tsv", {example(2, -1)}, {example(3, 2)}}};
  page.queries = {query, QueryCard{13}};
  page.queries[1].content = {"", "some text", {{"age", "39", "41"}, {"town", "Bonn", "Bonn"}}};
  return page;
}

/// Every text of a page set to one string.
Page page_of(const std::string& text) {
  Page page;
  page.title = page.subtitle = page.footer = text;
  page.verdict = {"", text, Fact::State::kBad};
  page.evidence = {{text, text, Fact::State::kWarning, text}};
  page.warnings = {text};
  page.evaluations = {{text, ScatterPlot{text, text, text, {{1, 2, text}}}, {{text, text}}}};
  page.words = {text, 1, text, text};
  const Content content{kPixel, text, {{text, text, text}}, {{text, 1}, {text, -1}}};
  QueryCard query{1, text, {{text, text, Fact::State::kBad, text}}, content};
  query.stages = {{text, text, {{2, text, text, 1, 1, content}}, {{3, text, text, {}, 1, content}}}};
  page.queries = {query};
  page.suspects = query.stages;
  page.prompt = {{{1, text, text, 1, {1, -1}, text, true, text}},
                 {{0, text, {{text, text, Fact::State::kBad, text}}, {{1, 1}}, {{1, -1}}}},
                 {1}};
  return page;
}

}  // namespace

TEST_SUITE("report") {
  TEST_CASE("the markup checker finds faults") {
    CHECK(markup_fault("<p class=\"a\">x &amp; y<img src=\"z\"></p>") == "");
    for (const auto* bad : {"<p>", "</p>", "<p><b></p></b>", "<p class=a></p>", "<p class=\"a></p>", "a < b", "a > b",
                            "a & b", "<p class=\"<\"></p>", "<p onclick></p>"}) {
      CAPTURE(bad);
      CHECK(markup_fault(bad) != "");
    }
  }

  TEST_CASE("escape") {
    CHECK(escape("<a href=\"x\" id='y'>&amp;</a>") == "&lt;a href=&quot;x&quot; id=&#39;y&#39;&gt;&amp;amp;&lt;/a&gt;");
    CHECK(escape("Grüße\n\tλ") == "Grüße\n\tλ");
    CHECK(escape(std::string("a\0b\x1b\x7f", 5)) == "a\uFFFDb\uFFFD\uFFFD");
  }

  TEST_CASE("numbers have three digits and a proper sign") {
    CHECK(number(0.12345) == "0.123");
    CHECK(number(-1.25e-5) == "\u22121.25e\u22125");
    CHECK(number(3e-100, true) == "+3e\u2212100");
    CHECK(number(1e20) == "1e+20");
    CHECK(number(-7.5, true) == "\u22127.5");
    CHECK(number(100, true) == "+100");
  }

  TEST_CASE("a full page and an empty one are well formed and need nothing else") {
    for (const auto& page : {full_page(), Page{}}) {
      const auto html = render_page(page);
      CHECK(markup_fault(html) == "");
      CHECK(count(html, "<script") == 0);
      CHECK(count(html, "<link") == 0);
      CHECK(count(html, "@import") == 0);
      CHECK(count(html, "url(") == 0);
      CHECK(count(html, "http") == count(html, "http-equiv") + count(html, "http://www.w3.org/2000/svg"));
      CHECK(count(html, "default-src 'none'") == 1);
    }
  }

  TEST_CASE("several results of the same queries: each with its verdict, a query once, every text escaped") {
    auto first = full_page(), second = full_page();
    first.title = "Examples";
    second.title = "Demonstrations";
    second.verdict = {"verdict", "with care: nobody looked", Fact::State::kWarning};
    second.queries[0].facts = {{"predicts", "9 (p 0.93)"}, {"predicts", "7"}};
    second.prompt = PromptCard{.parts = {{0, "a demonstration", "yes", 1}}, .questions = {}, .drop = {0}};
    second.prompt->anchor = "1-";
    Page regime;  // of no query
    regime.title = "In the regime?";
    Page page;
    page.joined = {first, second, regime};
    const auto html = render_page(page);
    CHECK(markup_fault(html) == "");
    CHECK(count(html, "id=\"query-12\"") == 1);
    CHECK(count(html, "id=\"query-13\"") == 1);
    CHECK(count(html, "some text") == 1);
    CHECK(count(html, "can be trusted: every solve within 1e-6") == 1);
    CHECK(count(html, "with care: nobody looked") == 1);
    CHECK(count(html, "In the regime?") == 1);
    CHECK(count(html, ">9 (p 0.93)<") == 1);  // what both say is told once
    CHECK(count(html, "class=\"of-result\"") == 4);
    CHECK(count(html, "id=\"demonstration-1-0\"") == 1);
    CHECK(count(html, "href=\"#demonstration-1-0\"") == 1);
    const std::string evil = "<b>&\"'</b>";
    Page joined;
    joined.joined = {page_of(evil), page_of(evil)};
    CHECK(markup_fault(render_page(joined)) == "");
    CHECK(count(render_page(joined), "<b>") == 0);
  }

  TEST_CASE("a prompt is shown once, shaded, with what to drop and what was asked") {
    Page page;
    page.prompt = PromptCard{};
    page.prompt->parts = {{0, "fine weather", "good", 0.5, {1, 0}, "suspect +0.1"},
                          {1, "fine day", "bad", -0.25, {-0.5, 0}, "suspect +2", true, "good"},
                          {2, "no score", "good"}};
    page.prompt->questions = {{0, "a fine one", {{"predicts", "bad, 71 %", Fact::State::kBad}}, {{0, 1}}, {{1, -0.5}}},
                              {1, "another"}};
    page.prompt->drop = {1};
    const auto html = render_page(page);
    CHECK(markup_fault(html) == "");
    for (const auto* once :
         {"fine weather", "fine day", "a fine one", "Drop these:", "class=\"badge\"", "the others say good",
          "What was asked", "class=\"demonstration helpful\" id=\"demonstration-0\" style=\"--share:45%\"",
          "class=\"demonstration harmful dropped\" id=\"demonstration-1\" style=\"--share:22%\"",
          "class=\"chip bad\" href=\"#demonstration-1\"", "class=\"chip helpful\" href=\"#demonstration-0\"",
          "class=\"chip harmful\" href=\"#demonstration-1\"", "helpful +0.5", "harmful \u22120.25", "bad, 71 %",
          "title=\"query 0: \u22120.5\""}) {
      CAPTURE(once);
      CHECK(count(html, once) == 1);
    }
    page.prompt->drop.clear();
    CHECK(count(render_page(page), "Drop these") == 0);
  }

  TEST_CASE("a page shows what it is given") {
    const auto html = render_page(full_page());
    CHECK(count(html, "<article") == 2);
    CHECK(count(html, "href=\"#query-12\"") == 1);
    CHECK(count(html, "id=\"query-12\"") == 1);
    CHECK(count(html, "<svg") == 1);
    CHECK(count(html, "class=\"example helpful\"") == 2);
    CHECK(count(html, "class=\"example harmful\"") == 1);
    CHECK(count(html, "loss +0.04<") == 1);  // what leads is the removal; the helpful one's raises the loss
    CHECK(count(html, "score \u22124<") == 1);
    CHECK(count(html, "loss \u22120.02<") == 1);
    CHECK(count(html, ">row 3<") == 1);
    CHECK(count(html, ">rows of b.tsv<") == 1);
    CHECK(count(html, "9 (p 0.93)") == 1);
    CHECK(count(html, "width:100.0%") == 1);  // bars are shares of the query's largest, of all stages
    CHECK(count(html, "width:25.0%") == 1);
    CHECK(count(html, "width:50.0%") == 1);
    CHECK(count(html, "helpful: without it the loss rises") == 1);
    CHECK(count(html, "harmful: without it the loss falls") == 1);
    CHECK(count(html, "class=\"stage stage-0\"") == 1);
    CHECK(count(html, "class=\"stage stage-1\"") == 1);
    CHECK(count(html, "class=\"stages\"") == 1);
    CHECK(count(html, "some text") == 1);
    CHECK(count(html, ">39<") == 1);
    CHECK(count(html, "class=\"beside differs\">41<") == 1);
    CHECK(count(html, "class=\"beside\">Bonn<") == 1);
  }

  TEST_CASE("the verdict stands first, and what it rests on is folded under it") {
    const auto html = render_page(full_page());
    const auto verdict = html.find("class=\"verdict good\" role=\"note\">can be trusted: every solve within 1e-6<");
    const auto folded = html.find("<details class=\"evidence\">");
    REQUIRE(verdict != html.npos);
    REQUIRE(folded != html.npos);
    CHECK(verdict < folded);
    CHECK(html.substr(0, verdict).find("class=\"fact") == html.npos);
    const auto end = html.find("</details>", folded);
    for (const char* told : {"far from a minimum", "Leave-one-out", "Gradient norm", "<svg"}) {
      CAPTURE(told);
      CHECK(html.find(told) > folded);
      CHECK(html.find(told) < end);
    }
    CHECK(count(html, "Evidence (1 warning)") == 1);
    auto bad = full_page();
    bad.verdict.state = Fact::State::kBad;
    CHECK(count(render_page(bad), "class=\"verdict bad\"") == 1);
    CHECK(count(render_page(Page{}), "class=\"verdict") == 0);
  }

  TEST_CASE("of a log-probability the helpful ones' removal lowers it, in the same blue") {
    auto page = full_page();
    page.words = {"log-probability", 1, "helpful", "harmful"};
    auto card = example(1, 4);
    card.content = {.tokens = {{"up", 1}, {"down", -1}}};
    page.queries[0].stages = {{"", "", {card}, {}}};
    const auto html = render_page(page);
    CHECK(count(html, "helpful: without it the log-probability falls") == 1);
    CHECK(count(html, "log-probability \u22120.04<") == 1);
    CHECK(count(html, "<span class=\"helpful\" style=\"--share:45%\" title=\"+1\">up</span>") == 1);
    CHECK(count(html, "<span class=\"harmful\" style=\"--share:45%\" title=\"\u22121\">down</span>") == 1);
    page.words = {"loss", -1, "helpful", "harmful"};
    CHECK(count(render_page(page), "<span class=\"harmful\" style=\"--share:45%\" title=\"+1\">up</span>") == 1);
  }

  TEST_CASE("without a predicted removal the score leads, and no removal is told") {
    auto page = full_page();
    for (auto& stage : page.queries[0].stages) {
      for (auto* list : {&stage.helpful, &stage.harmful}) {
        for (auto& card : *list) {
          card.removal.reset();
        }
      }
    }
    const auto html = render_page(page);
    CHECK(count(html, "class=\"score\">score \u22124<") == 1);
    CHECK(count(html, "class=\"raw\"") == 0);
    CHECK(count(html, "loss +") == 0);
  }

  TEST_CASE("a long text unfolds, whole and at a character's border") {
    auto page = full_page();
    std::string text;
    while (text.size() < 1000) {
      text += "Grüße ";
    }
    page.queries[1].content = {.text = text};
    auto html = render_page(page);
    const std::string open = "<details class=\"text\"><summary>";
    REQUIRE(count(html, open) == 1);
    auto begin = html.find(open) + open.size();
    const auto middle = html.find("</summary>", begin);
    CHECK(html.substr(begin, middle - begin) +
              html.substr(middle + 10, html.find("</details>", middle) - middle - 10) ==
          text);
    page.queries[1].content = {.text = std::string(300, 'x')};
    CHECK(count(render_page(page), "<p class=\"text\">xxx") == 1);  // not worth folding
    std::vector<std::pair<std::string, double>> tokens(200, {"word ", 0.5});
    page.queries[1].content = {.tokens = tokens};
    html = render_page(page);
    CHECK(count(html, "<details class=\"text tokens\"><summary>") == 1);
    CHECK(count(html, ">word </span>") == 200);
  }

  TEST_CASE("one stage needs no name, one query no index") {
    auto page = full_page();
    page.queries.pop_back();
    page.queries[0].stages = {{"", "", {example(1, -4)}, {}}};
    const auto html = render_page(page);
    CHECK(count(html, "class=\"stage ") == 0);
    CHECK(count(html, "class=\"stages\"") == 0);
    CHECK(count(html, "<nav") == 0);
    CHECK(count(html, ">none<") == 1);
  }

  TEST_CASE("no text can become markup") {
    for (const std::string bad :
         {"<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'-->&<![CDATA[", "</style></title>"}) {
      CAPTURE(bad);
      const auto html = render_page(page_of(bad));
      CHECK(markup_fault(html) == "");
      CHECK(count(html, bad) == 0);
      CHECK(count(html, escape(bad)) >= 20);
      CHECK(count(html, "<script") == 0);
    }
  }

  TEST_CASE("an image must be data") {
    for (const std::string bad : {"https://example.org/x.png", "javascript:alert(1)", "data:text/html,x", "x.png"}) {
      auto page = full_page();
      page.queries[0].stages[1].harmful[0].content.image = bad;
      CHECK_THROWS_AS(render_page(page), InvalidArgument);
    }
  }

  TEST_CASE("scores of zero draw empty bars") {
    auto page = full_page();
    page.queries[0].stages = {{"", "", {example(1, 0)}, {}}};
    CHECK(count(render_page(page), "width:0.0%") == 1);
  }
}
