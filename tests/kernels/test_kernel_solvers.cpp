#include "kernels/points.h"
#include "whence/core/error.h"
#include "whence/kernels/kernel_solver.h"

using namespace whence;
using namespace whence::test;

namespace {

/// A linear model of `width` parameters and its kernel: outputs are f0 + <gradient, parameters>.
struct LinearProblem {
  at::Tensor gradients, asked;  // [N, C, P], [Q, C, P]
  KernelProblem problem;
  KernelQueries queries;
};
LinearProblem linear_problem(std::int64_t examples, std::int64_t outputs, std::int64_t width, bool start,
                             std::uint64_t seed = 1) {
  Random random(seed);
  LinearProblem out;
  out.gradients = random.normal({examples, outputs, width});
  out.asked = random.normal({3, outputs, width});
  out.problem.kernel = at::tensordot(out.gradients, out.gradients, {2}, {2});
  out.problem.classes = std::max<std::int64_t>(2, outputs);
  out.problem.labels = random.permutation(examples).remainder(out.problem.classes);
  out.queries.kernel = at::tensordot(out.asked, out.gradients, {2}, {2});
  if (start) {
    out.problem.start = random.normal({examples, outputs});
    out.queries.start = random.normal({3, outputs});
  }
  return out;
}

at::Tensor start_or_zero(const at::Tensor& start, const at::Tensor& like) {
  return start.defined() ? start : at::zeros_like(like);
}

/// Parameters [P] at which gradient descent on sum_i w_i loss_i + lambda / 2 |theta|^2 from 0 ends, for outputs f0 + J
/// theta, by Newton's method in the primal; `curved`: the loss is cross-entropy, or of one output logistic.
at::Tensor primal_fit(const LinearProblem& linear, double lambda, bool curved, const at::Tensor& weights) {
  const auto width = linear.gradients.size(2);
  const auto targets = class_targets(linear.problem.labels, linear.gradients.size(1));
  auto theta = at::zeros({width}, at::kDouble);
  for (int step = 0; step < (curved ? 25 : 1); ++step) {
    theta = theta.detach().requires_grad_(true);
    const auto f = at::matmul(linear.gradients, theta);
    const auto outputs = f + start_or_zero(linear.problem.start, f);
    at::Tensor losses;
    if (!curved) {
      losses = (outputs - targets).square().sum(1) / 2;
    } else if (targets.size(1) == 1) {
      losses = at::softplus(-targets * outputs).squeeze(1);
    } else {
      losses = -(at::log_softmax(outputs, 1) * targets).sum(1);
    }
    const auto value = (weights * losses).sum() + lambda / 2 * theta.square().sum();
    const auto slope = gradient(value, TensorList{theta}, true)[0];
    TensorList rows;
    for (std::int64_t p = 0; p < width; ++p) {
      rows.push_back(gradient(slope[p], TensorList{theta}, false, true)[0]);
    }
    theta = theta.detach() - at::linalg_solve(at::stack(rows), slope.detach());
  }
  return theta.detach();
}

at::Tensor primal_outputs(const LinearProblem& linear, const at::Tensor& theta) {
  const auto f = at::matmul(linear.asked, theta);
  return f + start_or_zero(linear.queries.start, f);
}

std::unique_ptr<KernelFit> fit(const std::string& spec, const LinearProblem& linear) {
  return create<KernelSolver>(spec)->fit(linear.problem);
}

/// Closed form against fitting again, group by group; how far the largest change is from none.
double check_left_out(const KernelFit& fitted, const KernelQueries& queries) {
  const std::vector<std::vector<std::int64_t>> groups{{0}, {4}, {1, 3}, {2, 5, 0}, {}};
  const auto refit = fitted.leave_out(queries, groups, LeaveOut::kRefit);
  REQUIRE(fitted.ways().front() == LeaveOut::kClosed);
  CHECK(relative_error(fitted.leave_out(queries, groups, LeaveOut::kClosed), refit) < Tolerance::kDense);
  CHECK(refit[4].equal(fitted.outputs(queries)));
  const auto foretold = fitted.foretold();
  const auto& problem = fitted.problem();
  for (const std::int64_t i : {0, 3}) {
    const KernelQueries own{
        problem.kernel.narrow(0, i, 1), {}, problem.start.defined() ? problem.start.narrow(0, i, 1) : at::Tensor()};
    CHECK(relative_error(foretold[i], fitted.leave_out(own, {{i}}, LeaveOut::kRefit)[0][0]) < Tolerance::kDense);
  }
  CHECK(fitted.leave_one_out(queries).sizes() ==
        at::IntArrayRef({problem.kernel.size(0), queries.kernel.size(0), problem.kernel.size(1)}));
  return (refit - fitted.outputs(queries)).abs().max().item<double>();
}

}  // namespace

