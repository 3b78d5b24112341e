// Responses of stages that are at no minimum, against truth: the chain of proximal Bregman objectives minimised anew,
// and gradient descent run anew.
#include <torch/csrc/autograd/autograd.h>

#include "measured.h"
#include "support/near.h"
#include "support/toy_chain.h"
#include "whence/evaluate/statistics.h"
#include "whence/stages/adjoint.h"

using namespace whence;
using test::measured_gradient;
using test::relative_error;

namespace {

/// The loss of the last stage for its own first example, as a function of (theta, parent).
at::Tensor measured(const Chain& chain, const TensorList& theta, const TensorList& parent) {
  const auto& objective = chain.back().objective;
  return objective.example_losses(theta, parent, objective.data().batch(0, 1)).sum();
}

/// Scores of a stage's examples from its adjoint: -sum over the points of s . grad loss there.
at::Tensor scores(const Stage& stage, const std::vector<TensorList>& points, const at::Tensor& vectors) {
  const auto n = stage.objective.data().size();
  auto out = at::zeros({n}, at::kDouble);
  for (std::int64_t i = 0; i < n; ++i) {
    std::int64_t offset = 0;
    for (const auto& theta : points) {
      const auto point = leaves(theta);
      const auto loss = stage.objective.example_losses(point, stage.parent, stage.objective.data().batch(i, i + 1));
      const auto g = flatten(gradient(loss.sum(), point));
      out[i] -= at::dot(vectors[0].narrow(0, offset, g.numel()), g);
      offset += g.numel();
    }
  }
  return out;
}

/// A stage's objective as its proximal Bregman surrogate around where the stage stands, plus sum_i weights_i loss_i.
class Surrogate {
 public:
  Surrogate(const Stage& stage, double damping, at::Tensor weights)
      : stage_(stage), damping_(damping), weights_(std::move(weights)) {
    const auto theta = leaves(stage.theta), parent = leaves(stage.parent);
    auto all = theta;
    all.insert(all.end(), parent.begin(), parent.end());
    penalty_slope_ = gradient(stage.objective.penalty(theta, parent), all);
    batch_ = stage.objective.data().batch(0, stage.objective.data().size());
    const auto output = stage.objective.output(stage.theta, stage.parent, batch_).detach().requires_grad_(true);
    anchor_output_ = output.detach();
    output_slope_ = gradient(stage.objective.loss().per_example(output, batch_).sum(), TensorList{output})[0];
  }

  at::Tensor value(const TensorList& theta, const TensorList& parent) const {
    const auto& objective = stage_.objective;
    const auto output = objective.output(theta, parent, batch_);
    const auto losses = objective.loss().per_example(output, batch_);
    const auto divergence = losses.sum() - (output_slope_ * (output - anchor_output_)).sum();
    auto out =
        divergence / static_cast<double>(batch_.size()) + objective.penalty(theta, parent) + (weights_ * losses).sum();
    for (std::size_t i = 0; i < theta.size(); ++i) {
      const auto step = theta[i] - stage_.theta[i];
      out = out + damping_ / 2 * step.square().sum() - (penalty_slope_[i] * step).sum();
    }
    for (std::size_t j = 0; j < parent.size(); ++j) {
      out = out - (penalty_slope_[theta.size() + j] * (parent[j] - stage_.parent[j])).sum();
    }
    return out;
  }

  /// By Newton's method from the anchor.
  TensorList minimise(const TensorList& parent) const {
    auto theta = clone(stage_.theta);
    for (int step = 0; step < 50; ++step) {
      const auto point = leaves(theta);
      const auto g = flatten(gradient(value(point, parent), point, true));
      if (g.norm().item<double>() < 1e-14) {
        break;
      }
      TensorList rows;
      for (std::int64_t i = 0; i < g.numel(); ++i) {
        rows.push_back(flatten(gradient(g[i], point, false, true)));
      }
      const auto move = unflatten(at::linalg_solve(at::stack(rows), g.detach()), theta);
      for (std::size_t i = 0; i < theta.size(); ++i) {
        theta[i] = theta[i] - move[i];
      }
    }
    return detach(theta);
  }

