// The contract that every registered tuning keeps.
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "support/near.h"
#include "tuning/cases.h"
#include "whence/core/derivative_check.h"
#include "whence/core/error.h"
#include "whence/models/addition.h"
#include "whence/models/ops.h"
#include "whence/models/per_sample.h"
#include "whence/tuning/tuning.h"

using namespace whence;
using test::for_every_tuning;
using test::relative_error;
using test::TuningBench;

namespace {

Batch all_of(const Stage& stage) { return stage.objective.data().batch(0, stage.objective.data().size()); }

/// What the stage's parent computes with, and the stage's head.
ParameterSet before(const Stage& stage) {
  const auto& trained = stage.objective.trained().with(stage.theta);
  const auto parent = stage.objective.parent_layout().with(stage.parent);
  return parent.join(stage.objective.model().head().of(trained).without(parent));
}

/// Each example's gradient in all that the model computes with, by a backward pass each, neither padded nor packed:
/// [N, entries].
at::Tensor looped_gradients(const Stage& stage, const ParameterSet& merged) {
  TensorList rows;
  for (std::int64_t i = 0; i < stage.objective.data().size(); ++i) {
    const auto one = stage.objective.data().batch(i, i + 1);
    const auto point = leaves(merged.values());
    const auto loss = stage.objective.loss().per_example(stage.objective.model().output(merged.with(point), one), one);
    rows.push_back(flatten(gradient(loss.sum(), point)));
  }
  return at::stack(rows);
}

/// Columns of a block over `layout` that belong to `names`.
at::Tensor columns_of(const at::Tensor& block, const ParameterSet& layout, const std::vector<std::string>& names) {
  TensorList parts;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < layout.size(); ++i) {
    const auto length = layout.values()[i].numel();
    if (std::find(names.begin(), names.end(), layout.names()[i]) != names.end()) {
      parts.push_back(block.narrow(1, offset, length));
    }
    offset += length;
  }
  return at::cat(parts, 1);
}

/// Parameters of the body too, in place of the parent's.
bool trains_whole(const std::string& spec) { return spec.find(",also=") != std::string::npos; }

}  // namespace

TEST_SUITE_BEGIN("tuning");

TEST_CASE("a fresh tuning computes what the parent does, and hands the parent's body on, to the bit") {
  for (const auto dtype : {at::kDouble, at::kFloat}) {
    CAPTURE(c10::toString(dtype));
    for_every_tuning([&](const TuningBench& bench, const std::string& spec) {
      const auto stage = bench.fresh(spec, dtype);
      const auto batch = all_of(stage);
      CHECK(at::equal(stage.objective.output(stage.theta, stage.parent, batch),
                      bench.model().output(before(stage), batch)));
      const auto body = stage.handed_on();
      for (std::size_t i = 0; i < stage.parent.size(); ++i) {
        CHECK(at::equal(body.at(stage.objective.parent_layout().names()[i]), stage.parent[i]));
      }
    });
  }
}

TEST_CASE("the objective's derivatives in tuned and in parent are those of central differences") {
  constexpr std::int64_t kDirections = 6;
  for_every_tuning([&](const TuningBench& bench, const std::string& spec) {
    const auto stage = bench.tuned(spec);
    const auto batch = all_of(stage);
    // along random directions of length 1 through the point, which touch every entry
    const auto directions = [&](const TensorList& at, const char* name) {
      const auto block = Random(8).stream(name).normal({kDirections, count_entries(at)});
      return block / at::linalg_vector_norm(block, 2, {1}, true);
    };
    const auto along = [](const TensorList& at, const at::Tensor& block, const at::Tensor& steps) {
      return unflatten(flatten(at) + at::mv(block.t(), steps), at);
    };
    const auto of_theta = directions(stage.theta, "theta"), of_parent = directions(stage.parent, "parent");
    const auto value = [&](const TensorList& x, const TensorList& y) {
      const auto theta = along(stage.theta, of_theta, x[0]), parent = along(stage.parent, of_parent, y[0]);
      return stage.objective.batch_loss(theta, parent, batch) + stage.objective.penalty(theta, parent);
    };
    const auto here = at::zeros({kDirections}, at::kDouble);
    const auto errors = check_derivatives(value, {here}, {here});
    CHECK(errors.gradient < test::Tolerance::kDifferences);
    CHECK(errors.hessian_product < test::Tolerance::kDifferences);
    CHECK(errors.mixed_product < test::Tolerance::kDifferences);
  });
}

