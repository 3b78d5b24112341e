// What is chosen of curvature, solver and damping, and that every combination is either computed or refused with what
// to type.
#include <torch/csrc/autograd/autograd.h>

#include <set>

#include "measured.h"
#include "support/near.h"
#include "support/toy_chain.h"
#include "whence/core/operation_count.h"
#include "whence/stages/choice.h"
#include "whence/stages/cost.h"

using namespace whence;
using test::measured_gradient;

namespace {

/// Every stage moved away from its minimum.
Chain displaced(Chain chain) {
  auto random = Random(9);
  for (std::size_t k = 0; k < chain.size(); ++k) {
    for (auto& value : chain[k].theta) {
      value = value + 0.4 * random.normal(value.sizes());
    }
    if (k > 0) {
      chain[k].parent = detach(chain[k - 1].handed_on().values());
    }
  }
  return chain;
}

/// One stage at a saddle: a tanh network of zeros that says the mean of its targets has no gradient, and its Hessian
/// couples the layers by what is left over.
Chain at_saddle() {
  auto chain = test::toy_chain({{.tuning = "full", .loss = "squared-error", .weight_decay = 1e-3}},
                               "mlp:widths=4,activation=tanh");
  auto& stage = chain[0];
  for (std::size_t i = 0; i < stage.theta.size(); ++i) {
    stage.theta[i] = at::zeros_like(stage.theta[i]);
    if (stage.objective.trained().names()[i] == "head.bias") {
      stage.theta[i] = stage.objective.data().targets().mean(0) / (1 + stage.objective.weight_decay());
    }
  }
  return chain;
}

const std::vector<test::ToyStage> kTwoStages{{"full", "cross-entropy"}, {"full:proximity=0.3", "cross-entropy"}};

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("at a minimum the Hessian without damping, elsewhere the damped Gauss-Newton matrix, for the whole chain") {
  const auto chain = test::toy_chain(kTwoStages);
  const auto settled = choose_inverse(chain, 0, 3, {});
  CHECK(settled.curvature == "hessian");
  CHECK(settled.solver == "auto:relative-tolerance=0.01");
  CHECK(settled.options.damping == 0);
  CHECK(settled.options.relative_damping == 0);
  CHECK(settled.reason.find("is a minimum") != std::string::npos);
  CHECK(settled.stationarity.size() == 2);
  CHECK_FALSE(choose_inverse(chain, 1, 3, {}).stationarity[0]);  // nothing is solved there

  auto moved = chain;  // the first stage alone is at no minimum, and the second goes with it
  for (auto& value : moved[0].theta) {
    value = value + 0.3;
  }
  moved[1].parent = detach(moved[0].handed_on().values());
  const auto choice = choose_inverse(moved, 0, 3, {});
  CHECK(choice.curvature == "gauss-newton");
  CHECK(choice.options.relative_damping == kRelativeDamping);
  CHECK(choice.reason.find("the checkpoint is no minimum") != std::string::npos);
  CHECK(choice.otherwise.find("--curvature hessian") != std::string::npos);
  // what is asked alone counts from the first stage that is solved
  auto last = chain;
  for (auto& value : last[0].theta) {
    value = value + 0.3;  // whose parent the second keeps
  }
  CHECK(choose_inverse(last, 1, 3, {}).curvature == "hessian");
}

TEST_CASE("where training was too short for the mean eigenvalue, the damping is the inverse of its time") {
  auto chain = displaced(test::toy_chain(kTwoStages));
  CHECK(choose_inverse(chain, 0, 3, {}).options.least_damping.empty());  // by lbfgs, which has no time
  chain[0].inverse_time = 1e3;
  chain[1].inverse_time = 1e-9;
  const auto choice = choose_inverse(chain, 0, 3, {});
  CHECK(choice.options.least_damping == std::vector<double>{1e3, 1e-9});
  CHECK(choose_inverse(chain, 0, 3, {.curvature = "ekfac"}).options.least_damping[0] == doctest::Approx(300));
  CHECK(choose_inverse(chain, 0, 3, {.relative_damping = 1.0}).options.least_damping.empty());
  CHECK(choose_inverse(chain, 0, 3, {.relative_damping = 1.0, .training_damping = true}).options.least_damping[0] ==
        1e3);
  CHECK(choose_inverse(chain, 1, 3, {}).options.least_damping[0] == 0);  // nothing is solved there
  // a Hessian whose negative curvature that outweighs is not refused
  auto saddle = at_saddle();
  saddle[0].inverse_time = 1e3;
  CHECK(choose_inverse(saddle, 0, 1, {.curvature = "hessian", .relative_damping = 1e-9, .training_damping = true})
            .options.least_damping[0] == 1e3);
  Adjoint adjoint(chain, {create<Curvature>(choice.curvature), create<Solver>("direct"), choice.options});
  adjoint.prepare(0);
  CHECK(adjoint.evidence()[0].damping == 1e3);
  CHECK(adjoint.evidence()[1].damping == doctest::Approx(adjoint.evidence()[1].mean_eigenvalue));

  // trained elsewhere, by an optimizer that is told: by its learning rates and the gradients of examples
  chain[0].inverse_time = 0;
  chain[0].optimizer = create<Optimizer>("sgd:learning-rate=0.1,momentum=0.5,max-iterations=5,schedule=constant");
  CHECK(choose_inverse(chain, 0, 3, {}).options.least_damping[0] == doctest::Approx(0.5 / 0.5));
  chain[0].optimizer = create<Optimizer>("adam:learning-rate=0.1,max-iterations=5,schedule=constant,batch-size=4");
  const auto told = choose_inverse(chain, 0, 3, {});
  const auto& at = *told.stationarity[0];
  const double square = at.gradient_norm * at.gradient_norm + at.data_gradient_norm * at.data_gradient_norm / 4;
  const auto entries = static_cast<double>(chain[0].objective.trained().entries());
  CHECK(told.options.least_damping[0] == doctest::Approx(std::sqrt(square / entries) / 0.5));
}

TEST_CASE("negative curvature is looked for before any solve, and outweighed or refused with the number to type") {
  const auto chain = at_saddle();
  const auto& stage = chain[0];
  const auto dense = test::dense_hessian(stage.objective, stage.theta, stage.parent);
  const double smallest = std::get<0>(at::linalg_eigh(dense))[0].item<double>();
  REQUIRE(smallest < -1e-3);
  const auto choice = choose_inverse(chain, 0, 1, {});
  CHECK(choice.stationarity[0]->relative_gradient_norm < 1e-12);
  CHECK(choice.curvature == "gauss-newton");
  CHECK(choice.reason.find("the Hessian has negative curvature") != std::string::npos);

  const auto hessian = choose_inverse(chain, 0, 1, {.curvature = "hessian"});
  CHECK(hessian.curvature == "hessian");
  CHECK(hessian.options.damping > -smallest);
  CHECK(hessian.options.damping < -3 * smallest);
  CHECK(hessian.reason.find("outweighs") != std::string::npos);

  for (const double damping : {0.0, -0.9 * smallest}) {
    CHECK_THROWS_WITH_AS(choose_inverse(chain, 0, 1, {.curvature = "hessian", .damping = damping}),
                         doctest::Contains("type --damping "), NumericalError);
  }
  CHECK_NOTHROW(choose_inverse(chain, 0, 1, {.curvature = "hessian", .damping = -1.1 * smallest}));
  CHECK_NOTHROW(choose_inverse(chain, 0, 1,
                               {.curvature = "hessian", .damping = 0, .options = {.inversion = Inversion::kFiltered}}));
  // a solve that met what the probe did not
  CHECK(choose_inverse(test::toy_chain(kTwoStages), 0, 3, {.indefinite = true}).curvature == "gauss-newton");
}

TEST_CASE("what is asked is kept, and the rest goes with it") {
  const auto chain = displaced(test::toy_chain(kTwoStages));
  const auto chosen = [&](InverseRequest request) { return choose_inverse(chain, 0, 3, request); };
  CHECK(chosen({.curvature = "kfac"}).options.relative_damping == kRelativeDamping);
  CHECK(chosen({.curvature = "gauss-newton", .solver = "cg", .damping = 0.25}).reason.empty());
  CHECK(chosen({.damping = 0.25}).options.damping == 0.25);
  CHECK(chosen({.damping = 0.25}).options.relative_damping == 0);
  CHECK(chosen({.relative_damping = 0.5}).options.relative_damping == 0.5);
  CHECK(chosen({.solver = "ekfac"}).curvature == "gauss-newton");
  CHECK(chosen({.solver = "datainf"}).curvature == "empirical-fisher");
  CHECK(chosen({.solver = "datainf"}).options.relative_damping == 0);  // it has its own
  CHECK(chosen({.solver = "woodbury"}).curvature == "gauss-newton");
  CHECK(chosen({.options = {.inversion = Inversion::kFiltered}}).curvature == "hessian");
  CHECK(chosen({.options = {.inversion = Inversion::kFiltered}}).options.relative_damping == kRelativeDamping);
  CHECK(chosen({.options = {.inversion = Inversion::kPseudo}}).options.relative_damping == 0);
  InverseRequest bregman, segment;
  bregman.options.response = Response::kProximalBregman;
  CHECK(choose_inverse(test::toy_chain(kTwoStages), 0, 3, bregman).curvature == "gauss-newton");
  segment.options.response = Response::kSegment;
  segment.options.time = 3;
  CHECK(chosen(segment).curvature == "gauss-newton");
  CHECK(chosen(segment).options.relative_damping == 0);
  // where the Hessian would be refused it is not advised
  CHECK(chosen({.solver = "woodbury"}).otherwise.find("--curvature hessian") == std::string::npos);
  CHECK(chosen(bregman).otherwise.find("--curvature hessian") == std::string::npos);
  CHECK(chosen({}).otherwise.find("(about ") != std::string::npos);  // a mean, no bound
  // at a minimum with weight decay, which keeps a Gauss-Newton matrix from being singular
  CHECK(choose_inverse(test::toy_chain(kTwoStages), 0, 3, {.curvature = "gauss-newton"}).options.relative_damping == 0);
}

TEST_CASE("a solver whose own approximation is singular is given a damping at a minimum too") {
  const auto chain = test::toy_chain({{"full", "cross-entropy"}}, "mlp:widths=12,activation=tanh");
  const auto& stage = chain[0];
  REQUIRE(stage.objective.trained().entries() > 50);  // arnoldi's rank
  for (const char* curvature : {"auto", "hessian", "gauss-newton"}) {
    for (const char* solver : {"nystroem", "arnoldi", "ekfac"}) {
      CAPTURE(curvature);
      CAPTURE(solver);
      const auto choice = choose_inverse(chain, 0, 1, {.curvature = curvature, .solver = solver});
      const bool own = std::string_view(solver) == "ekfac" && choice.curvature == "gauss-newton";  // decay is in it
      CHECK((own || choice.options.relative_damping == kRelativeDamping));
      const InverseProblem problem{create<Curvature>(choice.curvature), create<Solver>(choice.solver), choice.options};
      CHECK_NOTHROW(Adjoint(chain, problem).sweep(measured_gradient(chain), 0, {}));
    }
  }
  CHECK(choose_inverse(chain, 0, 1, {.curvature = "hessian", .solver = "arnoldi:rank=500"}).options.relative_damping ==
        0);
}

TEST_CASE("a block's queries share their passes: where little is trained, many of them are still solved by rows") {
  for (const char* tuning : {"full", "lora:rank=2"}) {
    CAPTURE(tuning);
    const auto chain = displaced(test::toy_chain({{.tuning = "full", .loss = "cross-entropy", .trained = false},
                                                  {.tuning = tuning, .loss = "cross-entropy", .trained = false}},
                                                 "mlp:widths=100/100,activation=tanh"));
    REQUIRE(solver_at_work("auto", "gauss-newton", chain[1], Inversion::kDamped) == "woodbury");
    constexpr double kSeconds = 600, kPasses = 8;  // of a query's four products
    const double queries = kSeconds / (kPasses * nominal_gradient_seconds(chain[1]));
    const auto choice = choose_inverse(chain, 1, static_cast<std::int64_t>(queries), {});
    CAPTURE(choice.reason);
    CHECK(choice.curvature == (std::string_view(tuning) == "full" ? "ekfac" : "gauss-newton"));
  }
}

TEST_CASE("what solves will cost is that of the solver that auto picks") {
  const auto chain = test::toy_chain({{"full", "cross-entropy"}});
  const auto& stage = chain[0];
  const auto p = static_cast<double>(stage.objective.trained().entries());
  const auto direct = product_count("auto", "hessian", stage, Inversion::kDamped);
  CHECK(direct.once == p);
  CHECK(direct.expected() == 1);  // its residual
  CHECK(product_count("cg", "hessian", stage, Inversion::kDamped).high == p);
  CHECK(product_count("auto", "ekfac", stage, Inversion::kDamped).once == 0);
  const auto many = choose_inverse(chain, 0, 50'000, {});
  CAPTURE(many.reason);
  CHECK(many.curvature == "hessian");

  auto wide = test::toy_stage("mlp:widths=200,activation=tanh", 0);
  CHECK(product_count("auto", "gauss-newton", wide, Inversion::kDamped).high == 4);  // by its 24 rows
  double sides = 0, numbers = 0;
  for (const auto& value : wide.objective.trained().values()) {
    sides += value.dim() == 2 ? static_cast<double>(value.size(0) + value.size(1)) : 0;
    numbers += value.dim() == 2 ? static_cast<double>(value.numel()) : 0;
  }
  const auto rows = static_cast<double>(wide.objective.data().size() * wide.objective.data().outputs());
  CHECK(product_count("auto", "gauss-newton", wide, Inversion::kDamped).once ==
        doctest::Approx(rows * rows * sides / (12 * numbers * static_cast<double>(wide.objective.data().size()))));
  CHECK(product_count("auto", "hessian", wide, Inversion::kDamped).high == 1000);
  CHECK(solver_at_work("auto", "gauss-newton", wide, Inversion::kDamped) == "woodbury");
  CHECK(solver_at_work("auto", "ekfac", wide, Inversion::kDamped) == "ekfac");
  CHECK(solver_at_work("lanczos", "ekfac", wide, Inversion::kDamped) == "lanczos");
  CHECK(solver_at_work("auto:max-iterations=7", "hessian", wide, Inversion::kDamped) ==
        "cg:preconditioner=ekfac,relative-tolerance=1e-06,max-iterations=7");
  const auto tall = test::toy_stage("mlp:widths=200,activation=tanh", 0, /*examples=*/5000);
  CHECK(solver_at_work("auto", "gauss-newton", tall, Inversion::kDamped) ==
        "cg:relative-tolerance=1e-06,max-iterations=1000");
  CHECK(product_count("cg:preconditioner=nystroem,rank=30", "gauss-newton", wide, Inversion::kDamped).once == 30);
  CHECK(product_count("lissa", "hessian", wide, Inversion::kDamped).high == 20000);  // depth 0: as many as max-depth
  CHECK(product_count("lissa:depth=50", "hessian", wide, Inversion::kDamped).high == 50);
  CHECK_FALSE(product_count("identity", "hessian", wide, Inversion::kDamped).known);
  const auto calls = [&](const char* solver) {
    return count_operations([&] { product_count(solver, "gauss-newton", wide, Inversion::kDamped); }).calls;
  };
  CHECK(calls("auto") > 0);  // a pass, which tells whether there are rows
  CHECK(calls("cg") == 0);
}

TEST_CASE("what bfloat16 makes of zeros is no negative curvature") {
  const auto exact = test::toy_chain({{"full", "cross-entropy", 1e-6, 40}}, "linear")[0];
  TensorList theta;
  for (const auto& value : exact.theta) {
    theta.push_back(value.to(at::kBFloat16));
  }
  auto stage = exact;
  stage.objective = exact.objective.to(at::kBFloat16);
  stage.theta = theta;
  CHECK_NOTHROW(choose_inverse({stage}, 0, 1, {.curvature = "hessian", .damping = 0}));
}

TEST_CASE("every inversion, response, curvature and solver together either works or says in one line what to type") {
  const auto chain = displaced(test::toy_chain(kTwoStages, "mlp:widths=3,activation=tanh", 1, 2));
  const auto q = measured_gradient(chain);
  std::vector<std::string> curvatures{"auto"}, solvers;
  for (const auto& method : methods<Curvature>()) {
    curvatures.emplace_back(method.name);
  }
  for (const auto& method : methods<Solver>()) {
    solvers.emplace_back(method.name);
  }
  std::int64_t worked = 0, refused = 0;
  std::set<std::string> open;  // what is left open must work
  for (const auto inversion : {Inversion::kDamped, Inversion::kFiltered, Inversion::kPseudo}) {
    for (const auto response : {Response::kStationary, Response::kProximalBregman, Response::kSegment}) {
      for (std::size_t c = 0; c < curvatures.size(); ++c) {
        for (std::size_t s = 0; s < solvers.size(); ++s) {
          // a ninth of all, in which any two things meet: each curvature and each solver with every inversion and
          // response, and each other once
          const auto way = 3 * static_cast<std::size_t>(inversion) + static_cast<std::size_t>(response);
          if ((c + s + way) % 9 != 0) {
            continue;
          }
          const auto &curvature = curvatures[c], &solver = solvers[s];
          CAPTURE(to_string(inversion));
          CAPTURE(to_string(response));
          CAPTURE(curvature);
          CAPTURE(solver);
          InverseRequest request{.curvature = curvature, .solver = solver};
          request.options = {.response = response, .time = 2, .inversion = inversion};
          const bool fits = response != Response::kSegment || inversion == Inversion::kDamped;
          try {
            const auto choice = choose_inverse(chain, 0, 1, request);
            Adjoint adjoint(chain,
                            {create<Curvature>(choice.curvature), create<Solver>(choice.solver), choice.options});
            const auto swept = adjoint.sweep(q, 0, {});
            CHECK(swept.size() == chain.size());
            for (const auto& stage : swept) {
              CHECK(at::isfinite(stage.vectors).all().item<bool>());
            }
            ++worked;
          } catch (const Error& error) {
            const std::string text = error.what();
            CAPTURE(text);
            ++refused;
            CHECK(text.find('\n') == std::string::npos);
            CHECK((text.find("use --") != std::string::npos || text.find("type --") != std::string::npos ||
                   text.find("--solver auto") != std::string::npos));
            const bool all_open = curvature == "auto" && (solver == "auto" || solver == "direct") && fits;
            CHECK_FALSE(all_open);
            if (response == Response::kStationary && inversion != Inversion::kDamped) {
              CHECK_FALSE((solver == "auto" || solver == "cg" || solver == "lanczos"));
            }
          }
        }
      }
    }
  }
  MESSAGE(worked, " combinations work, ", refused, " are refused");
  CHECK(worked > refused);
}

TEST_SUITE_END();
