#include "whence/report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>

#include "whence/report/detail/text.h"
#include "whence/report/interval_svg.h"

namespace whence {
namespace {

using detail::escape;

constexpr double kWidth = 520, kHeight = 440, kRight = 20, kTop = 44, kBottom = 62;
constexpr double kTickTarget = 6, kDigitWidth = 7.2;
constexpr std::string_view kPointColour = "#7a64d8", kLineColour = "#0d8577";

constexpr std::string_view kNoteStyle = "font-size=\"11\" fill-opacity=\"0.7\"";

/// Beyond these a range of two values overflows; NaN is not plottable either.
bool plottable(double value) { return std::abs(value) <= 1e300; }
bool plottable(const ScatterPoint& point) { return plottable(point.x) && plottable(point.y); }

/// One direction of the plot: an interval of values laid on pixels, and its ticks at multiples of 1, 2 or 5 times a
/// power of ten.
class Axis {
 public:
  Axis(double low, double high, double first_pixel, double last_pixel)
      : first_pixel_(first_pixel), last_pixel_(last_pixel) {
    const double size = std::max(std::abs(low), std::abs(high));
    if (high - low <= std::max(1e-290, 1e-12 * size)) {  // one value, or too close to tell apart
      const double room = size > 1e-290 ? size / 2 : 1;
      low -= room;
      high += room;
    }
    const double margin = (high - low) * 0.05;
    low_ = low - margin;
    high_ = high + margin;
    step_ = nice_step((high_ - low_) / kTickTarget);
    for (double k = std::ceil(low_ / step_); k * step_ <= high_; ++k) {
      ticks_.push_back(k * step_);
    }
  }

  double low() const { return low_; }
  double high() const { return high_; }
  const std::vector<double>& ticks() const { return ticks_; }
  double pixel(double value) const {
    return first_pixel_ + (value - low_) / (high_ - low_) * (last_pixel_ - first_pixel_);
  }

  /// Digits enough to tell neighbouring ticks apart.
  std::string text(double tick) const {
    const double size = std::max(std::abs(low_), std::abs(high_));
    const auto digits = static_cast<int>(std::ceil(std::log10(size / step_))) + 1;
    return detail::tidy_number(fmt::format("{:.{}g}", tick, std::clamp(digits, 1, 16)));
  }

  /// Characters of the longest tick text.
  std::int64_t widest_text() const {
    std::int64_t widest = 0;
    for (const double tick : ticks_) {
      const auto shown = text(tick);
      const auto starts_character = [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; };
      widest = std::max<std::int64_t>(widest, std::count_if(shown.begin(), shown.end(), starts_character));
    }
    return widest;
  }

 private:
  static double nice_step(double raw) {
    const double power = std::pow(10, std::floor(std::log10(raw)));
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor * power >= raw) {
        return factor * power;
      }
    }
    return 10 * power;
  }

  double first_pixel_, last_pixel_, low_ = 0, high_ = 0, step_ = 0;
  std::vector<double> ticks_;
};

template <class Field>
std::pair<double, double> range(const std::vector<ScatterPoint>& points, Field field) {
  if (points.empty()) {
    return {0, 1};
  }
  const auto [low, high] = std::minmax_element(points.begin(), points.end(),
                                               [&](const auto& a, const auto& b) { return a.*field < b.*field; });
  return {(*low).*field, (*high).*field};
}

std::string text(double x, double y, std::string_view attributes, std::string_view content) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, attributes, escape(content));
}

std::string segment(double x1, double y1, double x2, double y2, std::string_view attributes) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1, x2, y2,
                     attributes);
}

std::string frame(const ScatterPlot& plot, const Axis& x, const Axis& y) {
  constexpr std::string_view kGrid = "stroke=\"currentColor\" stroke-opacity=\"0.13\"";
  const double left = x.pixel(x.low()), right = kWidth - kRight, bottom = kHeight - kBottom;
  std::string out;
  for (const double tick : x.ticks()) {
    out += segment(x.pixel(tick), kTop, x.pixel(tick), bottom, kGrid);
    out += text(x.pixel(tick), bottom + 18, "text-anchor=\"middle\" fill-opacity=\"0.7\"", x.text(tick));
  }
  for (const double tick : y.ticks()) {
    out += segment(left, y.pixel(tick), right, y.pixel(tick), kGrid);
    out += text(left - 8, y.pixel(tick) + 4, "text-anchor=\"end\" fill-opacity=\"0.7\"", y.text(tick));
  }
  out += segment(left, bottom, right, bottom, "stroke=\"currentColor\" stroke-opacity=\"0.5\"");
  out += segment(left, kTop, left, bottom, "stroke=\"currentColor\" stroke-opacity=\"0.5\"");
  out += text((left + right) / 2, 24, "text-anchor=\"middle\" font-size=\"15\" font-weight=\"600\"", plot.title);
  out += text((left + right) / 2, bottom + 37, "text-anchor=\"middle\"", plot.x_title);
  const double middle = (kTop + bottom) / 2;
  out +=
      text(18, middle, fmt::format("text-anchor=\"middle\" transform=\"rotate(-90 18 {:.1f})\"", middle), plot.y_title);
  return out;
}

/// The part of a line that lies within the frame; empty where none does.
std::string line(const PlotLine& line, const Axis& x, const Axis& y, std::string_view attributes) {
  double low = x.low(), high = x.high();
  if (line.slope != 0) {
    const double a = (y.low() - line.intercept) / line.slope, b = (y.high() - line.intercept) / line.slope;
    low = std::max(low, std::min(a, b));
    high = std::min(high, std::max(a, b));
  }
  const auto height = [&](double at) {
    return y.pixel(std::clamp(line.slope * at + line.intercept, y.low(), y.high()));
  };
  const bool outside = line.slope == 0 && (line.intercept < y.low() || line.intercept > y.high());
  return low < high && !outside ? segment(x.pixel(low), height(low), x.pixel(high), height(high), attributes) : "";
}