TEST_CASE("what is trained is the head and the tuning's own, and all of it moves the loss; the rest is the parent's") {
  for_every_tuning([&](const TuningBench& bench, const std::string& spec) {
    const auto stage = bench.tuned(spec);
    const auto& names = stage.objective.trained().names();
    const auto point = leaves(stage.theta);
    const auto loss = stage.objective.batch_loss(point, stage.parent, all_of(stage));
    const auto slopes = gradient(loss, point);
    for (std::size_t i = 0; i < names.size(); ++i) {
      CAPTURE(names[i]);
      const bool own = names[i].starts_with("tuning.") || names[i].starts_with("head.");
      CHECK((own || spec.starts_with("full") || spec == "norm" || trains_whole(spec)));
      CHECK(slopes[i].abs().max().item<double>() > 1e-8);
    }
    const auto merged = stage.objective.merge(stage.theta, stage.parent);
    for (std::size_t i = 0; i < stage.parent.size(); ++i) {
      const auto& name = stage.objective.parent_layout().names()[i];
      CAPTURE(name);
      CHECK(merged.at(name).is_same(stage.parent[i]) != stage.objective.trained().contains(name));
    }
    CHECK(merged.size() == before(stage).size() + stage.objective.trained().without(before(stage)).size());
  });
}

TEST_CASE("what is handed on computes the same as what was trained") {
  for_every_tuning([&](const TuningBench& bench, const std::string& spec) {
    const auto stage = bench.tuned(spec);
    const auto head = bench.model().head().of(stage.objective.trained().with(stage.theta));
    const auto body = stage.handed_on();
    const auto batch = all_of(stage);
    CHECK(relative_error(bench.model().output(body.join(head.without(body)), batch),
                         stage.objective.output(stage.theta, stage.parent, batch)) < test::Tolerance::kSameAlgebra);
    // what is left beside the weights is what could not be folded into them
    std::size_t beside = 0;
    if (body.additions()) {
      for (const auto& [module, here] : *body.additions()) {
        for (const auto& addition : here) {
          CHECK_FALSE(addition->folds());
          ++beside;
        }
      }
    }
    CHECK((body.size() == stage.parent.size()) == (beside == 0));
    CHECK((beside > 0) ==
          (spec.starts_with("adapter") || (bench.without_biases() && (spec == "bias" || spec.starts_with("hut")))));
  });
}

TEST_CASE("per-sample products, norms and tokens' parts equal each example's gradient") {
  for_every_tuning([&](const TuningBench& bench, const std::string& spec) {
    const auto stage = bench.tuned(spec);
    const auto& loss = bench.loss();
    const auto& names = stage.objective.trained().names();
    const auto batch = all_of(stage);
    const auto merged = stage.objective.merge(stage.theta, stage.parent);
    const auto rows = looped_gradients(stage, merged);
    for (const std::int64_t count : {1, 3}) {  // of what is trained, and of all that it is computed with
      const auto block = Random(6).normal({count, merged.entries()});
      const auto all = directions_of(block, merged);
      Directions trained;
      for (const auto& name : names) {
        trained.add(name, all.at(name));
      }
      CHECK(relative_error(per_sample_products(bench.model(), loss, merged, batch, all), at::mm(block, rows.t())) <
            test::Tolerance::kSameAlgebra);
      CHECK(relative_error(per_sample_products(bench.model(), loss, merged, batch, trained),
                           at::mm(columns_of(block, merged, names), columns_of(rows, merged, names).t())) <
            test::Tolerance::kSameAlgebra);
      if (bench.model().takes_texts() && count == 1) {
        const auto parts = per_token_products(bench.model(), loss, merged, batch, trained);
        const auto owner = batch.text->examples.flatten();
        const auto sums = at::zeros({batch.size() + 1}, at::kDouble).index_add_(0, owner + 1, parts);
        CHECK(sums[0].item<double>() == 0);  // padding
        CHECK(relative_error(sums.narrow(0, 1, batch.size()),
                             at::mv(columns_of(rows, merged, names), columns_of(block, merged, names)[0])) <
              test::Tolerance::kSameAlgebra);
      }
    }
    CHECK(relative_error(per_sample_squared_norms(bench.model(), loss, merged, batch, merged.names()),
                         rows.square().sum(1)) < test::Tolerance::kSameAlgebra);
    CHECK(relative_error(per_sample_squared_norms(bench.model(), loss, merged, batch, names),
                         columns_of(rows, merged, names).square().sum(1)) < test::Tolerance::kSameAlgebra);
  });
}

