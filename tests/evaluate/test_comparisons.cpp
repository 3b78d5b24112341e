// What methods are compared by: ceilings, removals, changed labels, known sources, words, and the bank of trainings.
#include <algorithm>
#include <cmath>

#include "support/near.h"
#include "support/scratch.h"
#include "support/toy_chain.h"
#include "whence/attribution/attribute.h"
#include "whence/attribution/self_influence.h"
#include "whence/evaluate/bm25.h"
#include "whence/evaluate/lds.h"
#include "whence/evaluate/suspects.h"
#include "whence/evaluate/training_bank.h"

using namespace whence;
using test::relative_error;

namespace {

/// Three clusters of points in the plane, in double.
Dataset clusters(std::int64_t examples, std::uint64_t seed) {
  Random random(seed);
  Dataset::Contents contents;
  contents.targets = at::arange(examples).remainder(3);
  const auto centres = at::tensor({3.0, 0.0, -2.0, 2.0, -2.0, -2.0}, at::kDouble).reshape({3, 2});
  contents.inputs = centres.index_select(0, contents.targets) + random.normal({examples, 2});
  contents.ids = at::arange(examples);
  contents.classes = {"a", "b", "c"};
  return Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
}

Stage cluster_stage(std::uint64_t start, const std::string& model = "linear") {
  return begin_stage({.name = "clusters",
                      .model = create<Model>(model),
                      .loss = create<Loss>("cross-entropy"),
                      .optimizer = create<Optimizer>("lbfgs:max-iterations=2000,tolerance=1e-11"),
                      .data = clusters(60, 1),
                      .weight_decay = 0.02},
                     {}, Random(start));
}

at::Tensor influence(const Chain& chain, const Dataset& queries) {
  const auto source =
      create<Attributor>("influence")->prepare(chain, {create<Curvature>("hessian"), create<Solver>("direct"), {}});
  return score_matrix(chain, 0, *source, queries, Measurement::kLoss);
}

}  // namespace

TEST_SUITE_BEGIN("evaluate");

TEST_CASE("on a convex problem another seed reaches the same minima: the ceiling is 1, and influence comes near it") {
  Chain chain{cluster_stage(1)};
  train(chain[0], Random(0));
  const auto queries = clusters(6, 2);
  const auto weights = subset_weights(20, 60, 0.5, Random(3));
  const auto from = [&](std::uint64_t seed) {
    return retrain(chain, 0, weights, queries, Measurement::kLoss, nullptr, Random(seed), {},
                   [seed](std::size_t, const Chain&) { return cluster_stage(seed); })
        .measurements;
  };
  const auto actual = from(1), other = from(2);
  const auto ceiling = ceilinged_agreement(other, actual, {}, spearman, Random(4));
  CHECK(ceiling.value == doctest::Approx(1).epsilon(1e-9));
  CHECK(std::isnan(ceiling.share));
  const auto inside = weights.gt(0).to(at::kDouble);
  const auto predicted = summed_scores(influence(chain, queries), inside);
  const auto found = ceilinged_agreement(predicted, actual, other, spearman, Random(4));
  CHECK(found.value > 0.9);
  CHECK(found.share == doctest::Approx(found.value));
  CHECK(found.interval.low < found.value);
  CHECK(found.value < found.interval.high);
  const auto chance = ceilinged_agreement(Random(5).normal(actual.sizes()), actual, other, spearman, Random(4));
  CHECK(chance.interval.low < 0);
  CHECK(chance.interval.high > 0);
  CHECK(found.value > chance.interval.high);
  // of a ceiling that is noise itself nothing is a share
  const auto noise = ceilinged_agreement(predicted, actual, Random(5).normal(actual.sizes()), spearman, Random(4));
  CHECK(noise.value == found.value);
  CHECK(std::isnan(noise.share));
  CHECK(std::isnan(noise.share_interval.low));
}

TEST_CASE("without the most helpful examples the loss rises more than without random ones") {
  Chain chain{cluster_stage(1)};
  train(chain[0], Random(0));
  const auto queries = clusters(6, 2);
  const auto order = influence(chain, queries).mean(0).argsort();  // of a loss the helpful ones come first
  auto draws = Random(7);
  std::vector<at::Tensor> weights{at::ones({1, 60}, at::kDouble), removal_weights(order.narrow(0, 0, 12), 60)};
  for (int r = 0; r < 10; ++r) {
    weights.push_back(removal_weights(draws.permutation(60).narrow(0, 0, 12), 60));
  }
  const auto trained = retrain(chain, 0, at::cat(weights), queries, Measurement::kLoss, nullptr, Random(0), {});
  const auto rises = (trained.measurements - trained.measurements[0]).mean(1);
  CHECK(rises[1].item<double>() > 0.01);
  CHECK(rises[1].item<double>() > 2 * rises.narrow(0, 2, 10).max().item<double>());
}

