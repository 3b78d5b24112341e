// Influence through a primed stage: of its examples, of its tasks and of the stages before it, against retraining.
#include <torch/csrc/autograd/autograd.h>

#include "support/near.h"
#include "support/scratch.h"
#include "training/primed.h"
#include "whence/attribution/attribute.h"
#include "whence/attribution/prediction.h"
#include "whence/attribution/self_influence.h"
#include "whence/core/error.h"
#include "whence/stages/choice.h"
#include "whence/stages/pipeline.h"

using namespace whence;
using test::relative_error;
using test::Scratch;

namespace {

StageParts plain_parts(const std::string& name, const std::string& tuning, std::uint64_t seed) {
  return {.name = name,
          .model = create<Model>("mlp:widths=4,activation=tanh"),
          .loss = create<Loss>("squared-error"),
          .tuning = create<Tuning>(tuning),
          .data = test::toy_data("squared-error", 12, 3, Random(seed)),
          .weight_decay = 0.05};
}

/// Everything, primed, tuned: each trained to its minimum, or as it begins.
Chain primed_chain(const std::string& priming, const std::string& last, bool trained = true) {
  Chain chain;
  const auto add = [&](StageParts parts) {
    chain.push_back(begin_stage(std::move(parts), chain, Random(5).stream(std::to_string(chain.size()))));
    if (trained) {
      test::converge(chain.back());
    }
  };
  add(plain_parts("first", "full", 31));
  add(test::primed_parts("primed", priming, Random(32), "full:proximity=0.3"));
  add(plain_parts("tuned", last, 33));
  return chain;
}

at::Tensor scores_of(const Chain& chain, std::size_t stage, const Dataset& queries, const std::string& method,
                     const std::string& curvature = "hessian") {
  const auto source =
      create<Attributor>(method)->prepare(chain, {create<Curvature>(curvature), create<Solver>("direct")});
  return score_matrix(chain, stage, *source, queries, Measurement::kLoss);
}

/// d measurement / d weights . direction, by central differences of retraining.
at::Tensor retrained_derivative(const Chain& chain, std::size_t stage, const at::Tensor& direction,
                                const Dataset& queries) {
  constexpr double kStep = 1e-3;
  const auto measured = [&](double h) {
    const auto weights = 1 + h * direction;
    return measure_all(Measurement::kLoss, test::retrained(chain, stage, weights).back(), queries);
  };
  return (measured(kStep) - measured(-kStep)) / (2 * kStep);
}

at::Tensor unit(std::int64_t row) {
  auto out = at::zeros({12}, at::kDouble);
  out[row] = 1;
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("scores through and of a primed stage equal central differences of retraining the chain") {
  const auto queries = test::toy_data("squared-error", 2, 3, Random(99));
  for (const auto& [priming, last] : std::vector<std::pair<std::string, std::string>>{
           {"maml:inner=head,inner-rate=0.2", "head"},
           {"maml:inner=head,inner-steps=3,inner-rate=0.1", "head"},
           {"maml:inner=lora:rank=1;alpha=1,inner-steps=2", "full:proximity=0.4"},
           {"maml:inner=adapter:width=2;activation=tanh", "head"},
           {"maml:inner=hut:rank=1,inner-steps=2", "head"}}) {
    CAPTURE(priming);
    const auto chain = primed_chain(priming, last);
    const auto& task = chain[1].objective.inner()->tasks()[1];
    const auto support = task.support[0].item<std::int64_t>(), query = task.query[0].item<std::int64_t>();
    const auto of_primed = scores_of(chain, 1, queries, "influence");
    const auto n = static_cast<double>(chain[1].objective.data().size());
    for (const auto row : {support, query}) {
      const auto expected = retrained_derivative(chain, 1, unit(row), queries) * n;
      CHECK(expected.abs().max().item<double>() > 1e-5);
      CHECK(relative_error(of_primed.select(1, row), expected) < 1e-4);
    }
    // A task's term weighs as its query examples do together.
    const auto whole = at::zeros({12}, at::kDouble).index_fill_(0, task.query, 1);
    CHECK(relative_error(of_primed.index_select(1, task.query).sum(1),
                         retrained_derivative(chain, 1, whole, queries) * n) < 1e-4);
    CHECK(relative_error(scores_of(chain, 0, queries, "influence").select(1, 3),
                         retrained_derivative(chain, 0, unit(3), queries) * n) < 1e-4);
  }
}

TEST_CASE("gradient products of a primed stage are derivatives of its gradient in each example's weight") {
  const auto chain = primed_chain("maml:inner=head,inner-steps=2", "head");
  const auto queries = test::toy_data("squared-error", 1, 3, Random(99));
  const auto found = scores_of(chain, 1, queries, "grad-dot");
  const auto& last = chain[2];
  const auto body = leaves(last.parent);
  const auto loss = last.objective.example_losses(last.theta, body, queries.batch(0, 1)).sum();
  const auto measured = flatten(gradient(loss, body));
  const auto& primed = chain[1];
  for (const std::int64_t row : {0, 1, 4, 11}) {
    constexpr double kStep = 1e-5;
    const auto gradient_with = [&](double h) {
      TensorList g;
      primed.objective.with_weights(1 + h * unit(row)).value(primed.theta, primed.parent, &g);
      return flatten(g);
    };
    const auto slope = (gradient_with(kStep) - gradient_with(-kStep)) / (2 * kStep) * 12;
    CHECK(found[0][row].item<double>() == doctest::Approx(-at::dot(measured, slope).item<double>()).epsilon(1e-6));
  }
}

TEST_CASE("what cannot be said of a primed stage is refused with what can") {
  const auto chain = primed_chain("maml:inner=head", "head");
  const auto queries = test::toy_data("squared-error", 1, 3, Random(99));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage primed: it is primed, and the curvature of its objective",
                      scores_of(chain, 0, queries, "influence", "gauss-newton"));
  CHECK(scores_of(chain, 2, queries, "influence", "gauss-newton").abs().max().item<double>() > 0);  // not through it
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage primed: logra compares gradients of examples' losses",
                      scores_of(chain, 1, queries, "logra"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "its examples have no gradients apart",
                      scores_of(chain, 1, queries, "grad-cos"));
  const Chain ended(chain.begin(), chain.begin() + 2);
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage primed: it is primed and hands on a body without a head",
                      scores_of(ended, 0, queries, "influence"));
  CHECK_THROWS_AS(predict(ended.back(), queries), InvalidArgument);
  CHECK_THROWS_AS(self_influence({.chain = chain,
                                  .stage = 1,
                                  .attributor = create<Attributor>("influence"),
                                  .curvature = create<Curvature>("hessian"),
                                  .solver = nullptr},
                                 {}),
                  InvalidArgument);
  const auto first = primed_chain("maml:inner=head,order=first", "head", /*trained=*/false);
  for (const char* method : {"influence", "grad-dot"}) {
    CHECK_MESSAGE_HOLDS(InvalidArgument, "order=exact in its priming", scores_of(first, 1, queries, method));
  }
  auto stage = first[1];
  CHECK_MESSAGE_HOLDS(InvalidArgument, "lbfgs: gradients of a priming with order=first", train(stage, Random(1)));
}

