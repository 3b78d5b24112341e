// Every registered solver on every registered curvature of texts, measured against dense matrices built text by text
// from plain autograd. A new solver is tested here by its registration line.
#include <fmt/format.h>

#include "curvature/text_truth.h"
#include "matrices.h"
#include "whence/core/error.h"

using namespace whence;
using test::Labels;
using test::relative_error;
using test::Tolerance;

namespace {

constexpr double kAimed = 1e-9;

/// The solver with what it has of these: a tolerance, a rank that leaves nothing out, and a residual that is measured.
std::string spec_of(const Method<Solver>& method, std::int64_t parameters) {
  const std::map<std::string, std::string> wanted{
      {"relative-tolerance", fmt::format("{}", kAimed)}, {"rank", std::to_string(parameters)}, {"residual", "true"}};
  std::string spec(method.name);
  char separator = ':';
  for (const auto& option : method.options("")) {
    if (const auto found = wanted.find(option.name); found != wanted.end()) {
      spec += separator + found->first + '=' + found->second;
      separator = ',';
    }
  }
  return spec;
}

/// The mean over texts of each one's inverse, layer by layer, of the gradients for the data's own tokens.
at::Tensor mean_of_inverses(const CurvaturePoint& point, const std::vector<test::TextRows>& rows, double damping,
                            const at::Tensor& b) {
  const auto places = test::places_of(point.objective.trained());
  const auto n = static_cast<double>(rows.size());
  auto out = at::zeros_like(b);
  for (const auto& text : rows) {
    for (const auto& layer : text.layers) {
      if (places.count(layer.weight) > 0) {
        const auto entries = test::entries_of(layer, places);
        const auto g = text.gradients[0].index_select(0, entries) * std::sqrt(n);
        const auto matrix = at::outer(g, g) + (damping + test::kTextDecay) * at::eye(g.size(0), at::kDouble);
        out.index_add_(1, entries, test::inverse_of(matrix, b.index_select(1, entries)) / n);
      }
    }
  }
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("solvers");

TEST_CASE("every solver on every curvature of texts gives the dense solve, or its residual says how far off it is") {
  for (const auto& tiny : {test::kTinyTransformers[0], test::kTinyTransformers[1]}) {
    const test::TextPoints points(tiny);
    const auto point = std::make_shared<CurvaturePoint>(points.second_layers());
    const test::TextTruth truth(*point);
    const auto p = count_entries(point->theta);
    const auto b = Random(2).normal({3, p});
    std::map<std::string_view, int> answered, exact;
    for (const auto& family : methods<Curvature>()) {
      const auto curvature = create<Curvature>(family.name);
      const auto a = curvature->operator_at(*point);
      const auto matrix = truth.of(*curvature, Labels::kSampled).narrow(1, 0, p);
      const auto h = at::linalg_eigvalsh(matrix);
      const auto eye = at::eye(p, at::kDouble);
      const double damping = 1.5 * h.abs().max().item<double>();
      for (const auto inversion : {Inversion::kDamped, Inversion::kFiltered}) {
        const bool damped = inversion == Inversion::kDamped;
        const at::Tensor system = damped ? matrix + damping * eye : matrix.mm(matrix) + damping * damping * eye;
        const at::Tensor target = damped ? b : b.mm(matrix);
        for (const auto& method : methods<Solver>()) {
          CAPTURE(tiny.name);
          CAPTURE(family.name);
          CAPTURE(method.name);
          CAPTURE(damped);
          const auto solver = create<Solver>(spec_of(method, p));
          at::Tensor x;
          std::vector<SolverSummary> summaries;
          try {
            summaries = test::applied(*solver->prepare({a, {inversion, damping}, point}), b, x);
          } catch (const InvalidArgument& error) {  // it takes other curvatures or filters, and says what to use
            CHECK(std::string(error.what()).find("use ") != std::string::npos);
            continue;
          }
          ++answered[method.name];
          const auto residuals = (target - x.mm(system)).norm(2, {1}) / target.norm(2, {1});
          for (std::size_t k = 0; k < summaries.size(); ++k) {
            const auto& summary = summaries[k];
            CAPTURE(summary.message);
            const double residual = residuals[static_cast<std::int64_t>(k)].item<double>();
            CHECK(std::abs(summary.relative_residual - residual) < Tolerance::kDense);
            if (summary.termination == Termination::kConverged) {
              CHECK(residual < kAimed + Tolerance::kDense);
            } else if (summary.termination == Termination::kIndefinite) {
              CHECK(h[0].item<double>() < 0);
            } else {
              CHECK(summary.termination == Termination::kApproximate);
            }
          }
          if (summaries[0].termination == Termination::kConverged) {
            ++exact[method.name];
            CHECK(relative_error(x, test::inverse_of(system, target)) < 10 * kAimed);
          } else if (method.name == "datainf") {
            CHECK(relative_error(x, mean_of_inverses(*point, truth.rows(Labels::kData), damping, b)) <
                  Tolerance::kDense);
          } else if (method.name == "ekfac") {
            const auto factors = create<Curvature>("ekfac");
            const auto of_factors = truth.of(*factors, Labels::kSampled).narrow(1, 0, p);
            const auto [values, basis] = at::linalg_eigh(of_factors);
            const auto gains = damped ? 1 / (values + damping) : values / (values.square() + damping * damping);
            CHECK(relative_error(x, b.mm(basis).mul(gains).mm(basis.t())) < Tolerance::kDense);
          }
        }
      }
    }
    for (const auto& method : methods<Solver>()) {
      CAPTURE(method.name);
      CHECK(answered[method.name] > 0);
      CHECK((exact[method.name] > 0 || !create<Solver>(method.name)->is_exact()));
    }
  }
}

TEST_SUITE_END();
