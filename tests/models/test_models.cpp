// What is particular to each model.
#include <torch/csrc/autograd/autograd.h>

#include "models/made.h"
#include "support/near.h"

using namespace whence;
using namespace whence::test;

namespace {

struct Layout {
  std::string spec;
  std::vector<std::int64_t> input;
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> parameters;
};

/// Checkpoints depend on these names and shapes: change none.
const std::vector<Layout> kLayouts = {
    {"linear", {4, 5}, {{"head.weight", {3, 20}}, {"head.bias", {3}}}},
    {"linear:bias=false", {7}, {{"head.weight", {3, 7}}}},
    {"mlp",
     {28, 28},
     {{"body.0.weight", {64, 784}},
      {"body.0.bias", {64}},
      {"body.1.weight", {32, 64}},
      {"body.1.bias", {32}},
      {"head.weight", {3, 32}},
      {"head.bias", {3}}}},
    {"convnet",
     {28, 28},
     {{"body.0.weight", {16, 1, 3, 3}},
      {"body.0.bias", {16}},
      {"body.1.weight", {32, 16, 3, 3}},
      {"body.1.bias", {32}},
      {"head.weight", {3, 1568}},
      {"head.bias", {3}}}},
    {"convnet:channels=8,kernel=5,dense=10",
     {3, 32, 32},
     {{"body.0.weight", {8, 3, 5, 5}},
      {"body.0.bias", {8}},
      {"body.1.weight", {10, 2048}},
      {"body.1.bias", {10}},
      {"head.weight", {3, 10}},
      {"head.bias", {3}}}},
};

Batch inputs_only(at::Tensor inputs) {
  Batch batch;
  batch.inputs = std::move(inputs);
  return batch;
}

}  // namespace