TEST_SUITE_BEGIN("kernels");

TEST_CASE("ridge and least squares on the eNTK are where training of the linearised model ends") {
  const KernelCase bench(kTuningCases[0]);  // six examples, two outputs
  const auto stage = bench.moved("full");
  const auto point = point_of(stage);
  const auto& data = stage.objective.data();
  LinearProblem linear;
  linear.gradients = at::cat(output_gradients(point, data), 2);
  linear.asked = linear.gradients.narrow(0, 0, 2) + 0.1 * Random(1).normal({2, 2, linear.gradients.size(2)});
  linear.problem.kernel = kernel_of(*create<TangentKernel>("entk"), point, data);
  linear.problem.targets = data.targets();
  linear.problem.start = outputs_at(point, data);
  linear.queries.kernel = at::tensordot(linear.asked, linear.gradients, {2}, {2});
  linear.queries.start = linear.problem.start.narrow(0, 0, 2);
  for (const double lambda : {0.0, 0.3}) {
    CAPTURE(lambda);
    // gradient descent on sum_i |f0 + J theta - y|^2 / 2 + lambda / 2 |theta|^2 from theta = 0, accelerated
    const auto j = linear.gradients.flatten(0, 1);
    const auto rest = (linear.problem.targets - linear.problem.start).flatten();
    const double steepest = at::linalg_eigvalsh(at::mm(j, j.t())).max().item<double>() + lambda;
    auto theta = at::zeros({j.size(1)}, at::kDouble), before = theta, slope = theta;
    for (int step = 0; step < 200000; ++step) {
      const auto ahead = theta + 0.99 * (theta - before);
      slope = at::mv(j.t(), at::mv(j, ahead) - rest) + lambda * ahead;
      before = theta;
      theta = ahead - slope / steepest;
      if (slope.abs().max().item<double>() < 1e-13) {
        break;
      }
    }
    REQUIRE(slope.abs().max().item<double>() < 1e-11);
    const auto fitted = fit(lambda == 0 ? "least-squares" : "kernel-ridge:lambda=0.3", linear);
    const auto expected = at::matmul(linear.asked, theta) + linear.queries.start;
    CHECK(relative_error(fitted->outputs(linear.queries), expected) < 1e-8);
    if (lambda == 0) {
      CHECK(relative_error(fitted->own_outputs(), linear.problem.targets) < 1e-8);  // it reaches all
    }
  }
}

TEST_CASE("without examples: the closed form of regressions is fitting again") {
  struct Case {
    std::string name, spec;
    std::int64_t examples, outputs, width;
    bool start, asymmetric;
  };
  const std::vector<Case> cases = {
      {"ridge", "kernel-ridge:lambda=0.7", 7, 2, 40, false, false},
      {"ridge, one output, f0", "kernel-ridge:relative-lambda=1e-2", 7, 1, 40, true, false},
      {"ridge, more examples than parameters", "kernel-ridge:lambda=0.2", 9, 2, 5, true, false},
      {"ridge, outputs apart", "kernel-ridge:lambda=0.7,outputs=separate", 7, 3, 40, true, false},
      {"ridge, a kernel that is not symmetric", "kernel-ridge:lambda=0.7", 7, 2, 40, true, true},
      {"least squares", "least-squares", 7, 2, 40, true, false},
      {"least squares, outputs apart", "least-squares:outputs=separate", 7, 2, 40, false, false},
      {"least squares, more examples than parameters", "least-squares", 9, 2, 5, true, false},
      {"least squares, a kernel that is not symmetric", "least-squares", 7, 2, 40, true, true},
  };
  for (const auto& on : cases) {
    CAPTURE(on.name);
    auto linear = linear_problem(on.examples, on.outputs, on.width, on.start);
    if (on.asymmetric) {
      linear.problem.kernel = at::tensordot(linear.gradients, linear.gradients.sign(), {2}, {2});
      linear.queries.kernel = at::tensordot(linear.asked, linear.gradients.sign(), {2}, {2});
    }
    CHECK(check_left_out(*fit(on.spec, linear), linear.queries) > 1e-3);
  }
  // an example that alone spans a direction takes it away
  auto alone = linear_problem(8, 1, 4, false);
  alone.gradients.select(2, 3).zero_();
  alone.gradients.select(0, 4).select(1, 3).fill_(2);
  alone.problem.kernel = at::tensordot(alone.gradients, alone.gradients, {2}, {2});
  alone.queries.kernel = at::tensordot(alone.asked, alone.gradients, {2}, {2});
  CHECK(check_left_out(*fit("least-squares", alone), alone.queries) > 1e-3);
}

