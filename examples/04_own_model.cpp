// A model and a loss of your own: written here, added to their rooms, and from then on made by name as the library's
// are, in specs and in pipeline files.
#include <ATen/ATen.h>
#include <whence/attribution/attribute.h>
#include <whence/core/described.h>
#include <whence/models/ops.h>
#include <whence/store/ranking.h>

#include <cstdio>

using namespace whence;

struct GatedOptions {
  std::int64_t units = 8;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("units", self.units, kAtLeastOne, "of the gated layer");
  }
};

/// One gated layer, tanh(A x) sigmoid(B x), and a head.
class Gated : public Model, public Described {
 public:
  explicit Gated(GatedOptions options) : options_(options) {}

  ParameterSet initial(at::IntArrayRef input_shape, std::int64_t outputs, Random& random) const override {
    ParameterSet theta;
    add_layer(theta, "value", {options_.units, input_shape[0]}, "tanh", random);
    add_layer(theta, "gate", {options_.units, input_shape[0]}, "", random);
    add_layer(theta, "head", {outputs, options_.units}, "", random);
    return theta;
  }
  at::Tensor output(const ParameterSet& theta, const Batch& batch, Tape* tape) const override {
    const at::Tensor x = inputs_like(theta, batch.inputs);
    return linear(theta, "head", linear(theta, "value", x, tape).tanh() * linear(theta, "gate", x, tape).sigmoid(),
                  tape);
  }
  std::string description() const override { return options_text(options_); }

 private:
  GatedOptions options_;
};

/// log(1 + exp(-y output)) for targets 0 and 1, which stand for y = -1 and 1: one output, where cross-entropy has two.
class Logistic : public Loss {
 public:
  explicit Logistic(NoOptions) {}

  TargetKind wants() const override { return TargetKind::kValues; }
  at::Tensor per_example(const at::Tensor& output, const Batch& batch) const override {
    return at::softplus((1 - 2 * batch.targets) * output).sum(1);
  }
  at::Tensor hessian_product(const at::Tensor& output, const Batch&, const at::Tensor& u) const override {
    return variance(output) * u;
  }
  at::Tensor hessian_root(const at::Tensor& output, const Batch&) const override {
    return variance(output).sqrt().unsqueeze(2);
  }
  at::Tensor sampled_gradient(const at::Tensor& output, const Batch&, const at::Tensor& noise) const override {
    const at::Tensor p = output.sigmoid();
    return p - noise.lt(p).to(p.scalar_type());
  }
  std::int64_t noise_width(std::int64_t outputs) const override { return outputs; }

 private:
  static at::Tensor variance(const at::Tensor& output) { return output.sigmoid() * (1 - output.sigmoid()); }
};

/// Points in the plane; the target is 1 inside the unit circle.
Dataset points(std::int64_t count, Random random) {
  Dataset::Contents contents;
  contents.inputs = random.normal({count, 2});
  contents.targets = contents.inputs.square().sum(1, /*keepdim=*/true).lt(1).to(at::kDouble);
  contents.ids = at::arange(count);
  return Dataset(contents);
}

int main() {
  add_method<Model, Gated, GatedOptions>("gated", "one gated layer and a head", "Dauphin et al. 2017");
  add_method<Loss, Logistic, NoOptions>("logistic", "log(1 + exp(-y output))");

  const Random random(1);
  Chain chain{begin_stage({.name = "train",
                           .model = create<Model>("gated:units=6"),
                           .loss = create<Loss>("logistic"),
                           .optimizer = create<Optimizer>("lbfgs:tolerance=1e-9"),
                           .data = points(100, random.stream("data")),
                           .weight_decay = 0.01},
                          {}, random.stream("start"))};
  const TrainingSummary summary = train(chain[0], random);
  std::printf("gated:units=6, trained to a logistic loss of %.4f\n", summary.objective);

  const Dataset queries = points(3, random.stream("queries"));
  const auto influence =
      create<Attributor>("influence")->prepare(chain, {create<Curvature>("gauss-newton"), create<Solver>("auto")});
  const at::Tensor scores = score_matrix(chain, 0, *influence, queries, Measurement::kLoss);
  for (std::int64_t query = 0; query < queries.size(); ++query) {
    const Ranking ranking =
        rank_examples(scores[query], chain[0].objective.data().ids(), /*top=*/1, Measurement::kLoss);
    const RankedExample& best = ranking.proponents.at(0);
    std::printf("query %d: example %d helps most: without it the loss changes by %+.4f\n", static_cast<int>(query),
                static_cast<int>(best.example), *best.removal);
  }
}
