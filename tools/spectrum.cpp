#include "spectrum.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "json.h"
#include "result.h"
#include "say.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/output.h"
#include "whence/curvature/curvature.h"
#include "whence/models/addition.h"
#include "whence/report/svg.h"
#include "whence/solvers/spectrum.h"

namespace whence::cli {
namespace po = boost::program_options;
void add_spectrum_options(CommandLine& line) {
  line.add()                                                                                                       //
      ("spectrum", po::bool_switch(), "of a trained pipeline: the eigenvalues of a stage's curvature, estimated")  //
      ("stage", po::value<std::string>(), "with --spectrum; the last one where not given")                         //
      ("curvature", po::value<std::string>()->default_value("hessian"),
       "with --spectrum: `whence methods curvature`")                                                           //
      ("probes", po::value<std::int64_t>()->default_value(4), "with --spectrum: random vectors to start from")  //
      ("steps", po::value<std::int64_t>()->default_value(60),
       "with --spectrum: Lanczos steps from each; a product a step")  //
      ("plot", po::value<std::string>(), "with --spectrum: an SVG file of the density");
}

namespace {

ScatterPlot density_plot(const Json& spectrum) {
  ScatterPlot plot{.title = fmt::format("{}, stage {}", spectrum["curvature"].get<std::string>(),
                                        spectrum["stage"].get<std::string>()),
                   .x_title = "eigenvalue",
                   .y_title = "log10 of its share"};
  for (std::size_t j = 0; j < spectrum["nodes"].size(); ++j) {
    const double node = spectrum["nodes"][j], weight = spectrum["weights"][j];
    if (weight > 1e-12) {
      plot.points.push_back({node, std::log10(weight), fmt::format("{:.4g}, share {:.2g}", node, weight)});
    }
  }
  return plot;
}

}  // namespace

Json spectrum_of(const Stage& stage, const std::string& spec, std::int64_t probes, std::int64_t steps,
                 const Random& random, const Progress& progress) {
  const auto at = stationarity(stage);
  const auto a = create<Curvature>(spec)->operator_at({stage.objective, stage.theta, stage.parent});
  const auto spectrum = estimate_spectrum(*a, probes, steps, random, progress);
  end_progress();
  // a negative eigenvalue of this size is rounding
  const double rounding = a->rounding() * std::max(std::abs(spectrum.largest), std::abs(spectrum.smallest));
  Json out{{"kind", "spectrum"},
           {"stage", stage.name},
           {"curvature", resolved_spec<Curvature>(spec)},
           {"parameters", a->size()},
           {"products", a->products()},
           {"gradient-norm", at.gradient_norm},
           {"relative-gradient-norm", at.relative_gradient_norm},
           {"smallest", spectrum.smallest},
           {"smallest-error", spectrum.smallest_error},
           {"largest", spectrum.largest},
           {"largest-error", spectrum.largest_error},
           {"mean", spectrum.mean},
           {"mean-error", spectrum.mean_error},
           {"trace", spectrum.trace},
           {"rounding", rounding},
           {"negative", spectrum.fraction_below(-rounding)}};
  for (const double share : {1e-4, 1e-3, 1e-2, 1e-1}) {
    out["below-largest-times"][fmt::format("{:g}", share)] = spectrum.fraction_below(share * spectrum.largest);
  }
  out["nodes"] = spectrum.nodes;
  out["weights"] = spectrum.weights;
  if (const auto flat =
          flat_directions(stage.objective.trained().with(stage.theta), stage.objective.weight_decay() > 0);
      flat > 0) {
    out["flat"] = flat;
  }
  if (spectrum.smallest < -rounding) {
    out["remedy"] = fmt::format(
        "indefinite: a damped inverse needs --damping > {:.3g}; or {}--inversion filtered, or training to a minimum",
        -spectrum.smallest, stage.objective.has_gauss_newton() ? "--curvature gauss-newton, or " : "");
  }
  return out;
}

Json inspect_spectrum(const CommandLine& line, const Pipeline& pipeline) {
  const auto probes = line.whole("probes", 1), steps = line.whole("steps", 1);
  const auto index = line.has("stage") ? pipeline.stage_index(line.text("stage")) : pipeline.stages().size() - 1;
  create<Curvature>(line.text("curvature"));
  if (line.has("plot")) {
    check_replaceable(line.text("plot"), kSvgBeginning);
  }
  const auto lock = line.has("plot") ? OutputLock::beside(line.text("plot")) : OutputLock();  // written after work
  const auto chain = pipeline.load(index + 1);
  auto out = spectrum_of(chain.back(), line.text("curvature"), probes, steps,
                         Random(pipeline.seed()).stream("spectrum"), terminal_progress(line.flag("quiet")));
  if (line.has("plot")) {
    write_text(line.text("plot"), scatter_svg(density_plot(out)));
    out["plot"] = line.text("plot");
  }
  return out;
}

EvaluationSection spectrum_section(const Json& spectrum, double damping) {
  const auto number = [&](const char* key) { return spectrum[key].get<double>(); };
  EvaluationSection out{.title = "Eigenvalues at " + spectrum["stage"].get<std::string>(),
                        .plot = density_plot(spectrum)};
  out.figures.push_back({"curvature", spectrum["curvature"].get<std::string>()});
  out.figures.push_back({"smallest", fmt::format("{:.3g}", number("smallest"))});
  out.figures.push_back({"largest", fmt::format("{:.3g}", number("largest"))});
  out.figures.push_back({"mean", fmt::format("{:.3g}", number("mean"))});
  out.figures.push_back({"negative", fmt::format("{:.2f} % of eigenvalues", 100 * number("negative")),
                         number("negative") > 0 ? Fact::State::kWarning : Fact::State::kPlain});
  if (damping > 0) {
    double below = 0;
    for (std::size_t j = 0; j < spectrum["nodes"].size(); ++j) {
      below += spectrum["nodes"][j].get<double>() < damping ? spectrum["weights"][j].get<double>() : 0;
    }
    out.figures.push_back({"damping", fmt::format("{:.3g}", damping), Fact::State::kPlain,
                           fmt::format("{:.1f} % of eigenvalues lie below it", 100 * below)});
  }
  return out;
}

void print_spectrum(const Json& json) {
  const auto number = [&](const char* key) { return json[key].get<double>(); };
  say("stage {}, {}, {} parameters; {:.0f} products\n", json["stage"].get<std::string>(),
      json["curvature"].get<std::string>(), json["parameters"].get<std::int64_t>(), number("products"));
  say("  |gradient|   {:.1e}, {:.1e} of an example's\n", number("gradient-norm"), number("relative-gradient-norm"));
  say("  smallest     {:+.4g} (an eigenvalue within {:.1e})\n", number("smallest"), number("smallest-error"));
  say("  largest      {:+.4g} (an eigenvalue within {:.1e})\n", number("largest"), number("largest-error"));
  say("  mean         {:+.4g} (standard error {:.1e})\n", number("mean"), number("mean-error"));
  say("  negative     {:.2f} % of eigenvalues\n", 100 * number("negative"));
  for (const auto& [share, fraction] : json["below-largest-times"].items()) {
    say("  below {:>6} of the largest  {:>6.2f} %\n", share, 100 * fraction.get<double>());
  }
  if (json.contains("flat")) {
    say("  flat         {} directions of the tuning's parameters change nothing: eigenvalues 0, which cg from zero "
        "leaves "
        "alone\n",
        json["flat"].get<std::int64_t>());
  }
  for (const char* key : {"remedy", "plot"}) {
    if (json.contains(key)) {
      say("  {:<12} {}\n", key, json[key].get<std::string>());
    }
  }
}

}  // namespace whence::cli