TEST_CASE("float32 gives what float64 does, penalty and gradient too") {
  for_every_tuning([&](const TuningBench& bench, const std::string& spec) {
    const auto stage = bench.tuned(spec);
    const auto narrow = stage.objective.to(at::kFloat);
    TensorList theta, parent;
    for (const auto& value : stage.theta) {
      theta.push_back(value.to(at::kFloat));
    }
    for (const auto& value : stage.parent) {
      parent.push_back(value.to(at::kFloat));
    }
    const auto penalty = narrow.penalty(theta, parent);
    CHECK((penalty.scalar_type() == at::kFloat));
    CHECK(relative_error(penalty, stage.objective.penalty(stage.theta, stage.parent)) < test::Tolerance::kFloat);
    TensorList slope, wide_slope;
    const double value = narrow.value(theta, parent, &slope);
    CHECK(value == doctest::Approx(stage.objective.value(stage.theta, stage.parent, &wide_slope)).epsilon(1e-4));
    CHECK(relative_error(slope, wide_slope) < test::Tolerance::kFloat);
  });
}

TEST_CASE("the regulariser pulls to what changes nothing") {
  for_every_tuning([&](const TuningBench& bench, const std::string& spec) {
    const auto stage = bench.tuned(spec);
    const auto& trained = stage.objective.trained();  // with where training begins
    double expected = 0;
    for (std::size_t i = 0; i < trained.size(); ++i) {
      const auto& name = trained.names()[i];
      const auto& layout = stage.objective.parent_layout();
      const bool one =
          name.ends_with("ia3_l") || name.ends_with("hut_a") || name.ends_with("hut_b") || name.ends_with("hut_gamma");
      const bool begins_neutral = name.ends_with("lora_magnitude_vector") ||
                                  ((spec == "norm" || trains_whole(spec)) && layout.contains(name)) ||
                                  (spec == "full:proximity=0.3" && layout.contains(name));
      const auto neutral = begins_neutral ? trained.values()[i] : at::full({}, one ? 1. : 0., at::kDouble);
      const double strength = name.ends_with("hra_u")                                      ? 0
                              : spec == "full:proximity=0.3" && !name.starts_with("head.") ? 0.3
                                                                                           : 0.2;
      expected += strength / 2 * (stage.theta[i] - neutral).square().sum().item<double>();
    }
    CHECK(stage.objective.penalty(stage.theta, stage.parent).item<double>() ==
          doctest::Approx(expected).epsilon(1e-12));
  });
}

