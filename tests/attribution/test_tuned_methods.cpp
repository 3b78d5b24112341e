// The methods that compare gradients, at stages that add to a body: the products of the gradients in what is trained,
// or one line where what is trained is no parameter that the queries' model has.
#include <torch/csrc/autograd/autograd.h>

#include "stages/chain_truth.h"
#include "support/near.h"
#include "tuning/cases.h"
#include "whence/core/error.h"

using namespace whence;

namespace {

const test::Inverter kInverter("gauss-newton", "direct", {.damping = 0.1});

/// -<gradient of each query's loss, gradient of each example's> in what the last stage trains: [queries, examples].
at::Tensor products(const Stage& stage, const Dataset& queries) {
  const auto gradients = [&](const Dataset& data) {
    TensorList rows;
    for (std::int64_t i = 0; i < data.size(); ++i) {
      const auto point = leaves(stage.theta);
      const auto loss = stage.objective.example_losses(point, stage.parent, data.batch(i, i + 1)).sum();
      rows.push_back(flatten(gradient(loss, point)));
    }
    return at::stack(rows);
  };
  return -at::mm(gradients(queries), gradients(stage.objective.data()).t());
}

at::Tensor scores(const Chain& chain, std::size_t stage, const Dataset& queries, const char* method) {
  return kInverter.scores(chain, stage, queries, Measurement::kLoss, method);
}

}  // namespace

TEST_SUITE_BEGIN("attribution");

TEST_CASE("grad-dot of a tuned stage is the product of the gradients in what it trains") {
  for (const auto on : {0, 3}) {
    const test::TuningBench bench(test::kTuningCases[static_cast<std::size_t>(on)]);
    auto specs = test::every_tuning_spec(test::kTuningCases[static_cast<std::size_t>(on)]);
    if (on == 3) {
      specs.push_back("prefix:length=1");
    }
    for (const auto& spec : specs) {
      CAPTURE(spec);
      auto chain = bench.begin(spec);
      chain[1].theta = test::TuningBench::moved(chain[1].theta, 0.3);
      const auto queries = bench.data().take(at::arange(2));
      const auto expected = products(chain[1], queries);
      CHECK(test::relative_error(scores(chain, 1, queries, "grad-dot"), expected) < test::Tolerance::kSameAlgebra);
      CHECK(expected.abs().max().item<double>() > 1e-6);
    }
  }
}

TEST_CASE("what makes parameters, or is folded away before the queries, is compared by influence alone") {
  const test::TuningBench texts(test::kTuningCases[3]);
  const auto made = texts.begin("prefix:length=1,mlp=2");
  for (const char* method : {"grad-dot", "grad-cos", "logra"}) {
    CAPTURE(method);
    CHECK_THROWS_WITH_AS(scores(made, 1, texts.data().take(at::arange(2)), method),
                         doctest::Contains("use --method influence"), InvalidArgument);
  }
  for (const char* spec : {"lora:rank=1", "ia3", "hut:rank=1"}) {
    CAPTURE(spec);
    const auto chain =
        test::toy_chain({{"full", "cross-entropy"}, {spec, "cross-entropy"}, {"full:proximity=0.3", "cross-entropy"}},
                        "mlp:widths=3,activation=tanh", 5);
    const auto queries = test::toy_data("cross-entropy", 2, 3, Random(9));
    for (const char* method : {"grad-dot", "grad-cos", "trak:dimension=4", "logra:rank=2"}) {
      CAPTURE(method);
      CHECK_THROWS_WITH_AS(scores(chain, 1, queries, method), doctest::Contains("use --method influence"),
                           InvalidArgument);
      CHECK(scores(chain, 0, queries, method).abs().max().item<double>() > 1e-9);  // the body itself is there
    }
  }
}

TEST_CASE("what cannot be had of a tuned stage is refused before anything is solved") {
  const test::TuningBench texts(test::kTuningCases[3]), tied(test::kTuningCases[2]);  // a head and an embedding
  const auto refusal_on = [](const test::TuningBench& bench, const std::string& tuning, const char* curvature,
                             std::size_t stage, Normalization normalization) {
    const std::shared_ptr<const Curvature> made = create<Curvature>(curvature);
    const auto source =
        create<Attributor>("influence")->prepare(bench.begin(tuning), {made, create<Solver>("cg"), {.damping = 0.1}});
    const auto message =
        test::message_of<InvalidArgument>([&] { source->check({stage}, Measurement::kLoss, normalization); });
    CHECK(source->evidence()[1].products == 0);
    return message;
  };
  const auto refusal = [&](const std::string& tuning, const char* curvature, std::size_t stage,
                           Normalization normalization) {
    return refusal_on(texts, tuning, curvature, stage, normalization);
  };
  const auto holds = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  const std::string made = "prefix:length=1,mlp=2";
  CHECK(holds(refusal(made, "hessian", 1, Normalization::kCosine), "of tuning.prefix.embedding, which makes"));
  CHECK(holds(refusal(made, "hessian", 1, Normalization::kRelatif), "of tuning.prefix.embedding, which makes"));
  CHECK(holds(refusal(made, "ekfac", 1, Normalization::kNone),
              "stage tuned: ekfac: tuning.prefix.embedding is no layer's weight or bias"));
  for (const auto normalization : {Normalization::kCosine, Normalization::kRelatif}) {
    CHECK(refusal("lora:rank=1,dora", "hessian", 1, normalization) == "");
  }
  CHECK(holds(refusal_on(tied, "lora:rank=1", "kfac:labels=data", 0, Normalization::kNone),
              "stage tuned: empirical-fisher: the stage's parent is not used layer by layer"));
  CHECK(refusal("lora:rank=1", "kfac:labels=data", 0, Normalization::kNone).empty());
  CHECK(refusal("lora:rank=1", "kfac:labels=data", 1, Normalization::kNone).empty());  // nothing goes on to the parent
  CHECK(refusal("lora:rank=1", "gauss-newton", 0, Normalization::kNone).empty());
}

TEST_CASE("texts that have no room behind a prefix or prompt are refused where the stage begins") {
  const test::TuningBench texts(test::kTuningCases[3]);  // a context of 8
  for (const std::string name : {"prefix", "prompt"}) {
    CAPTURE(name);
    CHECK_THROWS_WITH_AS(texts.begin(name + ":length=8"),
                         doctest::Contains("behind 8 of a prefix or prompt, expected at most 8 together"),
                         InvalidArgument);
    texts.begin(name + ":length=4");
  }
}

TEST_CASE("logra covers matrices beside layers, and names what it does not cover") {
  const test::TuningBench bench(test::kTuningCases[0]);
  const auto queries = bench.data().take(at::arange(2));
  for (const auto& spec : test::every_tuning_spec(test::kTuningCases[0])) {
    CAPTURE(spec);
    auto chain = bench.begin(spec);
    chain[1].theta = test::TuningBench::moved(chain[1].theta, 0.3);
    const bool matrices = spec.starts_with("full") || spec == "head" || spec.starts_with("adapter") ||
                          (spec.starts_with("lora") && spec.find("dora") == spec.npos);
    if (matrices) {
      CHECK(scores(chain, 1, queries, "logra:rank=2").abs().max().item<double>() > 1e-9);
    } else {
      CHECK_THROWS_WITH_AS(scores(chain, 1, queries, "logra:rank=2"),
                           doctest::Contains("logra: what the tuning trains at layer"), InvalidArgument);
    }
  }
}

TEST_SUITE_END();
