#include <cmath>
#include <set>

#include "support/near.h"
#include "support/toy_chain.h"
#include "whence/evaluate/retraining.h"

using namespace whence;
using test::relative_error;

TEST_SUITE_BEGIN("evaluate");

TEST_CASE("retraining equals training each variant by itself, on any number of threads") {
  const auto chain = test::toy_chain({{"full", "squared-error"}, {"full:proximity=0.3", "cross-entropy"}});
  const auto queries = test::toy_data("cross-entropy", 3, 3, Random(9));
  const auto optimizer = create<Optimizer>("lbfgs:max-iterations=5000,tolerance=1e-12,history=50");
  const auto weights = at::cat({at::ones({1, 12}, at::kDouble), leave_one_out_weights(at::tensor({3L, 7L}), 12)});
  const auto result = retrain(chain, 0, weights, queries, Measurement::kLoss, optimizer.get(), Random(0), {});
  CHECK(result.largest_gradient_norm < 1e-9);
  for (std::int64_t m = 0; m < 3; ++m) {
    const auto alone = test::retrained(chain, 0, weights[m]);
    CHECK(relative_error(result.measurements[m], measure_all(Measurement::kLoss, alone.back(), queries)) < 1e-7);
  }
  CHECK(relative_error(result.measurements[0], measure_all(Measurement::kLoss, chain.back(), queries)) < 1e-7);
  CHECK(std::abs((result.measurements[1] - result.measurements[0]).abs().max().item<double>()) > 1e-6);
}

namespace {

/// Two stages that stop long before a minimum, by minibatches, and how they begin with a seed.
struct StoppedChain {
  explicit StoppedChain(std::uint64_t seed) : random(seed) {
    for (std::size_t k = 0; k < 2; ++k) {
      chain.push_back(begin(k, chain));
      train(chain.back(), random.stream("training of stage " + chain.back().name));
    }
  }
  Stage begin(std::size_t k, const Chain& before) const {
    return begin_stage({.name = "stage" + std::to_string(k),
                        .model = create<Model>("mlp:widths=4,activation=tanh"),
                        .loss = create<Loss>("cross-entropy"),
                        .optimizer = create<Optimizer>("sgd:epochs=3,batch-size=5,learning-rate=0.3"),
                        .data = test::toy_data("cross-entropy", 12, 3, Random(40 + k)),
                        .weight_decay = 0.01},
                       before, random.stream("stage " + std::to_string(k)));
  }
  Random random;
  Chain chain;
};

}  // namespace

TEST_CASE("models that are trained side by side end where each ends by itself") {
  for (const char* optimizer : {"adam:epochs=6,batch-size=5,learning-rate=0.02",
                                "sgd:epochs=6,batch-size=5,micro-batch=3", "sgd:epochs=6,nesterov=true,momentum=0.8"}) {
    CAPTURE(optimizer);
    auto stage = begin_stage({.name = "only",
                              .model = create<Model>("mlp:widths=4/3,activation=relu"),
                              .loss = create<Loss>("cross-entropy"),
                              .optimizer = create<Optimizer>(optimizer),
                              .data = test::toy_data("cross-entropy", 12, 3, Random(40)),
                              .weight_decay = 0.01},
                             {}, Random(3));
    train(stage, Random(4));
    const Chain chain{stage};
    const auto queries = test::toy_data("cross-entropy", 4, 3, Random(9));
    const auto weights = at::cat({subset_weights(4, 12, 0.5, Random(5)), at::ones({1, 12}, at::kDouble)});
    const auto train_with = [&](const at::Tensor& some) {
      return retrain(chain, 0, some, queries, Measurement::kLoss, nullptr, Random(6), {});
    };
    const auto together = train_with(weights);
    double largest = 0;
    for (std::int64_t m = 0; m < 5; ++m) {
      const auto alone = train_with(weights.narrow(0, m, 1));
      CHECK(relative_error(together.measurements[m], alone.measurements[0]) < 1e-11);
      largest = std::max(largest, alone.largest_gradient_norm);
    }
    CHECK(together.largest_gradient_norm == doctest::Approx(largest).epsilon(1e-9));
    CHECK(together.unconverged == 5);
    CHECK(relative_error(together.measurements[0], together.measurements[1]) > 1e-4);
  }
}

TEST_CASE("retraining from the start with the same seed gives the chain again to the bit, and with another does not") {
  const StoppedChain made(5), other(6);
  const auto queries = test::toy_data("cross-entropy", 4, 3, Random(9));
  const auto ends_at = measure_all(Measurement::kLoss, made.chain.back(), queries);
  const auto with = [&](const StoppedChain& from) {
    return retrain(made.chain, 0, at::ones({1, 12}, at::kDouble), queries, Measurement::kLoss, nullptr, from.random, {},
                   [&](std::size_t k, const Chain& before) { return from.begin(k, before); })
        .measurements[0];
  };
  CHECK(at::equal(with(made), ends_at));
  CHECK(relative_error(with(other), ends_at) > 1e-3);
  CHECK(at::equal(with(other), measure_all(Measurement::kLoss, other.chain.back(), queries)));
  const auto went_on =
      retrain(made.chain, 0, at::ones({1, 12}, at::kDouble), queries, Measurement::kLoss, nullptr, made.random, {});
  CHECK(relative_error(went_on.measurements[0], ends_at) > 1e-3);
}

TEST_CASE("the progress callback stops retraining at whichever report it throws") {
  const auto chain = test::toy_chain({{"full", "squared-error"}});
  const auto queries = test::toy_data("squared-error", 1, 3, Random(9));
  for (const int stop : {1, 2, 5}) {
    int seen = 0;
    const auto stopping = [&](const ProgressEvent&) {
      if (++seen == stop) {
        throw Interrupted();
      }
    };
    CHECK_THROWS_AS(retrain(chain, 0, leave_one_out_weights(at::arange(12), 12), queries, Measurement::kLoss, nullptr,
                            Random(0), stopping),
                    Interrupted);
    CHECK(seen == stop);
  }
}

TEST_CASE("rows across the scores hold both ends and no row twice") {
  const auto scores =
      at::stack({at::tensor({5.0, -1.0, 3.0, 0.0, 9.0, 2.0, 1.0}, at::kDouble), at::zeros({7}, at::kDouble)});
  CHECK(at::equal(rows_across_scores(scores, 4), at::tensor({1L, 6L, 2L, 4L})));
  CHECK(at::equal(rows_across_scores(scores, 50), at::arange(7)));
}

TEST_CASE("removal weights leave rows out and keep a mean over the others") {
  const auto weights = removal_weights(at::tensor({1L, 4L}), 5);
  CHECK(relative_error(weights, at::tensor({5.0, 0.0, 5.0, 5.0, 0.0}, at::kDouble).unsqueeze(0) / 3) < 1e-15);
}

TEST_CASE("subset weights keep a mean over the subset") {
  const auto weights = subset_weights(20, 11, 0.5, Random(3));
  for (std::int64_t m = 0; m < 20; ++m) {
    CHECK(weights[m].sum().item<double>() == doctest::Approx(11));
    CHECK(weights[m].gt(0).sum().item<std::int64_t>() == 5);
  }
  CHECK_FALSE(at::equal(weights[0], weights[1]));
  CHECK(at::equal(weights, subset_weights(20, 11, 0.5, Random(3))));
}

TEST_SUITE_END();
