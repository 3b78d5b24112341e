// --method kernel: against influence where the model is its own linearisation, retraining, and finite differences of
// the fit through the stage before.
#include "attribution/made.h"
#include "whence/attribution/started.h"
#include "whence/core/error.h"
#include "whence/evaluate/statistics.h"
#include "whence/kernels/kernel_blocks.h"
#include "whence/kernels/regime.h"
#include "whence/kernels/regime_fit.h"

using namespace whence;
using test::relative_error;

namespace {

constexpr double kDecay = 0.05;

/// A linear model of classes that began at 0 and was trained to its minimum.
Chain linear_chain() {
  const Random random(3);
  Chain chain{begin_stage({.name = "fit",
                           .model = create<Model>("linear"),
                           .loss = create<Loss>("cross-entropy"),
                           .data = test::toy_data("cross-entropy", 14, 3, random.stream("data")),
                           .weight_decay = kDecay},
                          {}, random.stream("start"))};
  chain[0].theta = zeros_like(chain[0].theta);
  test::converge(chain[0]);
  return chain;
}

std::shared_ptr<const Attributor> started(const std::string& spec, const Chain& chain, const TensorList& start) {
  const auto method = create<Attributor>(spec);
  return dynamic_cast<const StartedAttributor&>(*method).with_starts({{chain.back().name, {start, ""}}});
}

/// The mean eigenvalue of the eNTK over N, which the option ridge multiplies.
double unit_of(const Stage& stage, const TensorList& theta) {
  const KernelPoint point{stage.objective, theta, stage.parent, stage.objective.trained().names()};
  const auto& data = stage.objective.data();
  const auto gram = kernel_of(*create<TangentKernel>("entk"), point, data);
  const auto size = gram.size(0) * gram.size(1);
  return gram.view({size, size}).diagonal().mean().item<double>() / static_cast<double>(data.size());
}

std::string with_ridge(double ridge, const std::string& more = "") {
  return fmt::format("kernel:ridge={:.17g}{}", ridge, more);
}

}  // namespace

TEST_SUITE_BEGIN("attribution");

TEST_CASE("kernel: of a model that is its own linearisation it is influence, by every measurement, and of itself") {
  const auto chain = linear_chain();
  const auto start = zeros_like(chain[0].theta);
  const auto queries = test::toy_data("cross-entropy", 4, 3, Random(99));
  const auto method = started(with_ridge(kDecay / unit_of(chain[0], start)), chain, start);
  const auto source = method->prepare(chain, {});
  const auto influence =
      create<Attributor>("influence")->prepare(chain, {create<Curvature>("hessian"), create<Solver>("direct"), {}});
  for (const auto measurement :
       {Measurement::kLoss, Measurement::kLogProbability, Measurement::kLogit, Measurement::kMargin}) {
    CHECK(relative_error(score_matrix(chain, 0, *source, queries, measurement),
                         score_matrix(chain, 0, *influence, queries, measurement)) < 1e-7);
  }
  const auto self = source->self_scorer()(chain[0].objective.data().batch(0, 14));
  CHECK(relative_error(
            self, score_matrix(chain, 0, *influence, chain[0].objective.data(), Measurement::kLoss).diagonal()) < 1e-7);
  auto& tested = dynamic_cast<TestedSource&>(*source);
  CHECK(tested.warnings({0}).empty());
  CHECK(tested.notes({0}).empty());
}

TEST_CASE("kernel: leave-one-out is training again without the example, to the end") {
  const auto chain = linear_chain();
  const auto start = zeros_like(chain[0].theta);
  const auto queries = test::toy_data("cross-entropy", 3, 3, Random(99));
  const auto spec = with_ridge(kDecay / unit_of(chain[0], start), ",leave-one-out");
  const auto scores =
      score_matrix(chain, 0, *started(spec, chain, start)->prepare(chain, {}), queries, Measurement::kLoss);
  const auto now = measure_all(Measurement::kLoss, chain[0], queries);
  for (const std::int64_t i : {0, 5, 13}) {
    auto weights = at::ones({14}, at::kDouble);
    weights[i].zero_();
    const auto without = test::retrained(chain, 0, weights);
    CHECK(relative_error(scores.select(1, i) / -14.0, measure_all(Measurement::kLoss, without[0], queries) - now) <
          1e-6);
  }
}

