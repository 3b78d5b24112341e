// Response unrolled against central differences of training again, from the same start and by the same minibatches,
// with one example's weight moved.
#include <cmath>

#include "stages/chain_truth.h"
#include "support/near.h"
#include "whence/attribution/unrolled_source.h"
#include "whence/models/ops.h"
#include "whence/training/validation.h"

using namespace whence;
using test::relative_error;
using test::toy_queries;

namespace {

struct Trained {
  std::string tuning, optimizer, loss = "cross-entropy";
  std::int64_t examples = 8;
  bool blind = false;  ///< The first input is 0, so that its weights have no gradient.
};

Dataset toy_data(const Trained& stage, const Random& random) {
  const auto data = test::toy_data(stage.loss, stage.examples, 3, random);
  auto batch = data.batch(0, data.size());
  if (stage.blind) {
    batch.inputs.select(1, 0).zero_();
  }
  return Dataset({batch.inputs, batch.targets, batch.ids, 1, {}, {}, data.classes(), {}});
}

struct Run {
  Chain chain;
  std::vector<TrainingRun> runs;
};

/// A chain of stages that are trained for some steps, each from where it begins on the stages before; the examples of
/// one stage weighted. `iterations` where training ended before its end.
Run train_all(const std::vector<Trained>& stages, at::ScalarType dtype = at::kDouble, std::size_t weighted = 0,
              const at::Tensor& weights = {}) {
  Run out;
  const Random random(5);
  const std::shared_ptr<const Model> model = create<Model>("mlp:widths=4,activation=tanh");
  for (std::size_t k = 0; k < stages.size(); ++k) {
    const auto draws = random.stream("stage " + std::to_string(k));
    auto stage = begin_stage({.name = "stage" + std::to_string(k),
                              .model = model,
                              .loss = create<Loss>(stages[k].loss),
                              .tuning = create<Tuning>(stages[k].tuning),
                              .optimizer = create<Optimizer>(stages[k].optimizer),
                              .data = toy_data(stages[k], draws.stream("data")).to(dtype, at::kCPU),
                              .weight_decay = 0.02,
                              .batch_size = 3},
                             out.chain, draws);
    const auto plain = stage.objective;
    if (weights.defined() && k == weighted) {
      stage.objective = plain.with_weights(weights);
    }
    TrainingState state{stage.theta, 0, {}};
    const auto summary = stage.optimizer->minimise(stage.objective, stage.parent, state, draws, {});
    out.runs.push_back({[start = stage.theta] { return start; }, "", draws, summary.iterations});
    stage.objective = plain;
    stage.theta = detach(state.theta);
    out.chain.push_back(std::move(stage));
  }
  return out;
}

at::Tensor unrolled_scores(const Run& run, std::size_t stage, const Dataset& queries) {
  UnrolledSource source(run.chain, run.runs);
  return score_matrix(run.chain, stage, source, queries, Measurement::kLoss);
}

/// N df/dw of the rows `rows`, [Q, rows].
at::Tensor trained_again(const std::vector<Trained>& stages, std::size_t stage, const std::vector<std::int64_t>& rows,
                         const Dataset& queries) {
  constexpr double kStep = 1e-5;
  TensorList out;
  for (const auto row : rows) {
    TensorList sides;
    for (const double h : {kStep, -kStep}) {
      auto weights = at::ones({stages[stage].examples}, at::kDouble);
      weights[row] = 1 + h;
      sides.push_back(
          measure_all(Measurement::kLoss, train_all(stages, at::kDouble, stage, weights).chain.back(), queries));
    }
    out.push_back((sides[0] - sides[1]) / (2 * kStep) * static_cast<double>(stages[stage].examples));
  }
  return at::stack(out, 1);
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("unrolled scores equal central differences of training again: every optimizer, one, two and three stages") {
  const std::string clipped = "adamw:learning-rate=0.03,epochs=3,batch-size=3,decay=0.1,clip=0.5,warm-up=2";
  const std::string momentum = "sgd:learning-rate=0.1,epochs=3,batch-size=5,momentum=0.8";
  const std::vector<std::vector<Trained>> chains{
      {{"full", "sgd:learning-rate=0.2,epochs=3,batch-size=4,momentum=0,schedule=constant"}},
      {{"full", momentum}},
      {{"full", momentum + ",nesterov,schedule=linear,clip=0.4"}},
      {{"full", "adam:learning-rate=0.05,epochs=4,batch-size=3"}},
      {{"full", clipped}},
      {{"full", "adam:learning-rate=0.05,max-iterations=1,batch-size=4,epsilon=0.05"}},
      {{"full", clipped}, {"full:proximity=0.3", momentum}},
      {{"full", momentum},
       {"full:proximity=0.3", "adam:learning-rate=0.02,epochs=3,batch-size=3", "cross-entropy", 8, true}},
      {{"full", clipped}, {"head", "adam:learning-rate=0.05,epochs=3,batch-size=5"}},
      {{"full", momentum}, {"lora:rank=1,alpha=4", clipped}},
      {{"full", momentum},
       {"full:proximity=0.3", "adam:learning-rate=0.02,epochs=3,batch-size=3", "squared-error", 7},
       {"full", momentum}},
      {{"full", momentum}, {"lora:rank=1,alpha=4", momentum}, {"head", clipped, "cross-entropy", 6}},
  };
  for (std::size_t c = 0; c < chains.size(); ++c) {
    CAPTURE(c);
    const auto run = train_all(chains[c]);
    const auto queries = toy_queries(run.chain, 2);
    for (std::size_t s = 0; s < run.chain.size(); ++s) {
      CAPTURE(s);
      const std::vector<std::int64_t> rows{0, 5};
      const auto scores = unrolled_scores(run, s, queries).index_select(1, at::tensor(rows, at::kLong));
      CHECK(scores.abs().max().item<double>() > 1e-4);
      CHECK(relative_error(scores, trained_again(chains[c], s, rows, queries)) < 1e-6);
    }
  }
}

TEST_CASE("unrolled scores in float32 are those in float64, and the replay has the same bits") {
  const std::vector<Trained> stages{{"full", "adam:learning-rate=0.05,epochs=4,batch-size=4"},
                                    {"full:proximity=0.3", "sgd:learning-rate=0.1,epochs=3,batch-size=5,momentum=0.8"}};
  const auto wide = train_all(stages), narrow = train_all(stages, at::kFloat);
  const auto queries = toy_queries(wide.chain);
  for (std::size_t s = 0; s < 2; ++s) {
    CHECK(relative_error(unrolled_scores(narrow, s, queries.to(at::kFloat, at::kCPU)),
                         unrolled_scores(wide, s, queries)) < 1e-3);
  }
  Unrolled unrolled(narrow.chain, narrow.runs);
  unrolled.prepare(0);
  CHECK(unrolled.evidence()[0].replay_difference == 0);
  CHECK(unrolled.evidence()[0].steps == 8);
}

TEST_CASE("unrolled follows a validated training to the parameters that it kept") {
  const std::vector<Trained> stages{{"full", "adam:learning-rate=0.05,epochs=6,batch-size=4"}};
  auto run = train_all(stages);
  auto& stage = run.chain[0];
  stage.optimizer = stopping_early(
      stage.optimizer, {.data = [data = toy_queries(run.chain, 3)] { return data; }, .patience = 0, .every = 5});
  run.runs[0].iterations = 10;  // as if kept after the second measurement
  const auto theta_of = [&](const at::Tensor& weights) {
    const auto objective = stage.objective.with_weights(weights);
    const auto steps =
        dynamic_cast<const SteppingOptimizer&>(*stage.optimizer).steps(objective, {}, run.runs[0].random);
    TrainingState state{run.runs[0].start(), 0, {}};
    while (state.iteration < 10) {
      steps->advance(state);
    }
    return detach(state.theta);
  };
  stage.theta = theta_of({});
  const auto queries = toy_queries(run.chain, 2);
  const auto scores = unrolled_scores(run, 0, queries);
  auto weights = at::ones({8}, at::kDouble);
  at::Tensor sides[2];
  for (int side = 0; side < 2; ++side) {
    weights[3] = 1 + (side == 0 ? 1e-5 : -1e-5);
    auto moved = stage;
    moved.theta = theta_of(weights);
    sides[side] = measure_all(Measurement::kLoss, moved, queries);
  }
  CHECK(relative_error(scores.select(1, 3), (sides[0] - sides[1]) / 2e-5 * 8) < 1e-6);
}

TEST_CASE("unrolled refuses what it cannot go again, in a line that says what to type") {
  const std::vector<Trained> stages{{"full", "sgd:learning-rate=0.1,epochs=2,batch-size=5"}};
  const auto good = train_all(stages);
  const auto queries = toy_queries(good.chain, 1);
  auto moved = good;
  moved.chain[0].theta[0] = moved.chain[0].theta[0] + 1e-3;
  CHECK_THROWS_WITH_AS(unrolled_scores(moved, 0, queries), doctest::Contains("comes to other parameters"),
                       InvalidArgument);
  auto without = good;
  without.runs.clear();
  CHECK_THROWS_WITH_AS(unrolled_scores(without, 0, queries), doctest::Contains("where it began is not known"),
                       InvalidArgument);
  auto lbfgs = good;
  lbfgs.chain[0].optimizer = create<Optimizer>("lbfgs");
  CHECK_THROWS_WITH_AS(unrolled_scores(lbfgs, 0, queries), doctest::Contains("use sgd, adam or adamw"),
                       InvalidArgument);
  const UnrolledSource source(good.chain, good.runs);
  CHECK_THROWS_WITH_AS(source.check({0}, Measurement::kLoss, Normalization::kCosine),
                       doctest::Contains("expected none"), InvalidArgument);
}

TEST_SUITE_END();