TEST_CASE("where nothing is said, a chain with a primed stage is solved with the Hessian") {
  const auto chain = primed_chain("maml:inner=head", "head");
  const InverseRequest request;
  const auto through = choose_inverse(chain, 0, 2, request, {});
  CHECK(through.curvature == "hessian");
  CHECK(through.reason.find("stage primed is primed") != std::string::npos);
  CHECK(choose_inverse(chain, 2, 2, request, {}).reason.find("is primed") == std::string::npos);
}

TEST_CASE("a pipeline primes by tasks from a column, and knows the seed that they were split by") {
  const Scratch scratch;
  std::string rows = "x,y,group,label\n";
  auto draws = Random(4);
  const auto values = draws.normal({24, 2});
  for (std::int64_t i = 0; i < 24; ++i) {
    rows += std::to_string(values[i][0].item<double>()) + "," + std::to_string(values[i][1].item<double>()) + "," +
            (i % 3 == 0   ? "left"
             : i % 3 == 1 ? "right"
                          : "middle") +
            "," + (i % 4 < 2 ? "yes" : "no") + "\n";
  }
  scratch.put("data.csv", rows);
  const auto text = [&](const std::string& keys) {
    return "[model]\nspec = \"mlp:widths=3\"\n[[stage]]\nname = \"primed\"\n" + keys +
           "\nweight-decay = 0.05\noptimizer = \"lbfgs:max-iterations=50\"\ncheckpoint = \"primed.safetensors\"\n"
           "train = { format = \"csv\", file = \"data.csv\", ignore = [\"group\"] }\n"
           "[[stage]]\nname = \"tuned\"\ntuning = \"head\"\nweight-decay = 0.05\ncheckpoint = \"tuned.safetensors\"\n"
           "train = { format = \"csv\", file = \"data.csv\", ignore = [\"group\"] }\n";
  };
  const auto open = [&](const std::string& keys, std::uint64_t seed = 0) {
    scratch.put("p.toml", text(keys));
    return Pipeline(scratch / "p.toml", {.seed = seed, .dtype = at::kDouble});
  };
  const std::string primed = "priming = \"maml:inner=head,inner-steps=2\"\ntasks = \"group\"";
  const auto pipeline = open(primed);
  pipeline.train(0, {});
  pipeline.train(1, {});
  const auto chain = pipeline.load();
  const auto& tasks = chain[0].objective.inner()->tasks();
  REQUIRE(tasks.size() == 3);
  CHECK(tasks[0].name == "left");
  CHECK(tasks[0].support.size(0) == 4);
  CHECK(relative_error(chain[1].parent, chain[0].theta) == 0);
  CHECK(pipeline.changes(0).empty());
  CHECK(open("priming = \"maml:inner=head,inner-steps=3\"\ntasks = \"group\"").changes(0).size() == 1);
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage primed: it was primed with seed 0", open(primed, 1).load());
  CHECK_MESSAGE_HOLDS(InvalidArgument, "p.toml: stage primed: tasks: unknown column \"grup\"",
                      open("priming = \"maml:inner=head\"\ntasks = \"grup\"").untrained(1));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "p.toml: stage primed: priming is for tasks: tasks = \"COLUMN\"",
                      open("priming = \"maml:inner=head\""));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage primed: tasks = \"group\", which is for a stage with the key priming",
                      open("tasks = \"group\""));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage primed: unknown tuning \"heads\"",
                      open("priming = \"maml:inner=heads\"\ntasks = \"group\""));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "maml: unknown option \"inner-step\"",
                      open("priming = \"maml:inner-step=3\"\ntasks = \"group\""));
}

TEST_SUITE_END();