 private:
  const Stage& stage_;
  double damping_;
  at::Tensor weights_;
  Batch batch_;
  TensorList penalty_slope_;
  at::Tensor anchor_output_, output_slope_;
};

/// `steps` of gradient descent from where the stage stands, with the ends of `segments` equal parts kept.
void descend(Stage& stage, double rate, std::int64_t steps, std::int64_t segments) {
  stage.trajectory.clear();
  for (std::int64_t step = 1; step <= steps; ++step) {
    TensorList g;
    stage.objective.value(stage.theta, stage.parent, &g);
    for (std::size_t i = 0; i < g.size(); ++i) {
      stage.theta[i] = stage.theta[i] - rate * g[i];
    }
    if (step % (steps / segments) == 0) {
      const auto part = steps / segments;
      stage.trajectory.push_back({clone(stage.theta), {}, rate * static_cast<double>(part), part, step});
    }
  }
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("proximal-bregman is the derivative of the chain of Bregman objectives around anchors that are no minima") {
  const double damping = 0.08;
  const std::vector<std::vector<test::ToyStage>> chains{
      {{"full", "cross-entropy"}, {"full:proximity=0.3", "cross-entropy"}},
      {{"full", "squared-error"}, {"head", "cross-entropy"}},
      {{"full", "cross-entropy"}, {"full:proximity=0.5", "squared-error"}, {"head", "cross-entropy"}}};
  for (const auto& kinds : chains) {
    CAPTURE(kinds.size());
    auto chain = test::toy_chain(kinds);
    auto random = Random(9);
    for (std::size_t k = 0; k < chain.size(); ++k) {  // somewhere else
      for (auto& value : chain[k].theta) {
        value = value + 0.4 * random.normal(value.sizes());
      }
      if (k > 0) {
        chain[k].parent = detach(chain[k - 1].handed_on().values());
      }
    }
    const auto curvature = create<Curvature>("gauss-newton");
    const auto solver = create<Solver>("direct");
    Adjoint adjoint(chain, *curvature, *solver, {.response = Response::kProximalBregman, .damping = damping});
    const auto adjoints = adjoint.sweep(measured_gradient(chain), 0, {});
    for (std::size_t s = 0; s < chain.size(); ++s) {
      CAPTURE(s);
      const auto predicted = scores(chain[s], adjoint.points(s), adjoints[s].vectors);
      for (const std::int64_t row : {0, 5}) {
        double f[2];
        const double h = 1e-5;
        for (int side = 0; side < 2; ++side) {
          TensorList parent = chain[0].parent, theta;
          for (std::size_t k = 0; k < chain.size(); ++k) {
            auto weights = at::zeros({chain[k].objective.data().size()}, at::kDouble);
            if (k == s) {
              weights[row] = side == 0 ? -h : h;
            }
            theta = Surrogate(chain[k], damping, weights).minimise(parent);
            if (k + 1 < chain.size()) {
              auto moved = chain[k];
              moved.theta = theta;
              moved.parent = parent;
              parent = detach(moved.handed_on().values());
            }
          }
          f[side] = measured(chain, theta, parent).item<double>();
        }
        const double scale = predicted.abs().max().item<double>();
        CHECK(std::abs((f[1] - f[0]) / (2 * h) - predicted[row].item<double>()) < 1e-7 * scale);
      }
    }
  }
}

TEST_CASE("segment is unrolled gradient descent on a quadratic, and infinitely long it is the inverse") {
  auto stage = test::toy_chain({{"full", "squared-error"}}, "linear")[0];
  const Chain chain{stage};
  const auto n = count_entries(stage.theta);
  const auto q = Random(3).normal({1, n}), g = Random(4).normal({n});
  const double rate = 0.05;
  for (const std::int64_t steps : {1, 40, 100000}) {
    const auto descended = [&](double epsilon) {  // descent on Phi + epsilon g . theta
      auto theta = flatten(stage.theta) + 1;
      TensorList slope;
      for (std::int64_t t = 0; t < steps; ++t) {
        stage.objective.value(unflatten(theta, stage.theta), stage.parent, &slope);
        theta = theta - rate * (flatten(slope) + epsilon * g);
      }
      return at::dot(q[0], theta).item<double>();
    };
    for (const char* solver_spec : {"direct", "lanczos"}) {
      CAPTURE(steps);
      CAPTURE(solver_spec);
      const auto curvature = create<Curvature>("gauss-newton");
      const auto solver = create<Solver>(solver_spec);
      InverseOptions options{.response = Response::kSegment};
      options.time = rate * static_cast<double>(steps);
      options.steps = steps;
      Adjoint adjoint(chain, *curvature, *solver, options);
      const auto s = adjoint.sweep(directions_of(q, stage.objective.trained()), 0, {})[0].vectors;
      const double predicted = -at::dot(s[0], g).item<double>();
      if (steps <= 1000) {
        CHECK(std::abs(predicted - (descended(0.5) - descended(-0.5))) < 1e-10 * std::abs(predicted));
      } else {
        Adjoint inverse(chain, *curvature, *solver, {});
        CHECK(relative_error(s, inverse.sweep(directions_of(q, stage.objective.trained()), 0, {})[0].vectors) < 1e-8);
      }
    }
  }
}

TEST_CASE("segments of preconditioned descent on a quadratic are unrolled exactly, one after the other") {
  auto stage = test::toy_chain({{"full", "squared-error"}}, "linear")[0];
  const auto n = count_entries(stage.theta);
  const auto q = Random(3).normal({1, n}), g = Random(4).normal({n});
  const double rate = 0.04;
  const std::int64_t steps = 15, segments = 3;
  TensorList preconditioners;  // adam's changes from segment to segment
  for (std::int64_t s = 0; s < segments; ++s) {
    preconditioners.push_back(Random(10 + static_cast<std::uint64_t>(s)).uniform({n}, 0.5, 2));
    stage.trajectory.push_back(
        {clone(stage.theta), unflatten(preconditioners.back(), stage.theta), rate * static_cast<double>(steps), steps});
  }
  const auto descended = [&](double epsilon) {
    auto theta = flatten(stage.theta) + 1;
    TensorList slope;
    for (std::int64_t t = 0; t < segments * steps; ++t) {
      stage.objective.value(unflatten(theta, stage.theta), stage.parent, &slope);
      theta = theta - rate * preconditioners[static_cast<std::size_t>(t / steps)] * (flatten(slope) + epsilon * g);
    }
    return at::dot(q[0], theta).item<double>();
  };
  const double actual = descended(0.5) - descended(-0.5);
  const Chain chain{stage};
  for (const char* spec : {"direct", "lanczos"}) {
    CAPTURE(spec);
    const auto curvature = create<Curvature>("gauss-newton");
    const auto solver = create<Solver>(spec);
    Adjoint adjoint(chain, *curvature, *solver, {.response = Response::kSegment});
    const auto s = adjoint.sweep(directions_of(q, stage.objective.trained()), 0, {})[0].vectors;
    const double predicted = -at::dot(s[0], g.repeat({segments})).item<double>();
    CHECK(std::abs(predicted - actual) < 1e-10 * std::abs(actual));
  }
}

TEST_CASE("segments follow descent from a parent, closer the more of them there are") {
  auto chain = test::toy_chain({{"full", "cross-entropy"}, {"full", "cross-entropy"}}, "mlp:widths=4,activation=tanh");
  const double rate = 0.3;
  const std::int64_t steps = 60;
  const auto start = [&](const Chain& from) {  // the second stage's head anew, its body the parent's
    auto stage = from[1];
    stage.parent = detach(from[0].handed_on().values());
    auto random = Random(6);
    for (std::size_t i = 0; i < stage.theta.size(); ++i) {
      const auto& name = stage.objective.trained().names()[i];
      const auto& layout = stage.objective.parent_layout();
      const auto found = std::find(layout.names().begin(), layout.names().end(), name) - layout.names().begin();
      stage.theta[i] = layout.contains(name) ? stage.parent[static_cast<std::size_t>(found)].clone()
                                             : 0.3 * random.normal(stage.theta[i].sizes());
    }
    return stage;
  };
  const auto n = chain[0].objective.data().size();
  const auto truth = [&](std::size_t s, std::int64_t row) {
    const double h = 1e-3;
    double f[2];
    for (int side = 0; side < 2; ++side) {
      auto weights = at::ones({n}, at::kDouble);
      weights[row] += side == 0 ? -h : h;
      Chain again = chain;
      if (s == 0) {
        again = test::retrained({chain[0]}, 0, weights);
        again.push_back(chain[1]);
      }
      again[1] = start(again);
      auto stage = again[1];
      if (s == 1) {
        stage.objective = stage.objective.with_weights(weights);
      }
      descend(stage, rate, steps, 1);
      f[side] = measured(again, stage.theta, stage.parent).item<double>();
    }
    return static_cast<double>(n) * (f[1] - f[0]) / (2 * h);
  };
  std::vector<std::vector<double>> actual(2);
  for (std::size_t s = 0; s < 2; ++s) {
    for (std::int64_t row = 0; row < n; ++row) {
      actual[s].push_back(truth(s, row));
    }
  }
  const auto predicted = [&](std::int64_t segments) {
    auto trained = chain;
    trained[1] = start(chain);
    descend(trained[1], rate, steps, segments);
    // the first stage is at its minimum: descent without end
    trained[0].trajectory = {{trained[0].theta, {}, 1e6, 0, 0}};
    const auto curvature = create<Curvature>("hessian");
    const auto solver = create<Solver>("direct");
    Adjoint adjoint(trained, *curvature, *solver, {.response = Response::kSegment});
    const auto adjoints = adjoint.sweep(measured_gradient(trained), 0, {});
    std::vector<std::vector<double>> out(2);
    for (std::size_t s = 0; s < 2; ++s) {
      const auto values = scores(trained[s], adjoint.points(s), adjoints[s].vectors);
      for (std::int64_t row = 0; row < n; ++row) {
        out[s].push_back(values[row].item<double>());
      }
    }
    return out;
  };
  const auto few = predicted(1), many = predicted(60);
  const auto error = [](const std::vector<double>& a, const std::vector<double>& b) {
    return relative_error(at::tensor(a, at::kDouble), at::tensor(b, at::kDouble));
  };
  for (std::size_t s = 0; s < 2; ++s) {
    CAPTURE(s);
    MESSAGE("relative error with 1 segment ", error(few[s], actual[s]), ", with 60 ", error(many[s], actual[s]));
    CHECK(error(many[s], actual[s]) < 0.2);  // curvature at the end of each step, not along it
    CHECK(error(many[s], actual[s]) < error(few[s], actual[s]));
  }
}

TEST_CASE("choices that are the derivative of no objective are refused with the reason") {
  const auto chain = test::toy_chain({{"full", "cross-entropy"}, {"full:proximity=0.3", "cross-entropy"}});
  const auto exact = create<Curvature>("hessian"), newton = create<Curvature>("gauss-newton");
  const auto cg = create<Solver>("cg"), factors = create<Solver>("ekfac");
  CHECK_THROWS_WITH_AS(Adjoint(chain, *exact, *factors, {}), doctest::Contains("use --curvature gauss-newton"),
                       InvalidArgument);
  CHECK_NOTHROW(Adjoint(chain, *newton, *factors, {}));
  CHECK_NOTHROW(Adjoint({chain[0]}, *exact, *factors, {}));  // one stage mixes nothing
  CHECK_THROWS_WITH_AS(Adjoint(chain, *exact, *cg, {.response = Response::kProximalBregman}),
                       doctest::Contains("family hessian"), InvalidArgument);
  CHECK_THROWS_WITH_AS(
      Adjoint(chain, *newton, *cg, {.response = Response::kSegment, .inversion = Inversion::kFiltered}),
      doctest::Contains("inversion = filtered"), InvalidArgument);
  InverseOptions options;
  CHECK_THROWS_WITH_AS(set_response("segmnt", options), doctest::Contains("did you mean \"segment\"?"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(set_response("segment:time=-1", options), doctest::Contains("time = -1"), InvalidArgument);
  set_response("segment:time=12,steps=30", options);
  CHECK(options.time == 12);
  CHECK(options.steps == 30);
}

TEST_SUITE_END();
