// Which damping serves rankings best away from a minimum: the linear datamodelling score of influence under several
// dampings, times the mean eigenvalue, against trainings from the stage's own start on random halves of its data.
//   whence_bench defaults PIPELINE STAGE QUERIES SUBSETS [DRAWS]     (a trained pipeline; float32)
// The truth is the mean of DRAWS trainings a subset that differ in the order of their examples, made once for all rows.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>

#include "bench/bench.h"
#include "whence/attribution/attribute.h"
#include "whence/evaluate/retraining.h"
#include "whence/evaluate/statistics.h"
#include "whence/stages/pipeline.h"

using namespace whence;

namespace {

/// Park et al., "TRAK", ICML 2023, definition 2.4, and how far its mean over the queries is known.
std::pair<double, double> linear_datamodelling(const at::Tensor& scores, const at::Tensor& inside,
                                               const at::Tensor& measured) {
  const auto sums = inside.matmul(scores.t());  // [M, Q]
  std::vector<double> each;
  for (std::int64_t q = 0; q < scores.size(0); ++q) {
    each.push_back(spearman(numbers(sums.select(1, q)), numbers(measured.select(1, q))));
  }
  const auto all = at::tensor(each, at::kDouble);
  return {all.mean().item<double>(), all.std().item<double>() / std::sqrt(static_cast<double>(each.size()))};
}

}  // namespace

int bench_defaults(int argc, char** argv) {
  if (argc < 5) {
    fmt::print(stderr, "usage: whence_bench defaults PIPELINE STAGE QUERIES SUBSETS [DRAWS]\n");
    return 2;
  }
  const Pipeline pipeline(argv[1], {});
  const auto chain = pipeline.load();
  const auto index = pipeline.stage_index(argv[2]);
  const auto queries = pipeline.queries(argv[3]);
  const auto subsets = std::atoll(argv[4]), draws = argc > 5 ? std::atoll(argv[5]) : 1;
  const auto& stage = chain[index];
  const auto n = stage.objective.data().size();
  const auto at_end = stationarity(stage.objective, stage.theta, stage.parent);
  fmt::print(
      "{}: {} examples, {} parameters, {} queries, {} subsets of half, {} trainings each; |gradient| {:.2g} of an "
      "example's\n\n",
      stage.name, n, count_entries(stage.theta), queries.size(), subsets, draws, at_end.relative_gradient_norm);

  auto untrained = chain;
  untrained[index].theta =
      clone(pipeline.untrained(index, Chain(chain.begin(), chain.begin() + static_cast<std::ptrdiff_t>(index))).theta);
  const auto weights = subset_weights(subsets, n, 0.5, Random(1).stream("subsets"));
  const auto inside = weights.gt(0).to(at::kDouble);
  at::Tensor truth;
  for (std::int64_t draw = 0; draw < draws; ++draw) {
    const auto made = retrain(untrained, index, weights, queries, Measurement::kLoss, nullptr,
                              Random(static_cast<std::uint64_t>(draw)).stream("training"), {});
    truth = truth.defined() ? truth + made.measurements : made.measurements;
  }
  fmt::print(
      "| curvature, solver | damping / mean eigenvalue | LDS | +- | largest removal | seconds |\n| --- | ---: | ---: | "
      "---: | ---: | ---: |\n");
  const auto row = [&](const std::string& method, const std::string& curvature, const std::string& solver,
                       double damping) {
    const auto start = std::chrono::steady_clock::now();
    const auto attributor = create<Attributor>(method);
    try {
      const auto source = attributor->prepare(
          chain, {create<Curvature>(curvature), create<Solver>(solver), {.relative_damping = damping}});
      const auto scores = score_matrix(chain, index, *source, queries, Measurement::kLoss);
      const auto [lds, error] = linear_datamodelling(scores, inside, truth);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      fmt::print("| {} | {:g} | {:.3f} | {:.3f} | {:.2g} | {:.1f} |\n",
                 method == "influence" ? curvature + ", " + solver : method, damping, lds, error,
                 scores.abs().max().item<double>() / static_cast<double>(n), seconds);
    } catch (const Error& error) {
      fmt::print("| {}, {} | {:g} | {} | | | |\n", curvature, solver, damping, error.what());
    }
    std::fflush(stdout);
  };
  row("grad-dot", "gauss-newton", "identity", 0);
  row("random", "gauss-newton", "identity", 0);
  const bool small = argc > 6;  // ekfac alone
  for (const double damping : {1e-3, 1e-2, 3e-2, 0.1, 0.3, 1., 3., 10., 100., 1e3, 1e4, 1e5}) {
    row("influence", "ekfac", "ekfac", damping);
    if (!small && damping >= 1e-3) {
      row("influence", "gauss-newton", "auto:relative-tolerance=1e-2", damping);
    }
  }
  return 0;
}
