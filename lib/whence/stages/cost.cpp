#include "whence/stages/cost.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>

#include "whence/core/operation_count.h"
#include "whence/core/tensors.h"
#include "whence/curvature/curvature.h"
#include "whence/solvers/automatic.h"

namespace whence {

namespace {

/// Takes gradients of batches of a stage's data.
class BatchGradients {
 public:
  explicit BatchGradients(const Stage& stage)
      : objective_(stage.objective), theta_(leaves(stage.theta)), parent_(detach(stage.parent)) {}

  /// Of the batch from row `begin`; the examples in it.
  std::int64_t take(std::int64_t begin) const {
    const auto& data = objective_.data();
    const auto batch = data.batch(begin, std::min(data.size(), begin + objective_.batch_size()));
    gradient(objective_.batch_loss(theta_, parent_, batch), theta_);
    return batch.size();
  }

 private:
  const Objective& objective_;
  TensorList theta_, parent_;
};

double of_all(const Stage& stage, double seconds, std::int64_t seen) {
  return seconds * static_cast<double>(stage.objective.data().size()) / static_cast<double>(seen);
}

}  // namespace

double gradient_seconds(const Stage& stage) {
  using Clock = std::chrono::steady_clock;
  constexpr std::int64_t kBatches = 3;
  const BatchGradients gradients(stage);
  const auto step = stage.objective.batch_size();
  gradients.take(0);  // what only the first pass pays
  const auto start = Clock::now();
  std::int64_t seen = 0;
  for (std::int64_t i = 0; i < kBatches && i * step < stage.objective.data().size(); ++i) {
    seen += gradients.take(i * step);
  }
  return of_all(stage, std::chrono::duration<double>(Clock::now() - start).count(), seen);
}

double nominal_gradient_seconds(const Stage& stage) {
  const BatchGradients gradients(stage);
  std::int64_t seen = 0;
  auto count = count_operations([&] { seen = gradients.take(0); });
  constexpr double kUsualBatch = 1024;  // whatever the batches are, which are not to change what is chosen
  const auto examples = static_cast<double>(stage.objective.data().size());
  const double whole = examples / static_cast<double>(seen);
  count.multiplications *= whole;
  count.bytes *= whole;
  count.calls *= std::ceil(examples / kUsualBatch);
  return count.nominal_seconds();
}

double ProductCount::expected() const { return std::sqrt(low * high); }

namespace {

/// Of the curvature's root, about; 0 where it is known by none.
std::int64_t root_rows(std::string_view curvature, const Stage& stage) {
  constexpr std::int64_t kMostOutputs = 64;
  const auto& data = stage.objective.data();
  const bool rows = find_method<Curvature>(curvature).first->name != "hessian" && data.outputs() <= kMostOutputs &&
                    covered_by_layers({stage.objective, stage.theta, stage.parent});
  return rows ? data.size() * data.outputs() : 0;
}

}  // namespace

std::string auto_spec(std::string_view solver, std::string_view curvature, const Stage& stage, Inversion inversion) {
  if (is_spectral(curvature)) {
    return "ekfac";
  }
  const auto picked = picked_by_size(stage.objective.trained().entries(), root_rows(curvature, stage), inversion);
  if (!picked.empty()) {
    return std::string(picked);
  }
  const auto [method, given] = find_method<Solver>(solver);
  std::string out = "cg:preconditioner=none";
  if (inversion != Inversion::kPseudo && covered_by_layers({stage.objective, stage.theta, stage.parent})) {
    out = "cg:preconditioner=ekfac";
  }
  for (const auto& option : method->options(given)) {
    out += fmt::format(",{}={}", option.name, option.value);
  }
  return out;
}

ProductCount product_count(std::string_view solver, std::string_view curvature, const Stage& stage,
                           Inversion inversion) {
  constexpr double kFewest = 20;
  const auto [method, given] = find_method<Solver>(solver);
  const auto parameters = stage.objective.trained().entries();
  if (method->name == "auto") {
    const auto picked =
        is_spectral(curvature) ? "ekfac" : picked_by_size(parameters, root_rows(curvature, stage), inversion);
    if (!picked.empty()) {
      return product_count(picked, curvature, stage, inversion);
    }
  }
  std::map<std::string, double> options;
  for (const auto& option : method->options(given)) {
    char* end = nullptr;
    const double value = std::strtod(option.value.c_str(), &end);
    if (end != option.value.c_str()) {
      options[option.name] = value;
    }
  }
  if (options.contains("max-iterations")) {
    const double most = std::min(options["max-iterations"], static_cast<double>(parameters));
    return {std::min(kFewest, most), most};
  }
  if (options.contains("depth")) {
    const double all = options["depth"] * (options.contains("repeats") ? options["repeats"] : 1);
    return {std::min(kFewest, all), all};
  }
  if (method->name == "ekfac") {  // the residual alone
    return {1, 1};
  }
  if (method->name == "direct") {
    return {1, 1, true, static_cast<double>(parameters)};
  }
  if (method->name == "woodbury") {  // with a step of refinement
    return {4, 4};
  }
  return {0, 0, false};
}

double solve_seconds(const ProductCount& products, std::int64_t queries, double pass) {
  return (products.expected() * static_cast<double>(queries) + products.once) * kPassesAProduct * pass;
}

bool is_spectral(std::string_view curvature) {
  const auto name = find_method<Curvature>(curvature).first->name;
  return name == "ekfac" || name == "kfac" || name == "diagonal";
}

std::string seconds_text(double seconds) {
  return seconds < 100    ? fmt::format("{:.3g} s", seconds)
         : seconds < 6000 ? fmt::format("{:.0f} min", seconds / 60)
                          : fmt::format("{:.1f} h", seconds / 3600);
}

}  // namespace whence