TEST_CASE("influence is the derivative in the weight of an example's loss") {
  struct Case {
    std::string spec;
    std::int64_t examples, outputs, width;
    double lambda;
    bool curved;
  };
  const std::vector<Case> cases = {
      {"kernel-ridge:lambda=0.7", 7, 2, 10, 0.7, false},
      {"least-squares", 9, 2, 5, 0, false},
      {"kernel-logistic:lambda=0.4,tolerance=1e-13", 7, 3, 10, 0.4, true},
      {"kernel-logistic:lambda=0.4,tolerance=1e-13", 7, 1, 10, 0.4, true},
  };
  for (const auto& on : cases) {
    CAPTURE(on.spec);
    CAPTURE(on.outputs);
    const auto linear = linear_problem(on.examples, on.outputs, on.width, true);
    const auto fitted = fit(on.spec, linear);
    const auto influence = fitted->influence(linear.queries), own = fitted->self_influence();
    const auto targets = class_targets(linear.problem.labels, on.outputs);
    const auto n = static_cast<double>(on.examples);
    for (const std::int64_t i : {0, 4}) {
      constexpr double kStep = 1e-5;
      TensorList queries, losses;
      for (const double sign : {1.0, -1.0}) {
        auto weights = at::ones({on.examples}, at::kDouble);
        weights[i] += sign * kStep;
        const auto theta = primal_fit(linear, on.lambda, on.curved, weights);
        queries.push_back(primal_outputs(linear, theta));
        const auto f = at::matmul(linear.gradients[i], theta) + linear.problem.start[i];
        losses.push_back(!on.curved        ? (f - targets[i]).square().sum() / 2
                         : on.outputs == 1 ? at::softplus(-targets[i] * f).sum()
                                           : -(at::log_softmax(f, 0) * targets[i]).sum());
      }
      CHECK(relative_error(influence.select(2, i), n * (queries[0] - queries[1]) / (2 * kStep)) <
            Tolerance::kDifferences);
      CHECK(relative_error(own[i], n * (losses[0] - losses[1]) / (2 * kStep)) < Tolerance::kDifferences);
    }
    CHECK(own.max().item<double>() <= 1e-12);
  }
}

TEST_CASE("logistic regression is the dense primal fit, its slope 0") {
  for (const std::int64_t outputs : {1, 2, 3}) {
    for (const bool start : {false, true}) {
      CAPTURE(outputs);
      CAPTURE(start);
      const auto linear = linear_problem(9, outputs, 6, start);
      const auto fitted = fit("kernel-logistic:lambda=0.2,tolerance=1e-12", linear);
      const auto theta = primal_fit(linear, 0.2, true, at::ones({9}, at::kDouble));
      CHECK(relative_error(fitted->outputs(linear.queries), primal_outputs(linear, theta)) < Tolerance::kDense);
      const auto f = fitted->own_outputs();
      const auto p = outputs == 1 ? at::sigmoid(f) : at::softmax(f, 1);
      const auto y = outputs == 1 ? linear.problem.labels.to(at::kDouble).unsqueeze(1)
                                  : class_targets(linear.problem.labels, outputs);
      CHECK((p - y + 0.2 * fitted->coefficients()).abs().max().item<double>() < 1e-12);
      CHECK(fitted->lambda() == 0.2);
    }
  }
}

