// Where a head begins that begins at a regression.
#include <ATen/ATen.h>

#include "support/near.h"
#include "support/text_points.h"
#include "support/toy_chain.h"
#include "whence/core/error.h"
#include "whence/models/ops.h"
#include "whence/stages/head_start.h"

using namespace whence;

namespace {

constexpr double kDecay = 0.02;

/// One layer of tanh before the head, as its training begins: the first stage, or one on a trained stage before.
Stage beginning(const std::string& loss, const std::string& tuning, bool later) {
  Chain chain;
  if (later) {
    chain = test::toy_chain({{"full", "squared-error"}}, "mlp:widths=4");
  }
  return begin_stage({.name = "tuned",
                      .model = create<Model>("mlp:widths=4"),
                      .loss = create<Loss>(loss),
                      .tuning = create<Tuning>(tuning),
                      .data = test::toy_data(loss, 12, 3, Random(3)),
                      .weight_decay = 0.7},
                     chain, Random(1));
}

/// What the body gives [N, 4], and a 1: written out, without the library.
at::Tensor features(const Stage& stage) {
  const auto parameters = stage.objective.trained().with(stage.theta);
  const auto body = stage.parent.empty() ? parameters : stage.objective.parent_layout().with(stage.parent);
  const auto inputs = stage.objective.data().batch(0, 12).inputs;
  const auto hidden = at::tanh(inputs.mm(body.at("body.0.weight").t()) + body.at("body.0.bias"));
  return at::cat({hidden, at::ones({12, 1}, at::kDouble)}, 1);
}

/// Weights and biases [outputs, 5].
at::Tensor head_of(const Stage& stage) {
  const auto parameters = stage.objective.trained().with(stage.theta);
  return at::cat({parameters.at("head.weight"), parameters.at("head.bias").unsqueeze(1)}, 1);
}

/// A layer of tanh and a head without a bias, that count how often examples go through them.
class CountedModel : public Model {
 public:
  ParameterSet initial(at::IntArrayRef shape, std::int64_t outputs, Random& random) const override {
    ParameterSet theta;
    theta.add("body.0.weight", random.normal({4, c10::multiply_integers(shape)}));
    theta.add("head.weight", random.normal({outputs, 4}));
    return theta;
  }
  at::Tensor output(const ParameterSet& theta, const Batch& batch, Tape* tape) const override {
    ++passes;
    return linear(theta, "head", at::tanh(linear(theta, "body.0", inputs_like(theta, batch.inputs), tape)), tape);
  }
  mutable int passes = 0;
};

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("a head without a bias begins at the regression on features that are made once") {
  const auto model = std::make_shared<CountedModel>();
  auto stage = begin_stage({.name = "tuned",
                            .model = model,
                            .loss = create<Loss>("cross-entropy"),
                            .data = test::toy_data("cross-entropy", 12, 3, Random(3))},
                           {}, Random(1));
  const auto body = stage.theta[0].clone();
  model->passes = 0;
  regress_head(stage, kDecay);
  CHECK(model->passes == 1);
  CHECK(stage.theta[0].equal(body));
  const auto batch = stage.objective.data().batch(0, 12);
  const auto x = at::tanh(batch.inputs.mm(body.t()));
  const auto wrong = at::softmax(x.mm(stage.theta[1].t()), 1) - at::one_hot(batch.targets, 3).to(at::kDouble);
  CHECK((wrong.t().mm(x) / 12 + kDecay * stage.theta[1]).norm().item<double>() <= 1e-5);
}

TEST_CASE("a head of values begins at the ridge regression on its body's features, which stay as they are") {
  for (const auto& [tuning, later] :
       {std::pair{"full", false}, std::pair{"full:proximity=0.3", true}, std::pair{"head", true}}) {
    CAPTURE(tuning);
    auto stage = beginning("squared-error", tuning, later);
    const auto x = features(stage);
    const auto y = stage.objective.data().batch(0, 12).targets;
    const auto before = head_of(stage);
    regress_head(stage, kDecay);
    CHECK(test::relative_error(features(stage), x) == 0);
    const auto ridge = at::linalg_solve(x.t().mm(x) / 12 + kDecay * at::eye(5, at::kDouble), x.t().mm(y) / 12).t();
    CHECK(test::relative_error(head_of(stage), ridge) < 1e-3);
    CHECK(test::relative_error(before, ridge) > 0.1);
  }
}

TEST_CASE("a head of classes begins where the logistic regression's gradient is 0") {
  auto stage = beginning("cross-entropy", "full", false);
  const auto slope = [&] {
    const auto x = features(stage);
    const auto wrong = at::softmax(x.mm(head_of(stage).t()), 1) -
                       at::one_hot(stage.objective.data().batch(0, 12).targets, 3).to(at::kDouble);
    return (wrong.t().mm(x) / 12 + kDecay * head_of(stage)).norm().item<double>();
  };
  CHECK(slope() > 0.05);
  regress_head(stage, kDecay);
  CHECK(slope() <= 1e-5);
}

TEST_CASE("of a transformer's head the last layer begins at the regression, on what those before make of the body") {
  struct Case {
    std::size_t model;
    const char* head;
    int moved;
  };
  for (const auto& on : {Case{3, "classifier.", 2}, Case{1, "score.", 1}}) {  // behind a layer; without a bias
    CAPTURE(on.head);
    const test::Scratch folder;
    folder.put("config.json", test::kTinyTransformers[on.model].config);
    Dataset::Contents contents;
    contents.texts = test::tiny_texts(true).texts();
    contents.texts.targets = at::Tensor();
    contents.targets = at::tensor({0, 1, 1, 0}, at::kLong);
    contents.classes = {"no", "yes"};
    contents.ids = at::arange(4, at::kLong);
    auto stage = begin_stage({.name = "tuned",
                              .model = create<Model>("transformer:directory=" + folder.folder().string()),
                              .loss = create<Loss>("cross-entropy"),
                              .data = Dataset(std::move(contents)).to(at::kDouble, at::kCPU)},
                             {}, Random(1));
    const auto before = stage.objective.trained().with(clone(stage.theta));
    regress_head(stage, kDecay);
    const auto theta = leaves(stage.theta);
    const auto slopes =
        gradient(stage.objective.example_losses(theta, {}, stage.objective.data().batch(0, 4)).mean(), theta);
    int moved = 0;
    for (std::size_t i = 0; i < theta.size(); ++i) {
      CAPTURE(before.names()[i]);
      if (at::equal(stage.theta[i], before.values()[i])) {
        continue;
      }
      ++moved;
      CHECK(before.names()[i].find(on.head) != std::string::npos);
      CHECK((slopes[i] + kDecay * stage.theta[i]).norm().item<double>() <= 1e-5);
    }
    CHECK(moved == on.moved);
  }
}

TEST_CASE("the words of a head's start, and stages without a head of their own") {
  CHECK_FALSE(parse_head_start(""));
  CHECK_FALSE(parse_head_start("random"));
  CHECK(parse_head_start("regression") == 0.01);
  CHECK(parse_head_start("regression:weight-decay=0.5") == 0.5);
  CHECK_THROWS_WITH_AS(parse_head_start("regression:weight-decay=0"), doctest::Contains("weight-decay = 0"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(parse_head_start("luck"),
                       "head-start = \"luck\", expected random or regression[:weight-decay=X]", InvalidArgument);
}
