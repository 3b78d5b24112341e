#pragma once
#include <optional>
#include <string>
#include <vector>

namespace whence {

struct ScatterPoint {
  double x;
  double y;
  std::string label = {};  ///< Shown when the pointer rests on the point; may be empty.
};

/// Slope and intercept of a drawn line.
struct PlotLine {
  double slope;
  double intercept;
};

struct ScatterPlot {
  std::string title = {}, x_title = {}, y_title = {};
  std::vector<ScatterPoint> points = {};
  bool identity = false;                    ///< Draws y = x, dashed.
  std::optional<PlotLine> regression = {};  ///< Drawn solid; left out where it is not finite.
};

/// The plot as one <svg> element: stands alone as a file, and takes the text's colour where it is part of a page.
/// Points that are not finite are left out and counted under the plot.
std::string scatter_svg(const ScatterPlot& plot);

}  // namespace whence
