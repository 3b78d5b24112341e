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

ExampleCard example(std::int64_t id, const std::string& stage, double score) {
  ExampleCard card{id};
  card.stage = stage;
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
  page.evidence = {{"Solver", "cg", Fact::State::kGood, "converged"}, {"Gradient norm", "0.1", Fact::State::kWarning}};
  page.warnings = {"far from a minimum"};
  EvaluationSection evaluation;
  evaluation.title = "Leave-one-out";
  evaluation.plot = ScatterPlot{"Plot", "x", "y", {{1, 2, "a"}}, true, PlotLine{1, 0}};
  evaluation.figures = {{"Spearman", "0.9"}};
  page.evaluations = {evaluation, {}};
  QueryCard query{12};
  query.label = "label 7";
  query.measurement = "loss 0.2";
  query.content.image = kPixel;
  query.proponents = {example(1, "pretrain", 4), example(2, "finetune", 1)};
  query.opponents = {example(3, "finetune", -2)};
  page.queries = {query, QueryCard{13}};
  page.queries[1].content = {"", "some text", {{"age", "39"}}};
  return page;
}

/// Every text of a page set to one string.
Page page_of(const std::string& text) {
  Page page;
  page.title = page.subtitle = text;
  page.evidence = {{text, text, Fact::State::kWarning, text}};
  page.warnings = {text};
  page.evaluations = {{text, ScatterPlot{text, text, text, {{1, 2, text}}}, {{text, text}}}};
  QueryCard query{1, text, text, {kPixel, text, {{text, text}}}};
  query.proponents = {{2, text, text, 1, 1, {kPixel, text, {{text, text}}}}, {3, text + "2", text}};
  page.queries = {query};
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

  TEST_CASE("a page shows what it is given") {
    const auto html = render_page(full_page());
    CHECK(count(html, "<article") == 2);
    CHECK(count(html, "href=\"#query-12\"") == 1);
    CHECK(count(html, "id=\"query-12\"") == 1);
    CHECK(count(html, "<svg") == 1);
    CHECK(count(html, "class=\"example up\"") == 2);
    CHECK(count(html, "class=\"example down\"") == 1);
    CHECK(count(html, "+4<") == 1);
    CHECK(count(html, "left out \u22120.04<") == 1);
    CHECK(count(html, "width:100.0%") == 1);  // bars are shares of the query's largest score
    CHECK(count(html, "width:25.0%") == 1);
    CHECK(count(html, "width:50.0%") == 1);
    CHECK(count(html, "class=\"good\"") == 1);
    CHECK(count(html, "class=\"warning\"") == 1);
    CHECK(count(html, "far from a minimum") == 1);
    CHECK(count(html, "positive: more of this example raises the measurement") == 1);
    CHECK(count(html, "class=\"stage stage-0\"") == 2);  // pretrain: one card and the legend
    CHECK(count(html, "class=\"stage stage-1\"") == 3);
    CHECK(count(html, "some text") == 1);
    CHECK(count(html, ">39<") == 1);
  }

  TEST_CASE("one stage needs no legend of stages, one query no index") {
    auto page = full_page();
    page.queries.pop_back();
    page.queries[0].proponents.pop_back();
    page.queries[0].opponents.clear();
    const auto html = render_page(page);
    CHECK(count(html, "stages: ") == 0);
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
      page.queries[0].opponents[0].content.image = bad;
      CHECK_THROWS_AS(render_page(page), InvalidArgument);
    }
  }

  TEST_CASE("scores of zero draw empty bars") {
    auto page = full_page();
    page.queries[0].proponents = {example(1, "", 0)};
    page.queries[0].opponents.clear();
    CHECK(count(render_page(page), "width:0.0%") == 1);
  }
}
