#include "whence/solvers/spectrum.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "whence/core/rounding.h"
#include "whence/solvers/detail/krylov.h"

namespace whence {
namespace {

/// The Ritz values of one probe, weighed by the probe's share in their vectors.
void add_probe(const detail::RitzPairs& ritz, std::size_t probes, std::vector<std::pair<double, double>>& density) {
  for (Eigen::Index j = 0; j < ritz.values.size(); ++j) {
    const double share = ritz.vectors(0, j);
    density.emplace_back(ritz.values[j], share * share / static_cast<double>(probes));
  }
}

void widen_ends(const detail::RitzPairs& ritz, Spectrum& spectrum) {
  const auto last = ritz.values.size() - 1;
  const auto error = [&](Eigen::Index j) { return ritz.next * std::abs(ritz.vectors(last, j)); };
  if (!(ritz.values[0] >= spectrum.smallest)) {
    spectrum.smallest = ritz.values[0];
    spectrum.smallest_error = error(0);
  }
  if (!(ritz.values[last] <= spectrum.largest)) {
    spectrum.largest = ritz.values[last];
    spectrum.largest_error = error(last);
  }
}

double standard_error(const std::vector<double>& means) {
  const auto n = static_cast<double>(means.size());
  const double mean = std::accumulate(means.begin(), means.end(), 0.0) / n;
  double squares = 0;
  for (const double m : means) {
    squares += (m - mean) * (m - mean);
  }
  return means.size() > 1 ? std::sqrt(squares / (n - 1) / n) : 0;
}

}  // namespace

double Spectrum::fraction_below(double x) const {
  const auto end = std::lower_bound(nodes.begin(), nodes.end(), x) - nodes.begin();
  return std::min(1.0, std::accumulate(weights.begin(), weights.begin() + end, 0.0));
}

Spectrum estimate_spectrum(const LinearOperator& a, std::int64_t probes, std::int64_t steps, Random random,
                           const Progress& progress) {
  if (probes < 1 || steps < 1) {
    throw InvalidArgument(fmt::format("spectrum: {} probes of {} steps, expected at least one of each", probes, steps));
  }
  const auto wide = algebra_options(a.options());
  const auto starts = detail::normal_rows(random, probes, a.size(), wide);
  std::vector<detail::KrylovSpace> spaces;
  for (std::int64_t k = 0; k < probes; ++k) {
    spaces.emplace_back(starts[k]);
  }
  std::vector<detail::KrylovSpace*> pointers;
  for (auto& space : spaces) {
    pointers.push_back(&space);
  }
  for (std::int64_t step = 1; step <= steps; ++step) {
    detail::advance(a, pointers);
    report(progress, {"spectrum", step, steps, ""});
  }
  Spectrum spectrum;
  std::vector<std::pair<double, double>> density;
  std::vector<double> means;
  for (const auto& space : spaces) {
    const auto ritz = space.ritz();
    add_probe(ritz, spaces.size(), density);
    widen_ends(ritz, spectrum);
    means.push_back(ritz.vectors.row(0).cwiseAbs2().dot(ritz.values));
  }
  std::sort(density.begin(), density.end());
  for (const auto& [node, weight] : density) {
    spectrum.nodes.push_back(node);
    spectrum.weights.push_back(weight);
  }
  spectrum.mean = std::accumulate(means.begin(), means.end(), 0.0) / static_cast<double>(probes);
  spectrum.mean_error = standard_error(means);
  spectrum.trace = spectrum.mean * static_cast<double>(a.size());
  return spectrum;
}

}  // namespace whence