std::string opening(const std::string& title, double height) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\" "
      "aria-label=\"{2}\" font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, "
      "sans-serif\" "
      "font-size=\"12\" fill=\"currentColor\">\n",
      kWidth, height, escape(title));
}

std::string circle(const ScatterPoint& point, const Axis& x, const Axis& y) {
  const auto label = point.label.empty() ? "" : point.label + "\n";
  return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\"><title>{}({}, {})</title></circle>\n",
                     x.pixel(point.x), y.pixel(point.y), escape(label), detail::number(point.x),
                     detail::number(point.y));
}

}  // namespace

std::string scatter_svg(const ScatterPlot& plot) {
  std::vector<ScatterPoint> points;
  std::copy_if(plot.points.begin(), plot.points.end(), std::back_inserter(points),
               [](const ScatterPoint& point) { return plottable(point); });
  const auto [x_low, x_high] = range(points, &ScatterPoint::x);
  const auto [y_low, y_high] = range(points, &ScatterPoint::y);
  const Axis y(y_low, y_high, kHeight - kBottom, kTop);
  const double left = 40 + kDigitWidth * static_cast<double>(y.widest_text());
  const Axis x(x_low, x_high, left, kWidth - kRight);

  auto out = opening(plot.title, kHeight);
  out += frame(plot, x, y);
  std::string legend;
  if (plot.identity) {
    out += line({1, 0}, x, y, "stroke=\"currentColor\" stroke-opacity=\"0.45\" stroke-dasharray=\"5 4\"");
    legend = "dashed: y = x";
  }
  if (plot.regression && plottable(plot.regression->slope) && plottable(plot.regression->intercept)) {
    out += line(*plot.regression, x, y, fmt::format("stroke=\"{}\" stroke-width=\"2\"", kLineColour));
    legend += fmt::format("{}solid: least squares", legend.empty() ? "" : ", ");
  }
  out += text(left, kHeight - 6, kNoteStyle, legend);
  out += fmt::format("<g fill=\"{}\" fill-opacity=\"0.7\">\n", kPointColour);
  for (const auto& point : points) {
    out += circle(point, x, y);
  }
  out += "</g>\n";
  if (const auto skipped = plot.points.size() - points.size(); skipped > 0) {
    out += text(kWidth - kRight, kHeight - 6, fmt::format("text-anchor=\"end\" {}", kNoteStyle),
                fmt::format("{} of {} points not finite, left out", skipped, plot.points.size()));
  }
  return out + "</svg>\n";
}

std::string interval_svg(const IntervalPlot& plot) {
  constexpr double kRow = 26;
  std::vector<IntervalPlot::Row> rows;
  std::copy_if(plot.rows.begin(), plot.rows.end(), std::back_inserter(rows),
               [](const auto& row) { return plottable(row.value); });
  std::vector<ScatterPoint> ends;
  std::size_t widest = 0;
  for (const auto& row : rows) {
    widest = std::max(widest, row.label.size());
    for (const double end : {row.value, row.low, row.high}) {
      if (plottable(end)) {
        ends.push_back({end, 0});
      }
    }
  }
  if (plot.ceiling) {
    ends.push_back({*plot.ceiling, 0});
  }
  const auto [low, high] = range(ends, &ScatterPoint::x);
  const double left = std::min(24 + kDigitWidth * static_cast<double>(widest), kWidth / 2);
  const double bottom = kTop + kRow * static_cast<double>(std::max<std::size_t>(rows.size(), 1));
  const Axis x(low, high, left, kWidth - kRight);
  auto out = opening(plot.title, bottom + kBottom);
  out +=
      text((left + kWidth - kRight) / 2, 24, "text-anchor=\"middle\" font-size=\"15\" font-weight=\"600\"", plot.title);
  for (const double tick : x.ticks()) {
    out += segment(x.pixel(tick), kTop, x.pixel(tick), bottom, "stroke=\"currentColor\" stroke-opacity=\"0.13\"");
    out += text(x.pixel(tick), bottom + 18, "text-anchor=\"middle\" fill-opacity=\"0.7\"", x.text(tick));
  }
  out += text((left + kWidth - kRight) / 2, bottom + 37, "text-anchor=\"middle\"", plot.x_title);
  if (plot.ceiling && plottable(*plot.ceiling)) {
    out += segment(x.pixel(*plot.ceiling), kTop, x.pixel(*plot.ceiling), bottom,
                   "stroke=\"currentColor\" stroke-opacity=\"0.6\" stroke-dasharray=\"5 4\"");
    out += text(left, bottom + kBottom - 6, kNoteStyle, "dashed: the ceiling; lines: 95 % intervals");
  } else {
    out += text(left, bottom + kBottom - 6, kNoteStyle, "lines: 95 % intervals");
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto& row = rows[i];
    const double y = kTop + kRow * (static_cast<double>(i) + 0.5);
    out += text(left - 8, y + 4, "text-anchor=\"end\"", row.label);
    if (plottable(row.low) && plottable(row.high)) {
      out += segment(x.pixel(row.low), y, x.pixel(row.high), y,
                     fmt::format("stroke=\"{}\" stroke-width=\"2\"", kLineColour));
    }
    out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\"><title>{}: {}</title></circle>\n",
                       x.pixel(row.value), y, kPointColour, escape(row.label), detail::number(row.value));
  }
  return out + "</svg>\n";
}

}  // namespace whence