TEST_CASE("changed labels are other labels, as many as asked for, and self-influence finds them") {
  const auto clean = cluster_stage(1);
  auto noisy = mislabel(clean, 0.1, Random(8));
  const auto before = clean.objective.data().targets(), after = noisy.stage.objective.data().targets();
  CHECK(noisy.flipped.sum().item<std::int64_t>() == 6);
  CHECK(at::equal(before.ne(after), noisy.flipped));
  CHECK(after.min().item<std::int64_t>() >= 0);
  CHECK(after.max().item<std::int64_t>() < 3);
  CHECK(at::equal(noisy.stage.objective.data().batch(0, 60).inputs, clean.objective.data().batch(0, 60).inputs));
  train(noisy.stage, Random(0));
  const auto self = self_influence({.chain = {noisy.stage},
                                    .stage = 0,
                                    .attributor = create<Attributor>("influence"),
                                    .curvature = create<Curvature>("hessian"),
                                    .solver = create<Solver>("direct")},
                                   {});
  std::vector<bool> flipped;
  for (std::int64_t i = 0; i < 60; ++i) {
    flipped.push_back(noisy.flipped[i].item<bool>());
  }
  CHECK(auroc(to_numbers(-self.scores), flipped) > 0.9);
  CHECK(found_among_first(-self.scores, noisy.flipped, 0.2) > 0.6);
  CHECK(found_among_first(-self.scores, noisy.flipped, 1) == 1);
  Chain values{test::toy_stage("linear", 0.1)};
  CHECK_THROWS_AS(mislabel(values[0], 0.1, Random(8)), InvalidArgument);
}

TEST_CASE("recall counts ranks, ties against the source") {
  const auto scores = at::tensor({0.5, 2.0, 1.0, 1.0, -1.0}, at::kDouble);
  const auto third = recall_of(scores, at::tensor({0, 0, 0, 1, 1}).to(at::kBool), {1, 3, 5});
  CHECK(third.reciprocal_rank == doctest::Approx(1.0 / 3));
  CHECK(third.recall == std::vector<double>{0, 0.5, 1});
  CHECK(recall_of(scores, at::tensor({0, 1, 0, 0, 0}).to(at::kBool), {1}).reciprocal_rank == 1);
}

TEST_CASE("bm25 by hand") {
  CHECK(words_of("The cat's 2 naïve dogs") == std::vector<std::string>{"the", "cat", "s", "2", "naïve", "dogs"});
  const auto scores = bm25({"the cat", "a bird"}, {"cat sat", "The dog, the"});
  // each word in one text of two: ln(1 + 1.5 / 1.5); lengths 2 and 3 of a mean of 2.5
  CHECK(scores[0][0].item<double>() == doctest::Approx(std::log(2.0) * 2.2 / 2.02).epsilon(1e-12));
  CHECK(scores[0][1].item<double>() == doctest::Approx(std::log(2.0) * 4.4 / 3.38).epsilon(1e-12));
  CHECK(scores[1].abs().max().item<double>() == 0);
}

TEST_CASE("a bank that a stopped run left is gone on with, and gives the same bytes") {
  const test::Scratch scratch;
  Chain chain{cluster_stage(1)};
  train(chain[0], Random(0));
  const auto queries = clusters(6, 2);
  const auto weights = subset_weights(8, 60, 0.5, Random(3));
  int trained = 0;
  const auto run = [&](const std::filesystem::path& folder, const std::string& key, int stop) {
    auto bank = training_bank(folder, key);
    const auto save = bank.save;
    bank.save = [&trained, save, stop](const at::Tensor& row, const RetrainingOutcome& outcome) {
      save(row, outcome);
      if (++trained == stop) {
        throw Interrupted();
      }
    };
    return retrain(chain, 0, weights, queries, Measurement::kLoss, nullptr, Random(0), {}, {}, bank).measurements;
  };
  const auto whole = run(scratch.folder() / "whole", "key", 0);
  CHECK(trained == 8);
  trained = 0;
  CHECK_THROWS_AS(run(scratch.folder() / "bank", "key", 3), Interrupted);
  const int kept = trained;
  CHECK(kept < 8);
  trained = 0;
  CHECK(at::equal(run(scratch.folder() / "bank", "key", 0), whole));
  CHECK(trained == 8 - kept);
  trained = 0;
  CHECK(at::equal(run(scratch.folder() / "bank", "key", 0), whole));
  CHECK(trained == 0);
  run(scratch.folder() / "bank", "another", 0);
  CHECK(trained == 8);
}

TEST_SUITE_END();
