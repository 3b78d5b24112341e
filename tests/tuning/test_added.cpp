// Each tuning that adds at layers, against its formula written by hand: of linear layers, of [in, out] ones, of
// convolutions.
#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "support/near.h"
#include "tuning/cases.h"
#include "whence/core/error.h"

using namespace whence;
using test::relative_error;
using test::TuningBench;

namespace {

/// A layer of the body as a matrix [out, in], a convolution's [out, in * k * k], and what the tuning put there.
struct Layer {
  at::Tensor weight, bias;
  std::int64_t channels = 0;  ///< Of what it sees.
  std::function<at::Tensor(const std::string&)> part;
};

struct Effective {
  at::Tensor weight, bias;
};

Effective lora(const Layer& layer, double scale) {
  return {layer.weight + scale * layer.part("lora_B.weight").flatten(1).mm(layer.part("lora_A.weight").flatten(1)),
          layer.bias};
}
Effective dora(const Layer& layer, double scale) {
  auto rows = lora(layer, scale).weight.clone();
  for (std::int64_t i = 0; i < rows.size(0); ++i) {
    rows[i] *= layer.part("lora_magnitude_vector")[i] / rows[i].square().sum().sqrt();
  }
  return {rows, layer.bias};
}
Effective hut(const Layer& layer, std::int64_t r) {
  auto out = layer.weight.clone();
  const auto rows = out.size(0), columns = out.size(1);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      out[i][j] *= layer.part("hut_a")[i][j * r / columns] * layer.part("hut_b")[i * r / rows][j];
    }
  }
  const auto gamma = layer.part("hut_gamma");
  return {gamma.unsqueeze(1) * out, gamma * layer.bias + layer.part("hut_beta")};
}
Effective ia3(const Layer& layer) {
  const auto l = layer.part("ia3_l");
  return {layer.weight * l, layer.bias * l.flatten()};
}
Effective ia3_inputs(const Layer& layer) {
  const auto places = layer.weight.size(1) / layer.channels;  // of a filter
  return {layer.weight * layer.part("ia3_l").flatten().repeat_interleave(places), layer.bias};
}
Effective hira(const Layer& layer) {
  return {layer.weight * (1 + layer.part("hira_B").mm(layer.part("hira_A"))), layer.bias};
}
Effective hra(const Layer& layer) {
  auto out = layer.weight;
  const auto u = layer.part("hra_u");
  for (std::int64_t i = 0; i < u.size(1); ++i) {
    const auto one = u.select(1, i);
    out = out.mm(at::eye(u.size(0), at::kDouble) - 2 * at::outer(one, one) / one.square().sum());
  }
  return {out, layer.bias};
}

struct Formula {
  std::string spec;
  std::function<Effective(const Layer&)> effective;
};

/// Of a body layer of each kind: a linear one, a convolution, one whose weight is [in, out].
struct Kind {
  std::size_t on;  ///< In kTuningCases.
  std::string module;
  bool transposed;
};
const std::vector<Kind> kKinds{{0, "body.1", false}, {1, "body.1", false}, {2, "transformer.h.1.mlp.c_proj", true}};

