#pragma once
#include <optional>
#include <string>
#include <vector>

namespace whence {

/// Numbers with intervals, a line each.
struct IntervalPlot {
  struct Row {
    std::string label;
    double value, low, high;
  };
  std::string title = {}, x_title = {};
  std::vector<Row> rows = {};
  std::optional<double> ceiling = {};  ///< Drawn as a dashed line.
};

/// The plot as one <svg> element, as scatter_svg() makes it, its rows from the top. An interval that is not finite is
/// left out, and a row whose value is not.
std::string interval_svg(const IntervalPlot& plot);

}  // namespace whence