TEST_CASE("logistic regression without examples: fitting again, and one step that says it is one") {
  auto linear = linear_problem(12, 3, 8, true);
  const auto fitted = fit("kernel-logistic:lambda=2", linear);
  const std::vector<std::vector<std::int64_t>> groups{{0}, {3}, {1, 5}};
  CHECK((fitted->ways() == std::vector{LeaveOut::kRefit, LeaveOut::kOneStep}));
  const auto refit = fitted->leave_out(linear.queries, groups, LeaveOut::kRefit);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    auto weights = at::ones({12}, at::kDouble);
    weights.index_fill_(0, at::tensor(groups[g], at::kLong), 0);
    CHECK(relative_error(refit[static_cast<std::int64_t>(g)],
                         primal_outputs(linear, primal_fit(linear, 2, true, weights))) < 1e-8);
  }
  const auto step = fitted->leave_out(linear.queries, groups, LeaveOut::kOneStep);
  const auto whole = fitted->outputs(linear.queries);
  const double error = relative_error(step - whole, refit - whole);
  CHECK(error < 0.2);   // most of what changes
  CHECK(error > 1e-6);  // but no more than a step
  CHECK_THROWS_WITH_AS(fitted->leave_out(linear.queries, groups, LeaveOut::kClosed),
                       "kernel: leaving out by closed form, which this fit has not", InvalidArgument);
}

TEST_CASE("lambda: by leave-one-out for ridge, by seeded folds for logistic regression, the best of what was tried") {
  const auto linear = linear_problem(14, 2, 6, false);
  const double scale = linear.problem.kernel.view({28, 28}).diagonal().mean().item<double>();
  const auto targets = class_targets(linear.problem.labels, 2);
  const auto chosen = fit("kernel-ridge", linear);
  double best = INFINITY, lambda = 0;
  for (int power = -6; power <= 2; ++power) {
    const double tried = scale * std::pow(10.0, power);
    const auto ridge = fit(fmt::format("kernel-ridge:lambda={:.17g}", tried), linear);
    const double error = (ridge->foretold() - targets).square().sum().item<double>();
    if (error < best) {
      best = error;
      lambda = tried;
    }
  }
  CHECK(chosen->lambda() == doctest::Approx(lambda));
  REQUIRE(chosen->notes().size() == 1);
  CHECK(chosen->notes()[0].find("of 9 the one with the least leave-one-out error") != std::string::npos);

  // labels that the kernel knows nothing of take a large lambda, those that it knows a small one
  auto random_labels = linear_problem(24, 1, 5, false), clear = random_labels;
  const auto direction = Random(3).normal({5});
  clear.problem.labels = at::matmul(clear.gradients, direction).squeeze(1).gt(0).to(at::kLong);
  const auto a = fit("kernel-logistic:seed=1", random_labels), b = fit("kernel-logistic:seed=1", clear);
  CHECK(a->lambda() > b->lambda());
  CHECK(a->lambda() == fit("kernel-logistic:seed=1", random_labels)->lambda());
  CHECK(a->notes()[0].find("of 9 the one with the least loss by 5 folds") != std::string::npos);
  CHECK(predicted_classes(b->own_outputs()).equal(clear.problem.labels));
}