std::set<std::string> modules_of(const ParameterSet& trained) {
  std::set<std::string> out;
  const auto added = trained.select("tuning.");
  for (const auto& name : added.names()) {
    out.insert(name.substr(0, name.find(".adapter_")));
  }
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("tuning");

TEST_CASE("what is folded into a layer is what its formula says") {
  for (const auto& kind : kKinds) {
    CAPTURE(kind.module);
    const auto& on = test::kTuningCases[kind.on];
    const TuningBench bench(on);
    const std::vector<Formula> formulas{
        {"lora:rank=2,alpha=3", [](const Layer& layer) { return lora(layer, 1.5); }},
        {"lora:rank=2,alpha=3,rank-stabilised", [](const Layer& layer) { return lora(layer, 3 / std::sqrt(2)); }},
        {"lora:rank=2,alpha=3,dora", [](const Layer& layer) { return dora(layer, 1.5); }},
        {"hut:rank=1", [](const Layer& layer) { return hut(layer, 1); }},
        {"hut:rank=2", [](const Layer& layer) { return hut(layer, 2); }},
        {"ia3", ia3},
        {"ia3:feedforward=" + on.inner, ia3_inputs},
        {"bias",
         [](const Layer& layer) {
           return Effective{layer.weight, layer.bias + layer.part("bias_delta")};
         }},
        {"hira:rank=2", hira},
        {"hra:rank=4", hra},
    };
    for (const auto& formula : formulas) {
      CAPTURE(formula.spec);
      const auto stage = bench.tuned(formula.spec);
      const auto parent = stage.objective.parent_layout().with(stage.parent);
      const auto tuned = stage.objective.trained().with(stage.theta);
      const auto matrix = [&](const at::Tensor& weight) { return kind.transposed ? weight.t() : weight.flatten(1); };
      const auto& weight = parent.at(kind.module + ".weight");
      const auto expected =
          formula.effective({matrix(weight), parent.at(kind.module + ".bias"), weight.size(kind.transposed ? 0 : 1),
                             [&](const std::string& part) { return tuned.at("tuning." + kind.module + "." + part); }});
      const auto body = stage.handed_on();
      CHECK(relative_error(matrix(body.at(kind.module + ".weight")), expected.weight) < test::Tolerance::kSameAlgebra);
      CHECK(relative_error(body.at(kind.module + ".bias"), expected.bias) < test::Tolerance::kSameAlgebra);
      // away from the parent's, or nothing was tested
      const auto moved = relative_error(matrix(body.at(kind.module + ".weight")), matrix(weight)) +
                         relative_error(body.at(kind.module + ".bias"), parent.at(kind.module + ".bias"));
      CHECK(moved > 0.01);
    }
  }
}

TEST_CASE("hut of rank 1 scales rows and columns") {
  const TuningBench bench(test::kTuningCases[0]);
  const auto stage = bench.tuned("hut:rank=1");
  const auto tuned = stage.objective.trained().with(stage.theta);
  const auto weight = stage.objective.parent_layout().with(stage.parent).at("body.0.weight");
  const auto rows = (tuned.at("tuning.body.0.hut_gamma") * tuned.at("tuning.body.0.hut_a").flatten()).unsqueeze(1);
  const auto columns = tuned.at("tuning.body.0.hut_b");  // [1, in]
  CHECK(relative_error(stage.handed_on().at("body.0.weight"), rows * weight * columns) < test::Tolerance::kSameAlgebra);
}

TEST_CASE("an adapter is a bottleneck behind its layer") {
  const TuningBench bench(test::kTuningCases[0]);
  const auto stage = bench.tuned("adapter:width=2,activation=tanh,targets=body.1");
  const auto merged = stage.objective.merge(stage.theta, stage.parent);
  const auto batch = stage.objective.data().batch(0, 6);
  const auto layer = [&](const std::string& name, const at::Tensor& x) {
    return x.mm(merged.at(name + ".weight").t()) + merged.at(name + ".bias");
  };
  const auto y = layer("body.1", at::tanh(layer("body.0", batch.inputs)));
  const auto behind = y + layer("tuning.body.1.adapter_up", at::tanh(layer("tuning.body.1.adapter_down", y)));
  CHECK(relative_error(bench.model().output(merged, batch), layer("head", at::tanh(behind))) <
        test::Tolerance::kSameAlgebra);
}

TEST_CASE("in a transformer adapters stand before the residual sums, elsewhere behind every layer of the body") {
  const auto trained = [](std::size_t on, const std::string& spec = "adapter:width=2") {
    return modules_of(TuningBench(test::kTuningCases[on]).fresh(spec).objective.trained());
  };
  CHECK(trained(0) == std::set<std::string>{"tuning.body.0", "tuning.body.1"});
  CHECK(trained(1) == std::set<std::string>{"tuning.body.0", "tuning.body.1"});
  CHECK(trained(2) == std::set<std::string>{"tuning.transformer.h.0.attn.c_proj", "tuning.transformer.h.0.mlp.c_proj",
                                            "tuning.transformer.h.1.attn.c_proj", "tuning.transformer.h.1.mlp.c_proj"});
  CHECK(trained(3) ==
        std::set<std::string>{"tuning.model.layers.0.self_attn.o_proj", "tuning.model.layers.0.mlp.down_proj",
                              "tuning.model.layers.1.self_attn.o_proj", "tuning.model.layers.1.mlp.down_proj"});
  CHECK(trained(3, "adapter:width=2,targets=gate_proj").size() == 2);
}

TEST_CASE("a low-rank embedding changes the head that it is tied to, and hands on one matrix") {
  const TuningBench bench(test::kTuningCases[2]);
  const auto stage = bench.tuned("lora:rank=2,alpha=3,targets=wte");
  const auto tuned = stage.objective.trained().with(stage.theta);
  CHECK(tuned.names() ==
        std::vector<std::string>{"tuning.transformer.wte.lora_embedding_A", "tuning.transformer.wte.lora_embedding_B"});
  const auto& a = tuned.at("tuning.transformer.wte.lora_embedding_A");
  const auto& b = tuned.at("tuning.transformer.wte.lora_embedding_B");
  CHECK(a.sizes() == at::IntArrayRef({2, 5}));
  CHECK(b.sizes() == at::IntArrayRef({4, 2}));
  const auto parent = stage.objective.parent_layout().with(stage.parent);
  auto values = parent.values();
  for (std::size_t i = 0; i < parent.size(); ++i) {
    if (parent.names()[i] == "transformer.wte.weight") {
      values[i] = values[i] + 1.5 * b.mm(a).t();
    }
  }
  const auto expected = parent.with(values);
  CHECK(relative_error(stage.handed_on().values(), expected.values()) < test::Tolerance::kSameAlgebra);
  const auto batch = stage.objective.data().batch(0, 4);
  CHECK(relative_error(stage.objective.output(stage.theta, stage.parent, batch),
                       bench.model().output(expected, batch)) < test::Tolerance::kSameAlgebra);
}

TEST_CASE("a stage goes on from what the one before left beside the weights, but does not add it twice") {
  const TuningBench bench(test::kTuningCases[3]);
  const auto next = [&](const std::string& first, const std::string& second) {
    auto chain = bench.begin(first);
    chain[1].theta = TuningBench::moved(chain[1].theta, 0.3);
    return begin_stage({.name = "next",
                        .model = create<Model>("transformer:directory=" + bench.folder()),
                        .loss = create<Loss>("next-token"),
                        .tuning = create<Tuning>(second),
                        .data = bench.data()},
                       chain, Random(4));
  };
  const std::string adapter = "adapter:width=2,activation=tanh";
  CHECK_MESSAGE_HOLDS(InvalidArgument, "a stage before has added tuning.model.layers.0.self_attn.o_proj.adapter_",
                      next(adapter, adapter));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "a stage before changes the weight of model.layers.0.self_attn.q_proj",
                      next("hut:rank=1", "lora:rank=1"));
  for (const auto& [first, second] : {std::pair<std::string, std::string>{adapter, "lora:rank=2"},
                                      {"bias", "ia3"},
                                      {"hut:rank=1", "bias"},
                                      {adapter, "full:proximity=1"}}) {
    CAPTURE(first);
    CAPTURE(second);
    auto stage = next(first, second);
    stage.theta = TuningBench::moved(stage.theta, 0.3);
    const auto batch = stage.objective.data().batch(0, 4);
    const auto body = stage.handed_on();
    CHECK(relative_error(bench.model().output(body, batch), stage.objective.output(stage.theta, stage.parent, batch)) <
          test::Tolerance::kSameAlgebra);
    CHECK(body.additions() != nullptr);
  }
}

TEST_SUITE_END();