TEST_CASE(
    "kernel: near its start a wide network without an example ranks as its leave-one-outs do, better than a far one") {
  struct Tried {
    double linear, correlation;  // the linearisation's share of the move; Spearman over examples, mean over queries
  };
  const auto tried = [](const std::string& model, const std::string& descent) {
    constexpr std::int64_t kExamples = 16;
    const Random random(3);
    Chain chain{begin_stage({.name = "fit",
                             .model = create<Model>(model),
                             .loss = create<Loss>("cross-entropy"),
                             .data = test::toy_data("cross-entropy", kExamples, 8, random.stream("data"))},
                            {}, random.stream("start"))};
    auto& stage = chain[0];
    const auto start = clone(stage.theta);
    const auto ended = [&](const at::Tensor& weights) {
      TrainingState state{clone(start), 0, {}};
      create<Optimizer>(descent)->minimise(stage.objective.with_weights(weights), {}, state, Random(0), {});
      return detach(state.theta);
    };
    stage.theta = ended(at::ones({kExamples}, at::kDouble));
    const auto queries = test::toy_data("cross-entropy", 5, 8, Random(99));
    const auto foretold = score_matrix(chain, 0, *started("kernel:leave-one-out", chain, start)->prepare(chain, {}),
                                       queries, Measurement::kLoss) /
                          -static_cast<double>(kExamples);
    const auto now = measure_all(Measurement::kLoss, stage, queries);
    auto happened = at::empty_like(foretold);
    for (std::int64_t i = 0; i < kExamples; ++i) {
      auto weights = at::ones({kExamples}, at::kDouble);
      weights[i].zero_();
      auto without = stage;
      without.theta = ended(weights);
      happened.select(1, i).copy_(measure_all(Measurement::kLoss, without, queries) - now);
    }
    const auto moved = linearise(stage.objective, start, stage.theta, {}, stage.objective.data());
    double correlation = 0;
    for (std::int64_t q = 0; q < queries.size(); ++q) {
      const auto row = [&](const at::Tensor& x) {
        return std::span<const double>(x.const_data_ptr<double>() + q * kExamples, kExamples);
      };
      correlation += spearman(row(foretold), row(happened)) / static_cast<double>(queries.size());
    }
    return Tried{share_of_move(moved.start, moved.linearised, moved.end), correlation};
  };
  const auto wide =
      tried("mlp:widths=2048,activation=relu", "sgd:learning-rate=0.05,momentum=0,max-iterations=60,schedule=constant");
  CHECK(wide.linear > 0.99);
  CHECK(wide.correlation > 0.6);  // descent that stops early is the minimum under no ridge
  const auto far =
      tried("mlp:widths=4,activation=relu", "sgd:learning-rate=1,momentum=0,max-iterations=400,schedule=constant");
  CAPTURE(far.linear);
  CHECK(far.linear < kLinearRecovers);
  CHECK(far.correlation < wide.correlation - 0.15);
}

TEST_CASE("kernel: under a large ridge, at the end, it is grad-dot over the ridge") {
  const auto chain = test::toy_chain({{"full", "cross-entropy"}});
  const auto queries = test::toy_data("cross-entropy", 4, 3, Random(99));
  const double ridge = 1e6 * unit_of(chain[0], chain[0].theta);
  const auto scores = test::scores_of(chain, 0, queries, with_ridge(1e6));
  CHECK(relative_error(ridge * scores, test::scores_of(chain, 0, queries, "grad-dot")) < 1e-4);
}