TEST_SUITE("models") {
  TEST_CASE("names and shapes of parameters") {
    for (const auto& layout : kLayouts) {
      CAPTURE(layout.spec);
      Random random(0);
      const auto theta = create<Model>(layout.spec)->initial(layout.input, 3, random);
      REQUIRE(theta.size() == layout.parameters.size());
      for (std::size_t i = 0; i < theta.size(); ++i) {
        CHECK(theta.names()[i] == layout.parameters[i].first);
        CHECK(theta.values()[i].sizes() == at::IntArrayRef(layout.parameters[i].second));
      }
    }
  }

  TEST_CASE("resolved specs write every option out") {
    CHECK(resolved_spec<Model>("linear") == "linear:bias=true");
    CHECK(resolved_spec<Model>("mlp:activation=relu") == "mlp:widths=64/32,activation=relu");
    CHECK(resolved_spec<Model>("convnet") == "convnet:channels=16/32,kernel=3,activation=relu,pool=max,dense=0");
    CHECK(resolved_spec<Loss>("cross-entropy") == "cross-entropy:smoothing=0");
  }

  TEST_CASE("weights have the variance of their activation, whatever else the model has") {
    for (const auto& [word, gain] : {std::pair{"tanh", 2.0 / (300 + 200)}, {"relu", 2.0 / 300}, {"gelu", 2.0 / 300}}) {
      Random random(2);
      const auto weight = create<Model>(std::string("mlp:widths=200,activation=") + word)
                              ->initial({300}, 3, random)
                              .at("body.0.weight");
      CHECK(weight.var().item<double>() == doctest::Approx(gain).epsilon(0.03));  // 60 000 draws: 0.6 % standard error
    }
    Random shallow(2), deep(2);
    CHECK(at::equal(create<Model>("mlp:widths=4")->initial({5}, 3, shallow).at("body.0.weight"),
                    create<Model>("mlp:widths=4/4")->initial({5}, 3, deep).at("body.0.weight")));
  }

  TEST_CASE("mlp is W2 f(W1 x + b1) + b2, with the exact gelu") {
    for (const auto* word : {"tanh", "relu", "gelu"}) {
      const auto model = create<Model>(std::string("mlp:widths=4,activation=") + word);
      const auto theta = made_parameters(*model);
      Random random(3);
      const auto x = random.normal({2, 5, 6});
      auto hidden = at::matmul(x.reshape({2, 30}), theta.at("body.0.weight").t()) + theta.at("body.0.bias");
      if (std::string(word) == "tanh") {
        hidden = (hidden.exp() - hidden.neg().exp()) / (hidden.exp() + hidden.neg().exp());
      } else if (std::string(word) == "relu") {
        hidden = (hidden + hidden.abs()) / 2;
      } else {
        hidden = hidden * 0.5 * (1 + at::erf(hidden / std::sqrt(2.0)));
      }
      const auto expected = at::matmul(hidden, theta.at("head.weight").t()) + theta.at("head.bias");
      CHECK(relative_error(model->output(theta, inputs_only(x)), expected) < Tolerance::kSameAlgebra);
    }
  }

  TEST_CASE("convnet is convolution, activation, pool, dense, head") {
    const auto model = create<Model>("convnet:channels=2/3,kernel=3,activation=tanh,pool=avg,dense=4");
    const std::vector<std::int64_t> image = {2, 9, 8};
    const auto theta = made_parameters(*model, image);
    Random random(3);
    const auto input = random.normal({3, 2, 9, 8});
    auto x = input;
    for (const std::string layer : {"body.0", "body.1"}) {
      const auto& w = theta.at(layer + ".weight");
      const auto padded = at::constant_pad_nd(x, {1, 1, 1, 1});
      auto y = at::zeros({3, w.size(0), x.size(2), x.size(3)}, at::kDouble);
      for (std::int64_t i = 0; i < 3; ++i) {
        for (std::int64_t j = 0; j < 3; ++j) {
          const auto shifted = padded.narrow(2, i, x.size(2)).narrow(3, j, x.size(3));
          y += at::einsum("bchw,oc->bohw", {shifted, w.select(3, j).select(2, i)});
        }
      }
      y = at::tanh(y + theta.at(layer + ".bias").view({1, -1, 1, 1}));
      const auto h = y.size(2) / 2, v = y.size(3) / 2;
      x = y.narrow(2, 0, 2 * h).narrow(3, 0, 2 * v).reshape({3, -1, h, 2, v, 2}).mean(at::IntArrayRef{3, 5});
    }
    x = at::tanh(at::matmul(x.flatten(1), theta.at("body.2.weight").t()) + theta.at("body.2.bias"));
    const auto expected = at::matmul(x, theta.at("head.weight").t()) + theta.at("head.bias");
    CHECK(relative_error(model->output(theta, inputs_only(input)), expected) < Tolerance::kSameAlgebra);
  }

  TEST_CASE("convnet takes one-channel images with and without the channel; max pools maxima") {
    const auto model = create<Model>("convnet:channels=1,kernel=1,activation=relu,pool=max");
    Random random(0);
    auto theta = model->initial({2, 2}, 1, random);
    theta = theta.with({at::ones({1, 1, 1, 1}, at::kDouble), at::zeros({1}, at::kDouble), at::ones({1, 1}, at::kDouble),
                        at::zeros({1}, at::kDouble)});
    const auto flat = at::arange(8, at::kDouble).reshape({2, 2, 2});
    const auto expected = at::tensor({3.0, 7.0}, at::kDouble).unsqueeze(1);
    CHECK(at::equal(model->output(theta, inputs_only(flat)), expected));
    CHECK(at::equal(model->output(theta, inputs_only(flat.unsqueeze(1))), expected));
  }

  TEST_CASE("shapes that do not fit are named") {
    Random random(0);
    const auto convnet = create<Model>("convnet:channels=2/2/2");
    CHECK_THROWS_WITH_AS(convnet->initial({1, 12, 7}, 3, random),
                         "convnet: images of 12 x 7 pixels, expected at least 8 for 3 blocks that halve them",
                         InvalidArgument);
    CHECK_THROWS_WITH_AS(convnet->initial({20}, 3, random),
                         "convnet: inputs of shape [20], expected images [height, width] or [channels, height, width]",
                         InvalidArgument);
    CHECK_THROWS_WITH_AS(create<Model>("convnet:kernel=4"), "convnet: option kernel = 4, expected an odd number",
                         InvalidArgument);
    CHECK_THROWS_WITH_AS(create<Model>("mlp:widths=4/0"), "mlp: option widths = 4/0, expected >= 1", InvalidArgument);
    CHECK_THROWS_WITH_AS(
        create<Model>("mpl"),
        doctest::Contains("unknown model \"mpl\"; did you mean \"mlp\"? known: linear, mlp, convnet, "),
        InvalidArgument);

    const auto mlp = create<Model>("mlp:widths=4");
    const auto theta = mlp->initial({10}, 3, random);
    CHECK_THROWS_WITH_AS(mlp->output(theta, inputs_only(at::zeros({2, 11}, at::kDouble))),
                         "layer body.0: input of shape [2, 11] does not fit a weight of shape [4, 10]",
                         InvalidArgument);
    CHECK_THROWS_WITH_AS(mlp->output(theta.without("body.0.weight"), inputs_only(at::zeros({2, 10}, at::kDouble))),
                         doctest::Contains("unknown parameter \"body.0.weight\""), InvalidArgument);
  }
}
