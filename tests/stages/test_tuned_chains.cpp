// Influence through stages that add to a body that they leave as it is: pretrain, perhaps fine-tune near it, tune, and
// what is trained on that.
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "stages/chain_truth.h"
#include "support/near.h"
#include "support/some.h"
#include "tuning/cases.h"
#include "whence/core/memory.h"
#include "whence/models/addition.h"
#include "whence/stages/choice.h"

using namespace whence;
using test::Inverter;
using test::relative_error;
using test::toy_queries;

namespace {

/// Between the eigenvalues of flat directions, which training to 1e-12 leaves near 1e-12, and those of weight decay.
constexpr double kFlat = 1e-8;
const std::string kPseudo = "direct:pseudo-tolerance=1e-8";

struct Tuned {
  std::string spec;
  std::int64_t flat;  ///< Directions that change nothing, at the minimum of a stage on one layer of 3 x 3.
  double weight_decay = 0.05;
};
const std::vector<Tuned> kTuned{
    {"lora:rank=1,alpha=8", 0},
    {"lora:rank=2,alpha=8", 1},  // rotations of the two
    {"lora:rank=1,alpha=4,dora", 0},
    {"hut:rank=2", 0},  // the decay towards 1 leaves no scale free
    {"ia3", 0},
    {"ia3:feedforward=body.0", 0},
    {"bias", 0},
    {"adapter:width=2,activation=tanh", 0},
    {"hira:rank=1", 0, 0.005},  // more of it, and nothing but the base is the minimum
    {"hra:rank=2", 3},          // the lengths of both, and both turned in their plane
};
constexpr const char* kNet = "mlp:widths=3,activation=tanh";

/// pretrain → tuning, pretrain → proximity → tuning, and pretrain → tuning → proximity.
std::vector<std::vector<test::ToyStage>> chains_with(const Tuned& tuning) {
  const test::ToyStage tuned{tuning.spec, "squared-error", tuning.weight_decay};
  return {{{"full", "squared-error"}, tuned},
          {{"full", "squared-error"}, {"full:proximity=0.3", "squared-error", 0.05, 10}, tuned},
          {{"full", "squared-error"}, tuned, {"full:proximity=0.3", "squared-error", 0.05, 10}}};
}

std::int64_t flat_directions(const Stage& stage) {
  const auto n = count_entries(stage.theta);
  const auto h = test::dense_hessian(stage.objective, stage.theta, stage.parent).narrow(1, 0, n);
  const auto values = at::linalg_eigvalsh(h);
  return (values.abs() <= kFlat * values.abs().max()).sum().item<std::int64_t>();
}

/// Of what the tuning added, how many directions change nothing that is handed on, at a point of no kind.
std::int64_t unseen_when_folded(const Stage& stage) {
  TensorList point;
  auto draws = Random(7);
  for (const auto& value : stage.theta) {
    point.push_back((value + 0.3 * draws.normal(value.sizes())).requires_grad_(true));
  }
  const auto folded = flatten(stage.objective.hand_on(point, stage.parent).values());
  TensorList rows;
  for (std::int64_t i = 0; i < folded.numel(); ++i) {
    rows.push_back(flatten(gradient(folded[i], point, false, true)));
  }
  const auto& trained = stage.objective.trained();
  const auto own = trained.entries() - stage.objective.model().head().of(trained).entries();
  return own - at::linalg_matrix_rank(at::stack(rows)).item<std::int64_t>();
}

/// How far the stage went from where it began, in what the tuning added.
double moved(const Stage& stage) {
  double square = 0;
  const auto& trained = stage.objective.trained();
  for (std::size_t i = 0; i < trained.size(); ++i) {
    if (trained.names()[i].starts_with("tuning.")) {
      square += (stage.theta[i] - trained.values()[i]).square().sum().item<double>();
    }
  }
  return std::sqrt(square);
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("scores of every stage equal the dense recursion, flat directions left alone") {
  for (const auto& tuned : test::some(kTuned)) {
    CAPTURE(tuned.spec);
    for (const auto& stages : chains_with(tuned)) {
      const auto chain = test::toy_chain(stages, kNet, 31);
      const auto queries = toy_queries(chain);
      const auto truth = test::dense_scores(chain, queries, test::pseudo_inverse(kFlat));
      const auto scores = Inverter("hessian", kPseudo, {.inversion = Inversion::kPseudo}).scores_of_all(chain, queries);
      for (std::size_t s = 0; s < chain.size(); ++s) {
        CAPTURE(s);
        CHECK(relative_error(scores[s], truth[s]) < 1e-8);
        CHECK(truth[s].abs().max().item<double>() > 1e-4);
      }
    }
  }
}

TEST_CASE("where nothing is said, flat directions get just the damping that keeps rounding from counting") {
  for (const auto* spec : {"lora:rank=2,alpha=8", "hra:rank=2", "ia3"}) {
    CAPTURE(spec);
    const auto chain = test::toy_chain({{"full", "squared-error"}, {spec, "squared-error"}}, kNet, 31);
    const auto queries = toy_queries(chain);
    const auto choice = choose_inverse(chain, 0, queries.size(), {});
    CHECK(choice.curvature == "hessian");
    CHECK((choice.options.relative_damping > 0) == (whence::flat_directions(chain[1].objective.trained(), true) > 0));
    CHECK(choice.options.relative_damping < 1e-7);
    CHECK((choice.reason.find("change nothing") != std::string::npos) == (choice.options.relative_damping > 0));
    const auto truth = test::dense_scores(chain, queries, test::pseudo_inverse(kFlat));
    for (const char* solver : {"direct", "cg:relative-tolerance=1e-9"}) {
      CAPTURE(solver);
      const auto scores = Inverter(choice.curvature, solver, choice.options).scores_of_all(chain, queries);
      for (std::size_t s = 0; s < chain.size(); ++s) {
        CHECK(relative_error(scores[s], truth[s]) < 1e-4);
      }
    }
  }
}

TEST_CASE("a tuning's flat directions are as many as its gauge has") {
  for (const auto& tuned : kTuned) {
    CAPTURE(tuned.spec);
    const auto chain = test::toy_chain(chains_with(tuned)[0], kNet, 31);
    CHECK(moved(chain[1]) > 0.05);
    CHECK(flat_directions(chain[1]) == tuned.flat);
    CHECK(whence::flat_directions(chain[1].objective.trained(), true) == tuned.flat);
  }
}

TEST_CASE("without a regulariser a tuning has as many flat directions as what it folds to leaves open") {
  for (const auto& [spec, flat] :
       std::vector<std::pair<std::string, std::int64_t>>{{"lora:rank=2", 4},
                                                         {"lora:rank=1,dora", 1},
                                                         {"lora:rank=2,dora", 6},   // and rows made longer in two ways,
                                                         {"lora:rank=3,dora", 12},  // or in all three
                                                         {"hut:rank=2", 7},
                                                         {"hira:rank=2", 4},
                                                         {"hra:rank=2", 3}}) {
    CAPTURE(spec);
    const auto stage = test::toy_chain({{"full", "squared-error"}, {spec, "squared-error", 0.05}}, kNet, 31)[1];
    CHECK(unseen_when_folded(stage) == flat);
    CHECK(whence::flat_directions(stage.objective.trained(), false) == flat);
  }
}

TEST_CASE("flat directions of ranks above a layer's shorter side, seen in what it folds to and at a minimum") {
  struct Wide {
    std::string spec;
    std::int64_t without, decayed;  // of a layer of 3 x 5
  };
  const std::vector<Wide> all{{"lora:rank=3,alpha=8", 9, 3},
                              {"lora:rank=4,alpha=8", 4 * 8 - 15, 6},
                              {"lora:rank=5,alpha=8", 5 * 8 - 15, 10 - 1},
                              {"hira:rank=4", 4 * 8 - 15, 6},
                              {"hra:rank=2", 3, 3},
                              {"hra:rank=4", 20 - 9, 20 - 9}};
  const std::shared_ptr<const Model> net = create<Model>(kNet);
  for (const auto& [spec, without, decayed] : test::some(all, 3)) {
    CAPTURE(spec);
    const auto stage = test::toy_chain({{"full", "squared-error"}, {spec, "squared-error", 0.001}}, net, 31, 5)[1];
    const auto& trained = stage.objective.trained();
    CHECK(unseen_when_folded(stage) == without);
    CHECK(whence::flat_directions(trained, false) == without);
    CHECK(flat_directions(stage) == decayed);
    CHECK(whence::flat_directions(trained, true) == decayed);
  }
}

TEST_CASE("scores of every stage equal central differences of retraining the whole chain") {
  for (const auto& tuned : test::some(kTuned)) {
    CAPTURE(tuned.spec);
    for (const auto& stages : chains_with(tuned)) {
      const auto chain = test::toy_chain(stages, kNet, 31);
      const auto queries = toy_queries(chain, 1);
      const auto of_all = Inverter("hessian", kPseudo, {.inversion = Inversion::kPseudo}).scores_of_all(chain, queries);
      for (std::size_t s = 0; s < chain.size(); ++s) {
        CAPTURE(s);
        const auto scores = of_all[s][0];
        const double size = scores.abs().max().item<double>();
        const double truth = test::retrained_derivative(chain, s, 4, queries, 0, 2e-4);
        CAPTURE(truth);
        CAPTURE(scores[4].item<double>());
        CHECK(std::abs(scores[4].item<double>() - truth) <= 1e-5 * size);
      }
    }
  }
}

TEST_CASE("lora's scores and curvature become the full fine-tune's as its rank grows") {
  // of rank 3 it reaches every matrix of 3 x 3: in what it folds to, and in its pseudo-inverse, it is the full one
  const auto chain_with = [](const std::string& tuning) {
    return test::toy_chain({{"full", "squared-error"}, {tuning, "squared-error", 0, 40}}, kNet, 31);
  };
  const Inverter inverter("hessian", kPseudo, {.inversion = Inversion::kPseudo});
  const auto full = chain_with("full");
  const auto queries = toy_queries(full);
  const auto scores = [&](const Chain& chain, std::size_t stage, const Dataset& of) {
    return inverter.scores(chain, stage, of, Measurement::kLoss);
  };
  const auto& own = full[1].objective.data();  // each example for each other's loss: g' H^-1 g, all of the curvature
  const auto expected = scores(full, 1, queries), forms = scores(full, 1, own);
  const auto chain = chain_with("lora:also=bias,alpha=3,rank=3");
  CHECK(relative_error(scores(chain, 1, queries), expected) < 1e-6);
  CHECK(relative_error(scores(chain, 1, own), forms) < 1e-6);
  CHECK(scores(chain, 0, queries).abs().max().item<double>() < 1e-6);  // it forgets the stage before, as the full does
  const auto low = chain_with("lora:also=bias,alpha=3,rank=1");
  CHECK(relative_error(scores(low, 1, queries), expected) > 1e-2);
  CHECK(scores(low, 0, queries).abs().max().item<double>() > 1e-3);
  // where training starts, ranks reach more and more of the same directions: the forms grow to the full ones
  const Inverter at_start("gauss-newton", kPseudo, {.inversion = Inversion::kPseudo});
  const auto started = [&](const std::string& tuning) {
    Chain out{full[0]};
    out.push_back(begin_stage({.name = "tuned",
                               .model = create<Model>(kNet),
                               .loss = create<Loss>("squared-error"),
                               .tuning = create<Tuning>(tuning),
                               .data = own},
                              out, Random(9)));
    return at_start.scores(out, 1, own, Measurement::kLoss);
  };
  const auto all = started("full");
  std::vector<double> errors;
  for (const char* rank : {"1", "2", "3"}) {
    errors.push_back(relative_error(started(std::string("lora:also=bias,alpha=3,rank=") + rank), all));
  }
  CAPTURE(errors[0]);
  CAPTURE(errors[1]);
  CHECK(errors[0] > errors[1]);
  CHECK(errors[1] > 1e-3);
  CHECK(errors[2] < 1e-6);
}

TEST_CASE("on transformers of two blocks too, whose texts share rows and are padded") {
  // at points that need be no minima: h / (h^2 + damping^2) is finite everywhere
  constexpr double kDamping = 0.3;
  const std::vector<std::pair<std::size_t, std::string>> cases{{2, "lora:rank=1,targets=wte+c_attn"},
                                                               {3, "adapter:width=1,activation=tanh"}};
  for (const auto& [on, spec] : test::some(cases, 1)) {
    CAPTURE(spec);
    const test::TuningBench bench(test::kTuningCases[on]);
    auto chain = bench.begin(spec);
    chain[1].theta = test::TuningBench::moved(chain[1].theta, 0.3);
    const auto queries = bench.data().take(at::arange(2));
    const auto truth = test::dense_scores(chain, queries, test::filtered_inverse(kDamping), false);
    test::check_apart(chain);
    const auto scores = Inverter("hessian", "direct", {.inversion = Inversion::kFiltered, .damping = kDamping})
                            .scores_of_all(chain, queries);
    for (std::size_t s = 0; s < chain.size(); ++s) {
      CAPTURE(s);
      CHECK(relative_error(scores[s], truth[s]) < 1e-8);
      CHECK(truth[s].abs().max().item<double>() > 1e-4);
    }
  }
}

TEST_CASE("what a small gradient leaves of flat directions is no negative curvature") {
  const auto chain = test::toy_chain({{"full", "squared-error"}, {"hra:rank=2", "squared-error"}}, kNet, 31);
  const auto queries = toy_queries(chain);
  const auto truth = Inverter("hessian", kPseudo, {.inversion = Inversion::kPseudo});
  const auto away = Random(8).normal({count_entries(chain[1].theta)});
  for (const double by : {1e-8, -1e-8}) {  // the flat directions' curvature is of the one sign or of the other
    auto moved = chain;
    const auto step = unflatten(by * away, chain[1].theta);
    for (std::size_t i = 0; i < step.size(); ++i) {
      moved[1].theta[i] = chain[1].theta[i] + step[i];
    }
    const auto choice = choose_inverse(moved, 0, queries.size(), {});
    CAPTURE(choice.reason);
    CHECK(choice.curvature == "hessian");
    CHECK(choice.options.relative_damping > 0);
    CHECK(choice.options.relative_damping < 1e-3);
    const Inverter chosen(choice.curvature, choice.solver, choice.options);
    for (std::size_t s = 0; s < chain.size(); ++s) {
      CHECK(relative_error(chosen.scores(moved, s, queries, Measurement::kLoss),
                           truth.scores(chain, s, queries, Measurement::kLoss)) < 1e-2);
    }
  }
}

TEST_CASE(
    "a damping asked for below what a small gradient makes of flat directions is refused, with one that outweighs it") {
  const auto chain = test::toy_chain({{"full", "squared-error"}, {"hra:rank=2", "squared-error"}}, kNet, 31);
  const auto away = Random(8).normal({count_entries(chain[1].theta)});
  const auto chosen = [](const Chain& of, double damping) {
    return choose_inverse(of, 0, 3, {.curvature = "hessian", .damping = damping});
  };
  int refused = 0;
  for (const double by : {1e-8, -1e-8}) {  // which sign the flat directions' curvature has by it
    auto moved = chain;
    const auto step = unflatten(by * away, chain[1].theta);
    for (std::size_t i = 0; i < step.size(); ++i) {
      moved[1].theta[i] = chain[1].theta[i] + step[i];
    }
    const auto text = test::message_of<NumericalError>([&] { chosen(moved, 0); });
    refused += text.empty() ? 0 : 1;
    CHECK((text.empty() || text.find("stage stage1: the Hessian has negative curvature") == 0));
    if (const auto at = text.find("type --damping "); at != text.npos) {
      const double typed = std::stod(text.substr(at + 15));
      CHECK(typed < 1e-5);
      CHECK_NOTHROW(chosen(moved, typed));
    } else {
      CHECK(text.empty());
    }
    CHECK(chosen(moved, 1e-5).options.damping == 1e-5);
  }
  CHECK(refused >= 1);
}

TEST_CASE("a tuning of a body is solved for a block of queries without a copy of the body for each") {
  const std::shared_ptr<const Model> net = create<Model>("mlp:widths=1200/1200,activation=tanh");
  const auto data = test::toy_data("squared-error", 16, 3, Random(3));
  const auto stage = begin_stage({.name = "tuned",
                                  .model = net,
                                  .loss = create<Loss>("squared-error"),
                                  .tuning = create<Tuning>("lora:rank=1"),
                                  .data = data,
                                  .weight_decay = 0.1,
                                  .starts_trained = true},
                                 {}, Random(1));
  const double body = 8.0 * static_cast<double>(count_entries(stage.parent));
  REQUIRE(body > 1e7);
  const Inverter inverter("gauss-newton", "cg", {.damping = 0.1});
  forget_peak();
  const double before = peak_bytes();
  const auto scores = inverter.scores({stage}, 0, data, Measurement::kLoss);
  CHECK(scores.size(0) == 16);
  CAPTURE(body);
  CHECK(peak_bytes() - before < 6 * body);  // 16 of them, were a query's gradient taken in the body too
}

TEST_CASE("response segment does not go through a training that starts at numbers made of the parent's") {
  const auto scores = [](const char* tuning, std::size_t stage) {
    const auto chain = test::toy_chain({{"full", "squared-error"}, {tuning, "squared-error"}}, kNet, 31);
    const Inverter inverter("gauss-newton", "direct", {.response = Response::kSegment, .time = 1});
    return inverter.scores(chain, stage, toy_queries(chain), Measurement::kLoss);
  };
  CHECK_THROWS_WITH_AS(scores("lora:rank=1,dora", 0),
                       doctest::Contains("stage stage1: its training starts at numbers made of stage stage0's"),
                       InvalidArgument);
  CHECK(scores("lora:rank=1,dora", 1).abs().max().item<double>() > 1e-6);
  CHECK(scores("lora:rank=1", 0).abs().max().item<double>() > 1e-6);
}

TEST_CASE("cg from zero, a damping, and the Gauss-Newton family meet flat directions too") {
  for (const char* tuning : {"lora:rank=2,alpha=8", "hra:rank=2"}) {
    CAPTURE(tuning);
    const auto chain = test::toy_chain(chains_with({tuning, 0})[1], kNet, 31);
    const auto queries = toy_queries(chain);
    const auto truth = test::dense_scores(chain, queries, test::pseudo_inverse(kFlat));
    const auto damped = test::dense_scores(chain, queries, test::damped_inverse(0.01));
    for (std::size_t s = 0; s < chain.size(); ++s) {
      CAPTURE(s);
      const auto by = [&](const char* curvature, const char* solver, double damping) {
        return Inverter(curvature, solver, {.damping = damping}).scores(chain, s, queries, Measurement::kLoss);
      };
      CHECK(relative_error(by("hessian", "cg:relative-tolerance=1e-10", 0), truth[s]) < 1e-6);
      CHECK(relative_error(by("hessian", "cg:relative-tolerance=1e-12", 0.01), damped[s]) < 1e-8);
      CHECK(relative_error(by("gauss-newton", "cg:relative-tolerance=1e-12", 0.01),
                           by("gauss-newton", "direct", 0.01)) < 1e-8);
    }
  }
}

TEST_SUITE_END();