TEST_CASE("every tuning but full needs a stage before it, and head something to train") {
  for_every_tuning([&](const TuningBench& bench, const std::string& spec) {
    if (spec.starts_with("full")) {
      return;
    }
    const auto stage = bench.fresh(spec);
    const auto pass = [] { return Tape(); };
    CHECK_THROWS_WITH_AS(
        create<Tuning>(spec)->trainable({before(stage), ParameterSet(), bench.model().head(), pass}, Random(2)),
        doctest::Contains("stage before"), InvalidArgument);
  });
  const TuningBench bench(test::kTuningCases[0]);
  const auto body = bench.fresh("head").objective.parent_layout();
  const auto pass = [] { return Tape(); };
  CHECK_THROWS_WITH_AS(create<Tuning>("head")->trainable({body, body, Head(), pass}, Random(2)),
                       doctest::Contains("hands on every parameter of the model, so there is no head"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(create<Tuning>("full:proximity=1")->trainable({body, ParameterSet(), Head(), pass}, Random(2)),
                       doctest::Contains("proximity needs a stage"), InvalidArgument);
  CHECK_THROWS_WITH_AS(create<Tuning>("full:proximity=-1"), "full: option proximity = -1, expected >= 0",
                       InvalidArgument);
}

TEST_CASE("a body without layers that fit is refused by name, and so is a target that is none of them") {
  // a table alone: nothing in it is multiplied with what comes in
  const ParameterSet body{{"words.weight", at::ones({5, 3}, at::kDouble)}};
  const auto theta = body.join({{"head.weight", at::ones({2, 3}, at::kDouble)}});
  const auto pass = [&] {
    Tape tape;
    linear(theta, "head", embedding(theta, "words.weight", at::zeros({1}, at::kLong), &tape), &tape);
    return tape;
  };
  const auto refusal = [&](const std::string& spec) {
    return test::message_of<InvalidArgument>([&] {
      create<Tuning>(spec)->trainable({theta, body, Head(), pass}, Random(2));
    });
  };
  for (const std::string name : {"lora", "hut", "ia3", "bias", "adapter", "hira", "hra"}) {
    CHECK(refusal(name) == name + ": no linear layer or convolution in the body, whose layers are words");
    CHECK(refusal(name + ":targets=word").find(name + ": unknown layer among targets \"word\"") == 0);
  }
  CHECK(refusal("norm") == "norm: no norm in the body, whose layers are words");
  CHECK(refusal("lora:dora,targets=words") == "lora: targets = words, but words is no linear layer or convolution");
  CHECK(refusal("lora:targets=words").empty());
  const TuningBench bench(test::kTuningCases[0]);
  CHECK_MESSAGE_HOLDS(InvalidArgument, "stage tuned: norm: no norm in the body, whose layers are body.0, body.1",
                      bench.begin("norm"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "ia3: unknown layer among feedforward \"body.2\"",
                      bench.begin("ia3:feedforward=body.2"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "hut: option rank = 4, expected at most 3", bench.begin("hut:rank=4"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "hra: option rank = 3, expected an even number", bench.begin("hra:rank=3"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "lora: also = head.bias means head.bias of the stage's head, which is trained",
                      bench.begin("lora:rank=1,also=head.bias"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "lora: unknown parameter among also \"body.9\"",
                      bench.begin("lora:rank=1,also=body.9"));
}

TEST_CASE("ranks and widths that no layer or memory has room for are refused before anything is made") {
  const TuningBench bench(test::kTuningCases[0]);  // layers of 4 x 5 and 3 x 4
  for (const std::string name : {"lora", "hira", "hra"}) {
    CAPTURE(name);
    CHECK_MESSAGE_HOLDS(InvalidArgument, name + ": option rank = 100000, expected at most 64 at body.0, of 4 x 5",
                        bench.begin(name + ":rank=100000"));
    CHECK_MESSAGE_HOLDS(InvalidArgument, "expected at most 64 at body.1, of 3 x 4",
                        bench.begin(name + ":rank=9000000000000000000,targets=body.1"));
    bench.begin(name);  // with its default
  }
  CHECK_MESSAGE_HOLDS(InvalidArgument, "lora: option rank = 65, expected at most 64 at body.1, of 3 x 4",
                      bench.begin("lora:rank=1,ranks=body.1:65"));
  const TuningBench wide({"mlp:widths=70,activation=tanh", "squared-error", "body.0", ""});
  wide.begin("lora:rank=70");
  CHECK_MESSAGE_HOLDS(InvalidArgument, "expected at most 70 at body.0, of 70 x 5", wide.begin("lora:rank=71"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "adapter: option width = 4000000000000000000, expected at most ",
                      bench.begin("adapter:width=4000000000000000000"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, ", with which what is trained fills the memory of ",
                      bench.begin("adapter:width=1000000000000"));
}

TEST_SUITE_END();
