#include "whence/stages/cost.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>

#include "whence/core/tensors.h"
#include "whence/solvers/solver.h"

namespace whence {

double gradient_seconds(const Stage& stage) {
  using Clock = std::chrono::steady_clock;
  constexpr std::int64_t kBatches = 3;
  const auto& data = stage.objective.data();
  const auto step = stage.objective.batch_size();
  const auto theta = leaves(stage.theta);
  const auto parent = detach(stage.parent);
  const auto work = [&](std::int64_t begin) {
    const auto batch = data.batch(begin, std::min(data.size(), begin + step));
    gradient(stage.objective.batch_loss(theta, parent, batch), theta);
    return batch.size();
  };
  work(0);  // what only the first pass pays
  const auto start = Clock::now();
  std::int64_t seen = 0;
  for (std::int64_t i = 0; i < kBatches && i * step < data.size(); ++i) {
    seen += work(i * step);
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return seconds * static_cast<double>(data.size()) / static_cast<double>(seen);
}

double ProductCount::expected() const { return std::sqrt(low * high); }

ProductCount product_count(std::string_view solver, std::int64_t parameters) {
  constexpr double kFewest = 20;
  const auto [method, given] = find_method<Solver>(solver);
  std::map<std::string, double> options;
  for (const auto& option : method->options(given)) {
    char* end = nullptr;
    const double value = std::strtod(option.value.c_str(), &end);
    if (end != option.value.c_str()) {
      options[option.name] = value;
    }
  }
  if (options.contains("max-iterations")) {
    const double most = options["max-iterations"];
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
    return {static_cast<double>(parameters), static_cast<double>(parameters), true, false};
  }
  return {0, 0, false};
}

double solve_seconds(const ProductCount& products, std::int64_t queries, double pass) {
  return products.expected() * (products.a_query ? static_cast<double>(queries) : 1) * kPassesAProduct * pass;
}

bool is_spectral(std::string_view curvature) {
  const auto name = find_method<Curvature>(curvature).first->name;
  return name == "ekfac" || name == "kfac" || name == "diagonal";
}

double fit_seconds(const Stage& stage, double pass) {
  constexpr std::int64_t kMostExactOutputs = 16;
  const auto outputs = stage.objective.data().outputs();
  return 2 * pass * static_cast<double>(1 + (outputs <= kMostExactOutputs ? outputs : 1));
}

std::string seconds_text(double seconds) {
  return seconds < 100    ? fmt::format("{:.3g} s", seconds)
         : seconds < 6000 ? fmt::format("{:.0f} min", seconds / 60)
                          : fmt::format("{:.1f} h", seconds / 3600);
}

}  // namespace whence
