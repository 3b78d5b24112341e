// The contract that every registered tuning keeps.
#include <torch/csrc/autograd/autograd.h>

#include "support/near.h"
#include "support/toy_chain.h"
#include "whence/core/error.h"
#include "whence/tuning/tuning.h"

using namespace whence;
using test::relative_error;

namespace {

struct Parts {
  ParameterSet fresh, parent;
  Parts() {
    auto draws = Random(1);
    fresh = model->initial({5}, 2, draws);
    parent = model->initial({5}, 2, draws).without("head.");
  }
  /// What one example goes through, and where the tuning starts.
  ParameterSet start(const std::string& spec) const { return start(spec, fresh, parent); }
  ParameterSet start(const std::string& spec, const ParameterSet& from, const ParameterSet& body) const {
    const auto pass = [this] {
      Tape tape;
      model->output(fresh, batch, &tape);
      return tape;
    };
    return create<Tuning>(spec)->trainable({from, body, model->head(), pass}, Random(2));
  }

  std::unique_ptr<Model> model = create<Model>("mlp:widths=4/3,activation=tanh");
  Batch batch = test::toy_data("squared-error", 6, 5, Random(3)).batch(0, 6);
};

double loss_sum(const ParameterSet& merged) {
  double total = 0;
  for (const auto& value : merged.values()) {
    total += value.square().sum().item<double>();
  }
  return total;
}

}  // namespace

TEST_SUITE_BEGIN("tuning");

TEST_CASE("a fresh tuning is the parent's body with a new head, and hands the body on, to the bit") {
  const Parts parts;
  const auto expected = parts.parent.join(parts.fresh.select("head."));
  for (const auto& method : methods<Tuning>()) {
    CAPTURE(method.name);
    if (method.name == "prompt" || method.name.starts_with("prefix")) {
      continue;  // of texts, and none but those of length 0 change nothing: test_prefix.cpp
    }
    const auto tuning = create<Tuning>(method.name);
    const auto tuned = parts.start(method.name);
    const auto merged = tuning->merge(parts.parent, tuned);
    CHECK(at::equal(parts.model->output(merged, parts.batch), parts.model->output(expected, parts.batch)));
    const auto body = tuning->hand_on(parts.model->head(), parts.parent, tuned);
    for (const auto& name : parts.parent.names()) {
      CHECK(at::equal(body.at(name), parts.parent.at(name)));
    }
  }
}

TEST_CASE("merge and penalty pass the derivative check in tuned and in parent") {
  const Parts parts;
  for (const char* spec : {"full", "full:proximity=0.7", "head"}) {
    CAPTURE(spec);
    const auto tuning = create<Tuning>(spec);
    auto draws = Random(2);
    const auto start = parts.start(spec);
    TensorList moved;
    for (const auto& value : start.values()) {
      moved.push_back(value + 0.3 * draws.normal(value.sizes()));
    }
    const auto tuned = start.with(moved);
    const auto value = [&](const ParameterSet& w, const ParameterSet& t) {
      return tuning->penalty(w, t, 0.2).item<double>() + loss_sum(tuning->merge(w, t));
    };
    const auto t = leaves(tuned.values()), w = leaves(parts.parent.values());
    auto total = tuning->penalty(parts.parent.with(w), tuned.with(t), 0.2);
    const auto merged = tuning->merge(parts.parent.with(w), tuned.with(t));
    for (const auto& tensor : merged.values()) {
      total = total + tensor.square().sum();
    }
    auto all = t;
    all.insert(all.end(), w.begin(), w.end());
    const auto exact = flatten(gradient(total, all));
    auto point = flatten(detach(all));
    auto numeric = at::zeros_like(point);
    const double h = 1e-5;
    for (std::int64_t i = 0; i < point.numel(); ++i) {
      double f[2];
      for (int side = 0; side < 2; ++side) {
        auto shifted = point.clone();
        shifted[i] += side == 0 ? h : -h;
        const auto pieces = unflatten(shifted, detach(all));
        const TensorList first(pieces.begin(), pieces.begin() + static_cast<std::ptrdiff_t>(t.size()));
        const TensorList second(pieces.begin() + static_cast<std::ptrdiff_t>(t.size()), pieces.end());
        f[side] = value(parts.parent.with(second), tuned.with(first));
      }
      numeric[i] = (f[0] - f[1]) / (2 * h);
    }
    CHECK(relative_error(exact, numeric) < test::Tolerance::kDifferences);
    const auto narrow_parent = parts.parent.to(at::kFloat, at::kCPU), narrow_tuned = tuned.to(at::kFloat, at::kCPU);
    const auto penalty = tuning->penalty(narrow_parent, narrow_tuned, 0.2);
    CHECK((penalty.scalar_type() == at::kFloat));
    CHECK(relative_error(penalty, tuning->penalty(parts.parent, tuned, 0.2)) < test::Tolerance::kFloat);
    const auto narrow_merged = tuning->merge(narrow_parent, narrow_tuned);
    CHECK(relative_error(narrow_merged.values(), tuning->merge(parts.parent, tuned).values()) <
          test::Tolerance::kFloat);
  }
}

TEST_CASE("the objective's regulariser is the documented one, to the bit of its terms") {
  const Parts parts;
  auto draws = Random(2);
  const auto square = [](const at::Tensor& x) { return x.square().sum().item<double>(); };
  double body = 0, pulled = 0, head = 0;
  for (const auto& name : parts.fresh.names()) {
    const auto& value = parts.fresh.at(name);
    (name.starts_with("head.") ? head : body) += square(value);
    pulled += name.starts_with("head.") ? 0 : square(value - parts.parent.at(name));
  }
  const auto penalty = [&](const char* spec, const ParameterSet& tuned) {
    return create<Tuning>(spec)->penalty(parts.parent, tuned, 0.2).item<double>();
  };
  CHECK(penalty("full", parts.fresh) == doctest::Approx(0.1 * (body + head)).epsilon(1e-12));
  CHECK(penalty("full:proximity=3", parts.fresh) == doctest::Approx(1.5 * pulled + 0.1 * head).epsilon(1e-12));
  CHECK(penalty("head", parts.fresh.select("head.")) == doctest::Approx(0.1 * head).epsilon(1e-12));
}

TEST_CASE("head and proximity need a stage before them, and head something to train") {
  const Parts parts;
  CHECK_THROWS_WITH_AS(parts.start("head", parts.fresh, {}), doctest::Contains("needs a stage before it"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(parts.start("head", parts.parent, parts.parent),
                       doctest::Contains("hands on every parameter of the model, so there is no head"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(parts.start("full:proximity=1", parts.fresh, {}), doctest::Contains("proximity needs a stage"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(create<Tuning>("full:proximity=-1"), "full: option proximity = -1, expected >= 0",
                       InvalidArgument);
}

TEST_SUITE_END();
