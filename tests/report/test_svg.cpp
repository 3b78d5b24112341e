#include <cmath>
#include <limits>

#include "report/markup.h"
#include "support/near.h"
#include "whence/report/interval_svg.h"
#include "whence/report/svg.h"

using namespace whence;
using whence::test::count;
using whence::test::markup_fault;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();

ScatterPlot plot(std::vector<ScatterPoint> points) { return {"Title", "x", "y", std::move(points), false, {}}; }

/// The numbers of one attribute, in order of appearance.
std::vector<double> attribute(const std::string& svg, const std::string& name) {
  std::vector<double> out;
  const auto key = " " + name + "=\"";
  for (auto at = svg.find(key); at != svg.npos; at = svg.find(key, at + 1)) {
    out.push_back(std::stod(svg.substr(at + key.size())));
  }
  return out;
}

}  // namespace

TEST_SUITE("report") {
  TEST_CASE("points lie where their values say") {
    const auto svg = scatter_svg(plot({{0, 0, "a"}, {1, 10, "b"}, {2, 5, "c"}}));
    CHECK(markup_fault(svg) == "");
    const auto x = attribute(svg, "cx"), y = attribute(svg, "cy");
    REQUIRE(x.size() == 3);
    CHECK(x[1] - x[0] == doctest::Approx(x[2] - x[1]).epsilon(0.01));
    CHECK(x[0] < x[1]);
    CHECK(y[0] > y[2]);  // upwards is smaller
    CHECK(y[0] - y[2] == doctest::Approx(y[2] - y[1]).epsilon(0.01));
    CHECK(count(svg, "<title>a\n(0, 0)</title>") == 1);
    for (const auto* tick : {">0.5<", ">1<", ">1.5<", ">2<", ">4<", ">10<"}) {
      CAPTURE(tick);
      CHECK(count(svg, tick) >= 1);
    }
  }

  TEST_CASE("a title or label cannot become markup") {
    const std::string bad = "</title><script>&\"'";
    const auto svg = scatter_svg({bad, bad, bad, {{1, 2, bad}}, true, PlotLine{1, 1}});
    CHECK(markup_fault(svg) == "");
    CHECK(count(svg, "<script") == 0);
  }

  TEST_CASE("no point, one point, equal values, far and tiny values all give a finite plot") {
    const std::vector<std::vector<ScatterPoint>> cases{
        {},
        {{3, -2, ""}},
        {{0, 0, ""}},
        {{5, 1, ""}, {5, 2, ""}},
        {{1, 7, ""}, {2, 7, ""}},
        {{1, 0.1, ""}, {1 + 1e-15, 0.1, ""}},
        {{-1e300, 1e-300, ""}, {1e300, 2e-300, ""}},
        {{5e-324, 1e9, ""}, {0, 1e9 + 1, ""}},
    };
    for (const auto& points : cases) {
      auto drawn = plot(points);
      drawn.identity = true;
      drawn.regression = PlotLine{2, -1};
      const auto svg = scatter_svg(drawn);
      CAPTURE(svg);
      CHECK(markup_fault(svg) == "");
      CHECK(count(svg, "nan") == 0);  // no number is NaN or infinite
      CHECK(count(svg, "inf") == 0);
      CHECK(count(svg, "<circle") == points.size());
      CHECK(count(svg, "<line") >= 6);
      CHECK(count(svg, "<line") <= 40);
      for (const auto* name : {"cx", "cy", "x1", "x2", "y1", "y2"}) {
        for (const double pixel : attribute(svg, name)) {
          CHECK(pixel >= 0);
          CHECK(pixel <= 520);
        }
      }
    }
  }

  TEST_CASE("ticks of near values can be told apart") {
    const auto svg = scatter_svg(plot({{1000, 0, ""}, {1000.05, 1, ""}}));
    for (const auto* tick : {">1000<", ">1000.01<", ">1000.04<"}) {
      CAPTURE(tick);
      CHECK(count(svg, tick) == 1);
    }
  }

  TEST_CASE("points that are not finite are left out and counted") {
    const auto svg =
        scatter_svg(plot({{1, 1, ""}, {kNan, 1, ""}, {1, kInfinity, ""}, {-kInfinity, kNan, ""}, {2, 2, ""}}));
    CHECK(count(svg, "<circle") == 2);
    CHECK(count(svg, "3 of 5 points not finite, left out") == 1);
    CHECK(count(scatter_svg(plot({{1, 1, ""}})), "left out") == 0);
  }

  TEST_CASE("lines are cut at the frame and left out where none of them is inside") {
    auto drawn = plot({{0, 0, ""}, {1, 1, ""}});
    const auto without = count(scatter_svg(drawn), "<line");
    drawn.identity = true;
    CHECK(count(scatter_svg(drawn), "<line") == without + 1);
    CHECK(count(scatter_svg(drawn), "dashed: y = x") == 1);
    drawn.identity = false;
    for (const auto& [regression, shown] : std::vector<std::pair<PlotLine, std::size_t>>{
             {{1, 0}, 1}, {{-1, 1}, 1}, {{0, 0.5}, 1}, {{0, 5}, 0}, {{1, 9}, 0}, {{kNan, 0}, 0}, {{1, kInfinity}, 0}}) {
      CAPTURE(regression.slope);
      CAPTURE(regression.intercept);
      drawn.regression = regression;
      CHECK(count(scatter_svg(drawn), "<line") == without + shown);
    }
  }

  TEST_CASE("an interval lies around its value, the ceiling beyond all of them, and what is not finite is left out") {
    const auto svg = interval_svg(
        {"Title", "LDS", {{"first & best", 0.7, 0.6, 0.8}, {"wide", 0.1, kNan, 0.2}, {"none", kNan, 0, 1}}, 0.9});
    CHECK(markup_fault(svg) == "");
    CHECK(count(svg, "first &amp; best") == 2);  // beside its line and under the pointer
    CHECK(count(svg, ">none<") == 0);
    const auto middle = attribute(svg, "cx");
    REQUIRE(middle.size() == 2);
    const auto line = svg.substr(svg.find("stroke-width=\"2\"") - 80, 80);
    CHECK(attribute(line, "x1").front() < middle[0]);
    CHECK(attribute(line, "x2").front() > middle[0]);
    CHECK(count(svg, "stroke-width=\"2\"") == 1);
    const auto dashed = svg.substr(svg.find("stroke-dasharray") - 120, 120);
    CHECK(attribute(dashed, "x1").back() > attribute(line, "x2").front());
    CHECK(middle[1] < middle[0]);
    CHECK(count(interval_svg({"Title", "x", {{"a", 1, 0, 2}}, {}}), "dashed") == 0);
    CHECK(markup_fault(interval_svg({})) == "");
  }
}
