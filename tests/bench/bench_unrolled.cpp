// How well scores foretell what a stage's own training, same start and same minibatches, makes of half of its examples
// and of leaving single ones out: the ceiling of response unrolled beside the others.
//   whence_bench unrolled PIPELINE STAGE QUERIES SUBSETS ALONE RESULT...   (a trained pipeline, results of whence
//   score)
// SUBSETS random halves give linear datamodelling scores; ALONE examples spread over the first result's scores of the
// first query, from the most negative to the most positive, are left out one at a time.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>

#include "bench/bench.h"
#include "whence/attribution/measurement.h"
#include "whence/evaluate/statistics.h"
#include "whence/stages/pipeline.h"
#include "whence/stages/unrolled.h"
#include "whence/store/score_store.h"

using namespace whence;

namespace {

/// The measurements [Q] of a training with these weights of its examples.
at::Tensor trained(const Stage& stage, const TrainingRun& run, const at::Tensor& weights, const Dataset& queries) {
  auto again = stage;
  again.objective = stage.objective.with_weights(weights);
  TrainingState state{run.start(), 0, {}};
  stage.optimizer->minimise(again.objective, stage.parent, state, run.random, {});
  again.theta = detach(state.theta);
  return measure_all(Measurement::kLoss, again, queries);
}

double mean_over_queries(const at::Tensor& predicted, const at::Tensor& actual,
                         double (*agreement)(std::span<const double>, std::span<const double>)) {
  double sum = 0;
  for (std::int64_t q = 0; q < predicted.size(1); ++q) {
    sum += agreement(numbers(predicted.select(1, q)), numbers(actual.select(1, q)));
  }
  return sum / static_cast<double>(predicted.size(1));
}

}  // namespace

int bench_unrolled(int argc, char** argv) {
  if (argc < 7) {
    fmt::print(stderr, "usage: whence_bench unrolled PIPELINE STAGE QUERIES SUBSETS ALONE RESULT...\n");
    return 2;
  }
  const Pipeline pipeline(argv[1], {});
  const auto chain = pipeline.load();
  const auto index = pipeline.stage_index(argv[2]);
  const auto queries = pipeline.queries(argv[3]);
  const auto subsets = std::atoll(argv[4]), alone = std::atoll(argv[5]);
  const auto& stage = chain[index];
  const auto run = training_runs(pipeline, chain, index)[index];
  const auto n = stage.objective.data().size();
  const auto first = read_scores(argv[6]).stages[0].scores;

  TensorList inside, measured, removed, moved;
  Random random = Random(7).stream("subsets");
  const auto start = std::chrono::steady_clock::now();
  const auto whole = trained(stage, run, {}, queries);
  for (std::int64_t s = 0; s < subsets; ++s) {
    auto weights = at::zeros({n}, at::kDouble);
    weights.index_fill_(0, random.permutation(n).narrow(0, 0, n / 2), 1);
    inside.push_back(weights);
    measured.push_back(trained(stage, run, weights, queries));
  }
  const auto order = first[0].argsort();
  for (std::int64_t s = 0; s < alone; ++s) {
    const auto row = order[alone > 1 ? s * (n - 1) / (alone - 1) : 0];
    auto weights = at::ones({n}, at::kDouble);
    weights.index_fill_(0, row, 0);
    removed.push_back(row.reshape({1}));
    moved.push_back(trained(stage, run, weights, queries) - whole);
  }
  fmt::print("{} trainings, {:.1f} s each\n", 1 + subsets + alone,
             std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
                 static_cast<double>(1 + subsets + alone));
  for (int i = 6; i < argc; ++i) {
    const auto scores = read_scores(argv[i]).stages[0].scores.to(at::kDouble);
    const auto foretold = scores / -static_cast<double>(n);
    double lds = NAN, single = NAN, slope = NAN;
    if (subsets > 1) {
      lds = mean_over_queries(at::stack(inside).matmul(scores.t()), at::stack(measured), spearman);
    }
    if (alone > 1) {
      const auto predicted = foretold.index_select(1, at::cat(removed)).t(), actual = at::stack(moved).to(at::kDouble);
      single = mean_over_queries(predicted, actual, pearson);
      slope = (predicted * actual).sum().item<double>() / predicted.square().sum().item<double>();
    }
    fmt::print("{}: LDS {:.4f}, leave-one-out Pearson {:.4f}, slope {:.3f}\n", argv[i], lds, single, slope);
  }
  return 0;
}