TEST_CASE("support vectors satisfy the conditions of their optimum") {
  const auto linear = linear_problem(20, 1, 4, false);
  const auto kernel = linear.problem.kernel.view({20, 20});
  const auto y = linear.problem.labels.to(at::kDouble) * 2 - 1;
  constexpr double kCost = 0.5;
  const auto fitted = fit("support-vectors:c=0.5,scale=false", linear);
  const auto duals = fitted->coefficients().squeeze(1) * y, margins = fitted->own_outputs().squeeze(1) * y;
  CHECK(duals.min().item<double>() >= 0);
  CHECK(duals.max().item<double>() <= kCost);
  CHECK(std::abs(fitted->coefficients().sum().item<double>()) < 1e-8);
  bool some_free = false, some_bound = false;
  for (std::int64_t i = 0; i < 20; ++i) {
    const double dual = duals[i].item<double>(), margin = margins[i].item<double>();
    if (dual == 0) {
      CHECK(margin >= 1 - 1e-5);
    } else if (dual == kCost) {
      CHECK(margin <= 1 + 1e-5);
      some_bound = true;
    } else {
      CHECK(std::abs(margin - 1) < 1e-5);
      some_free = true;
    }
  }
  CHECK(some_free);
  CHECK(some_bound);
  const auto weights = fitted->coefficients().squeeze(1);
  const auto expected = at::mv(linear.queries.kernel.view({3, 20}), weights);
  const auto rest = fitted->outputs(linear.queries).squeeze(1) - expected;
  CHECK(relative_error(rest, rest[0].expand({3})) < 1e-10);  // one intercept

  SUBCASE("a kernel of another size, scaled by its diagonal, says the same") {
    auto large = linear;
    large.problem.kernel = linear.problem.kernel * 1e6;
    large.queries.kernel = linear.queries.kernel * 1e6;
    CHECK(relative_error(fit("support-vectors", large)->outputs(large.queries),
                         fit("support-vectors", linear)->outputs(linear.queries)) < 1e-6);
  }
  SUBCASE("with an offset it regresses on what is left") {
    auto offset = linear_problem(20, 1, 30, true);
    const auto svr = fit("support-vectors:c=1e4,epsilon=0.05", offset);
    const auto left = class_targets(offset.problem.labels, 1) - svr->own_outputs();
    CHECK(left.abs().max().item<double>() <= 0.05 + 1e-4);
    CHECK_THROWS_WITH_AS(fit("support-vectors:form=svc", offset),
                         "support-vectors: form = svc with the model's output at the start as an offset, expected svr "
                         "or auto",
                         InvalidArgument);
  }
  SUBCASE("several classes, each against the others") {
    const auto three = linear_problem(18, 3, 40, false);
    const auto found = fit("support-vectors:c=1e3", three);
    CHECK(predicted_classes(found->own_outputs()).equal(three.problem.labels));
    // a class that nobody is of is against all
    auto absent = three;
    absent.problem.labels = three.problem.labels.remainder(2);
    CHECK(fit("support-vectors", absent)->own_outputs().select(1, 2).eq(-1).all().item<bool>());
    // what one machine learns is the binary problem of its class
    LinearProblem one;
    one.problem = {three.problem.kernel.narrow(1, 2, 1).narrow(3, 2, 1).contiguous(),
                   three.problem.labels.eq(2).to(at::kLong), 2};
    CHECK(relative_error(found->own_outputs().select(1, 2),
                         create<KernelSolver>("support-vectors:c=1e3")->fit(one.problem)->own_outputs().squeeze(1)) <
          1e-6);
  }
}

TEST_CASE("the asymmetric system, in both directions") {
  auto linear = linear_problem(8, 1, 20, false);
  SUBCASE("of a symmetric kernel both are ridge regression at lambda 1 / gamma") {
    for (const char* mix : {"0", "0.3", "1"}) {
      const auto both = fit(fmt::format("asymmetric:gamma=2,scale=false,mix={}", mix), linear);
      CHECK(relative_error(both->outputs(linear.queries),
                           fit("kernel-ridge:lambda=0.5", linear)->outputs(linear.queries)) < Tolerance::kDense);
    }
  }
  SUBCASE("the equations hold, and each direction sees its side of the kernel") {
    const auto rows = linear.gradients.squeeze(1), signs = rows.sign();
    linear.problem.kernel = at::mm(rows, signs.t()).view({8, 1, 8, 1});
    const auto asked = linear.asked.squeeze(1);
    linear.queries = {at::mm(asked, signs.t()).view({3, 1, 8, 1}), at::mm(rows, asked.sign().t()).view({8, 1, 3, 1}),
                      at::ones({3, 1}, at::kDouble) / 4};
    linear.problem.start = Random(9).normal({8, 1});
    const double gamma = 0.5;
    const auto y = linear.problem.labels.to(at::kDouble) * 2 - 1;
    const auto k = linear.problem.kernel.view({8, 8});
    // by elimination: b = gamma (t - H' a), a / gamma + H b = t
    const auto h = y.unsqueeze(1) * k * y, t = 1 - y * linear.problem.start.squeeze(1);
    const auto left = at::eye(8, at::kDouble) / gamma - gamma * at::mm(h, h.t());
    const auto a = at::linalg_solve(left, t - gamma * at::mv(h, t));
    const auto b = gamma * (t - at::mv(h.t(), a));
    const auto omega = at::mv(at::mm(rows, asked.sign().t()).t(), a * y) + 0.25;
    const auto nu = at::mv(at::mm(asked, signs.t()), b * y) + 0.25;
    const auto said = [&](const char* mix) {
      return fit(fmt::format("asymmetric:gamma=0.5,scale=false,mix={}", mix), linear)
          ->outputs(linear.queries)
          .squeeze(1);
    };
    CHECK(relative_error(said("1"), omega) < Tolerance::kDense);
    CHECK(relative_error(said("0"), nu) < Tolerance::kDense);
    CHECK(relative_error(said("0.5"), (omega + nu) / 2) < Tolerance::kDense);
    CHECK(relative_error(omega, nu) > 0.01);
  }
}

