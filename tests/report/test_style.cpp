// The page's colours, by the contrast that WCAG 2.2 asks of texts: 4.5.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <map>
#include <string>

#include "whence/report/detail/markup.h"
#include "whence/report/detail/style.h"

using whence::detail::kDarkestShade;
using whence::detail::kStyle;

namespace {

using Colour = std::array<double, 3>;  // 0 .. 255
using Palette = std::map<std::string, Colour>;

/// The variables of the `place`-th :root of the style sheet: light, dark, print.
Palette palette(int place) {
  std::size_t at = 0;
  for (int i = 0; i <= place; ++i) {
    at = kStyle.find(":root {", at) + 1;
  }
  const auto text = std::string(kStyle.substr(at, kStyle.find('}', at) - at));
  Palette out;
  for (auto name = text.find("--"); name != text.npos; name = text.find("--", name + 2)) {
    const auto colon = text.find(": #", name);
    Colour colour{};
    for (std::size_t c = 0; c < 3; ++c) {
      colour[c] = std::stoi(text.substr(colon + 3 + 2 * c, 2), nullptr, 16);
    }
    out[text.substr(name + 2, colon - name - 2)] = colour;
  }
  return out;
}

double luminance(const Colour& colour) {
  const auto linear = [](double c) {
    return c <= 0.04045 * 255 ? c / 255 / 12.92 : std::pow((c / 255 + 0.055) / 1.055, 2.4);
  };
  return 0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2]);
}

double contrast(const Colour& a, const Colour& b) {
  const double x = luminance(a), y = luminance(b);
  return (std::max(x, y) + 0.05) / (std::min(x, y) + 0.05);
}

Colour mixed(const Colour& a, const Colour& b, double share) {
  Colour out{};
  for (std::size_t c = 0; c < 3; ++c) {
    out[c] = share * a[c] + (1 - share) * b[c];
  }
  return out;
}

}  // namespace

TEST_SUITE("report") {
  TEST_CASE("contrast of black on white is 21") { CHECK(contrast({0, 0, 0}, {255, 255, 255}) == doctest::Approx(21)); }

  TEST_CASE("every text can be read, light, dark and printed") {
    for (int place = 0; place < 3; ++place) {
      CAPTURE(place);
      const auto colours = palette(place);
      REQUIRE(colours.size() == 15);
      for (const auto* name : {"text", "soft", "helpful", "harmful", "good", "warning", "bad", "stage-0", "stage-1",
                               "stage-2", "stage-3"}) {
        CAPTURE(name);
        CHECK(contrast(colours.at(name), colours.at("card")) >= 4.5);
        CHECK(contrast(colours.at(name), colours.at("ground")) >= 4.5);
      }
      CHECK(contrast(colours.at("text"), colours.at("warning-ground")) >= 4.5);
      for (const auto* side : {"helpful", "harmful"}) {  // a text on the darkest shade
        CAPTURE(side);
        CHECK(contrast(colours.at("text"), mixed(colours.at(side), colours.at("card"), kDarkestShade / 100)) >= 4.5);
      }
    }
  }
}