TEST_CASE("kernel: what the stage before is told is the derivative of the fit as its outputs at the start move") {
  auto chain = test::toy_chain({{"full", "cross-entropy"}, {"full:proximity=0.3", "cross-entropy"}});
  const auto& last = chain[1];
  // the fine-tune began at the parent's body, and a head of its own
  const auto& names = last.objective.trained().names();
  Random draws(5);
  const auto start_on = [&](const TensorList& parent, const TensorList& head) {
    auto theta = head;
    for (std::size_t i = 0; i < names.size(); ++i) {
      for (std::size_t j = 0; j < parent.size(); ++j) {
        if (last.objective.parent_layout().names()[j] == names[i]) {
          theta[i] = parent[j];
        }
      }
    }
    return theta;
  };
  TensorList head;
  for (const auto& value : last.theta) {
    head.push_back(0.4 * draws.normal(value.sizes()));
  }
  const auto start = start_on(last.parent, head);
  const auto queries = test::toy_data("cross-entropy", 2, 3, Random(99));
  const double ridge = 0.5, unit = unit_of(last, start);
  const auto scores = score_matrix(chain, 0, *started(with_ridge(ridge), chain, start)->prepare(chain, {}), queries,
                                   Measurement::kLoss);
  // the same by finite differences of fits with the kernel as it is
  const KernelPoint point{last.objective, start, last.parent, names};
  const auto entk = create<TangentKernel>("entk");
  const auto& data = last.objective.data();
  const auto gram = kernel_of(*entk, point, data).view({36, 36}), rows = kernel_of(*entk, point, queries, &data);
  const auto measured = [&](const TensorList& parent) {
    const auto theta = start_on(parent, head);
    const auto outputs = [&](const Dataset& of) {
      return last.objective.output(theta, parent, of.batch(0, of.size())).detach();
    };
    const RegimeFit fit(gram, outputs(data), data, last.objective.loss(), ridge * unit);
    return measure(Measurement::kLoss, last.objective.loss(), fit.predict(rows.view({6, 36}), outputs(queries)),
                   queries.batch(0, 2));
  };
  const auto merged = chain[0].objective.merge(chain[0].theta, {});
  Directions told;
  for (std::size_t p = 0; p < merged.size(); ++p) {
    const auto& name = merged.names()[p];
    told.add(name, at::zeros(direction_shape(2, merged.values()[p]), at::kDouble));
    for (std::size_t j = 0; j < last.parent.size(); ++j) {
      if (last.objective.parent_layout().names()[j] != name) {
        continue;
      }
      constexpr double kStep = 1e-5;
      for (std::int64_t e = 0; e < last.parent[j].numel(); ++e) {
        const auto at_step = [&](double step) {
          auto parent = clone(last.parent);
          parent[j].view({-1})[e] += step;
          return measured(parent);
        };
        told.values().back().view({2, -1}).select(1, e).copy_((at_step(kStep) - at_step(-kStep)) / (2 * kStep));
      }
    }
  }
  const Chain before{chain[0]};
  Adjoint adjoint(before, {create<Curvature>("gauss-newton"),
                           create<Solver>("auto"),
                           {.response = Response::kProximalBregman, .relative_damping = 1}});
  const auto vectors = adjoint.sweep(told, 0, {})[0].vectors;
  TensorList expected;
  for (std::int64_t i = 0; i < chain[0].objective.data().size(); ++i) {
    const auto point_of = leaves(chain[0].theta);
    const auto loss = chain[0].objective.example_losses(point_of, {}, chain[0].objective.data().batch(i, i + 1)).sum();
    expected.push_back(-at::mv(vectors, flatten(gradient(loss, point_of))));
  }
  CHECK(relative_error(scores, at::stack(expected, 1)) < 1e-5);
  CHECK(scores.abs().max().item<double>() > 0);
}

TEST_CASE("kernel: it says where its fine-tune is not the kernel's, and refuses what has no kernel") {
  auto chain = test::toy_chain({{"full", "cross-entropy"}});
  TensorList start;
  Random draws(2);
  for (const auto& value : chain[0].theta) {
    start.push_back(value + 3 * draws.normal(value.sizes()));  // as far as nothing is linear
  }
  const auto source = started("kernel", chain, start)->prepare(chain, {});
  const auto told = dynamic_cast<TestedSource&>(*source).warnings({0});
  REQUIRE(told.size() == 1);
  CHECK(told[0].starts_with("stage stage0: not in the kernel regime: "));
  const auto blind = create<Attributor>("kernel")->prepare(chain, {});
  CHECK(dynamic_cast<TestedSource&>(*blind).notes({0}).size() == 1);
  CHECK_THROWS_WITH_AS(
      create<Attributor>("kernel:at=start")->prepare(chain, {})->check({0}, Measurement::kLoss, Normalization::kNone),
      doctest::Contains("nobody told where its training began"), InvalidArgument);
  CHECK_THROWS_WITH_AS(source->check({0}, Measurement::kLoss, Normalization::kCosine), doctest::Contains("cosine"),
                       InvalidArgument);
  CHECK_THROWS_AS(create<Attributor>("kernel:filter=all+nothing"), InvalidArgument);
}

TEST_SUITE_END();