TEST_CASE("what cannot be learnt is refused in one line") {
  auto linear = linear_problem(6, 2, 9, false);
  const auto refusal = [&](const std::string& spec) -> std::string {
    try {
      fit(spec, linear);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  for (const auto& name : method_names<KernelSolver>()) {
    CAPTURE(name);
    const auto labels = linear.problem.labels;
    linear.problem.labels = at::ones_like(labels);
    CHECK(refusal(name) == name + ": all 6 examples are of class 1, expected at least two classes");
    linear.problem.labels = labels + 1;
    CHECK(refusal(name) == name + ": label 2, expected 0 to 1");
    linear.problem.labels = labels.narrow(0, 0, 5);
    CHECK(refusal(name) == name + ": labels of shape [5] and dtype Long, expected [6] Long");
    linear.problem.labels = labels;
    linear.problem.classes = 3;
    CHECK(refusal(name) == name + ": 3 classes for 2 outputs, expected 2");
    linear.problem.classes = 2;
    CHECK(refusal(name).empty());
    const auto kernel = linear.problem.kernel;
    linear.problem.kernel = kernel.narrow(0, 0, 4);
    CHECK(refusal(name) == name + ": a kernel of shape [4, 2, 6, 2], expected [N, C, N, C]");
    linear.problem.kernel = kernel.clone();
    linear.problem.kernel[1][0][2][1] = NAN;
    CHECK_FALSE(refusal(name).empty());
    linear.problem.kernel = kernel;
  }
  CHECK(refusal("kernel-ridge:lambda=1").empty());
  linear.problem.kernel = linear.problem.kernel + at::arange(6, at::kDouble).view({1, 1, 6, 1});
  CHECK(refusal("kernel-logistic") ==
        "kernel-logistic: a kernel that is not symmetric, expected a symmetric one: take asymmetric or kernel-ridge");
  CHECK(refusal("support-vectors") ==
        "support-vectors: a kernel that is not symmetric, expected a symmetric one: take asymmetric");

  CHECK_THROWS_WITH_AS(
      check_classes_seen(at::tensor({0, 1, 0}, at::kLong), at::tensor({1, 2}, at::kLong), {"no", "yes", "maybe"}),
      "kernel: queries of class maybe, of which none of the 3 training examples is, so that the "
      "kernel never saw it: add examples of it, or leave those queries out",
      InvalidArgument);
  CHECK_NOTHROW(check_classes_seen(at::tensor({0, 1}, at::kLong), at::tensor({1}, at::kLong), {}));

  const auto ridge = create<KernelSolver>("kernel-ridge");
  CHECK_NOTHROW(check_solvable(*ridge, "kernel-ridge", 1000, 2));
  CHECK_THROWS_WITH_AS(check_solvable(*ridge, "kernel-ridge", 20000, 3),
                       "kernel-ridge: 20000 examples x 3 outputs are a system of 60000 unknowns, which takes 144.0 GB "
                       "and 3.0e+15 multiplications, expected at most 8.0 GB and 1.0e+14: take 4714 examples or fewer",
                       InvalidArgument);

  const auto good = linear_problem(6, 2, 9, true);
  const auto fitted = fit("kernel-ridge:lambda=1", good);
  CHECK_THROWS_WITH_AS(fitted->outputs({good.queries.kernel}),
                       "kernel: the fit is with the model's output at the start and the queries are without",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(fitted->outputs({good.queries.kernel.narrow(2, 0, 5), {}, good.queries.start}),
                       "kernel: queries' kernel of shape [3, 2, 5, 2] and dtype Double, expected [Q, 2, 6, 2] Double",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(fitted->leave_out(good.queries, {{1, 1}}, LeaveOut::kClosed),
                       "kernel: leaving out examples [1, 1] of 6, expected some of 0 to 5, each once", InvalidArgument);
  CHECK_THROWS_WITH_AS(
      fit("support-vectors", linear_problem(6, 2, 9, false))->self_influence(),
      "kernel: this solver's influence has no closed form: take kernel-ridge, least-squares or kernel-logistic",
      InvalidArgument);
}

TEST_SUITE_END();
