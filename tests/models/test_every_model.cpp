// What every registered model must do, whatever it is.
#include <torch/csrc/autograd/autograd.h>

#include "models/made.h"
#include "support/near.h"
#include "whence/core/derivative_check.h"
#include "whence/models/per_sample.h"

using namespace whence;
using namespace whence::test;

namespace {

/// Calls body(model, loss, theta, batch) for every model of numbers with every loss of them, or every model with one
/// loss and every loss with some of the models.
template <class Body>
void for_every_pair(const Body& body, bool one_loss = false) {
  std::vector<std::string_view> losses;
  for (const auto& method : methods<Loss>()) {
    const auto loss = create<Loss>(method.name);
    if (loss->is_of_output() && !are_tokens(loss->wants())) {
      losses.push_back(method.name);
    }
  }
  const auto specs = every_model_spec();
  REQUIRE(specs.size() >= losses.size());
  for (std::size_t m = 0; m < specs.size(); ++m) {
    for (std::size_t l = 0; l < losses.size(); ++l) {
      if (one_loss && l != m % losses.size()) {
        continue;
      }
      CAPTURE(specs[m]);
      CAPTURE(losses[l]);
      const auto model = create<Model>(specs[m]);
      const auto loss = create<Loss>(losses[l]);
      body(*model, *loss, made_parameters(*model), made_batch(*loss));
    }
  }
}

}  // namespace

TEST_SUITE("models") {
  TEST_CASE("every model and loss passes the derivative check") {
    const auto check = [](const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch) {
      const auto errors = check_derivatives(
          [&](const TensorList& x, const TensorList& inputs) {
            auto moved = batch;
            moved.inputs = inputs[0];
            return loss.per_example(model.output(theta.with(x), moved), moved).mean();
          },
          theta.values(), {batch.inputs});
      CHECK(errors.gradient < Tolerance::kDifferences);
      CHECK(errors.hessian_product < Tolerance::kDifferences);
      CHECK(errors.mixed_product < Tolerance::kDifferences);
    };
    for_every_pair(check, true);  // entry by entry; a pair is a chain of the two
  }

  TEST_CASE("every Hessian is symmetric") {
    for_every_pair([](const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch) {
      const auto tracked = leaves(theta.values());
      const auto first =
          gradient(loss.per_example(model.output(theta.with(tracked), batch), batch).sum(), tracked, true);
      Random random(5);
      const auto u = unflatten(random.normal({theta.entries()}), theta.values());
      const auto v = unflatten(random.normal({theta.entries()}), theta.values());
      const double uhv = exact_dot(u, gradient(first, tracked, v, false, true));
      const double vhu = exact_dot(v, gradient(first, tracked, u));
      CHECK(std::abs(uhv - vhu) <= 1e-10 * std::max(std::abs(uhv), std::abs(vhu)));
    });
  }

  TEST_CASE("an example's output does not depend on its batch") {
    for_every_pair([](const Model& model, const Loss&, const ParameterSet& theta, const Batch& batch) {
      for (const auto& [type, same] : {std::pair{at::kDouble, Tolerance::kSameAlgebra}, {at::kFloat, 1e-6}}) {
        CAPTURE(c10::toString(type));
        const auto at_type = theta.to(type, at::kCPU);
        const auto whole = model.output(at_type, batch);
        CHECK(whole.sizes() == at::IntArrayRef({kExamples, kOutputs}));
        TensorList parts;
        for (std::int64_t b = 0; b < kExamples; ++b) {
          parts.push_back(model.output(at_type, slice(batch, b, 1)));
        }
        CHECK(relative_error(at::cat(parts), whole) < same);
      }
    });
  }

  TEST_CASE("the output has theta's dtype, whatever the inputs'") {
    for_every_pair([](const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch) {
      const auto single = model.output(theta.to(at::kFloat, at::kCPU), batch);
      CHECK((single.scalar_type() == at::kFloat));
      CHECK((loss.per_example(single, batch).scalar_type() == at::kFloat));
      CHECK(relative_error(single, model.output(theta, batch)) < Tolerance::kFloat);
    });
  }

  TEST_CASE("a tape changes no output and names the layers") {
    for_every_pair([](const Model& model, const Loss&, const ParameterSet& theta, const Batch& batch) {
      Tape tape;
      CHECK(at::equal(model.output(theta, batch, &tape), model.output(theta, batch)));
      std::vector<std::string> owned;
      for (const auto& entry : tape.entries) {
        CHECK(entry.output.requires_grad());
        CHECK_FALSE(entry.input.requires_grad());
        owned.push_back(entry.weight);
        if (!entry.bias.empty()) {
          owned.push_back(entry.bias);
        }
      }
      CHECK(owned == theta.names());
    });
  }

  TEST_CASE("fresh parameters: the same seed the same bits, biases zero, another seed other body weights") {
    for (const auto& spec : every_model_spec()) {
      CAPTURE(spec);
      const auto model = create<Model>(spec);
      Random one(3), same(3), other(4);
      const auto a = model->initial(kImage, kOutputs, one), b = model->initial(kImage, kOutputs, same);
      const auto c = model->initial(kImage, kOutputs, other);
      REQUIRE(a.names() == b.names());
      for (std::size_t i = 0; i < a.size(); ++i) {
        CAPTURE(a.names()[i]);
        CHECK((a.values()[i].scalar_type() == at::kDouble));
        CHECK(at::equal(a.values()[i], b.values()[i]));
        if (a.names()[i].ends_with(".bias")) {
          CHECK(a.values()[i].abs().max().item<double>() == 0);
        } else if (a.names()[i].starts_with("body.")) {
          CHECK_FALSE(at::equal(a.values()[i], c.values()[i]));
        }
      }
    }
  }

  TEST_CASE("products and norms of per-example gradients equal a loop of backward passes") {
    for_every_pair([](const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch) {
      const auto rows = loop_gradients(model, loss, theta, batch);
      for (const std::int64_t count : {1, 3, 200}) {  // by factors, and by formed gradients
        CAPTURE(count);
        Random random(11);
        const auto block = random.normal({count, theta.entries()});
        const auto products = per_sample_products(model, loss, theta, batch, directions_of(block, theta));
        CHECK(relative_error(products, at::mm(block, rows.t())) < Tolerance::kSameAlgebra);
        const auto narrow = per_sample_products(model, loss, theta.to(at::kFloat, at::kCPU), batch,
                                                directions_of(block.to(at::kFloat), theta));
        CHECK((narrow.scalar_type() == at::kFloat));
        CHECK(relative_error(narrow, products) < Tolerance::kFloat);
      }
      const auto norms = per_sample_squared_norms(model, loss, theta, batch, theta.names());
      CHECK(relative_error(norms, rows.square().sum(1)) < Tolerance::kSameAlgebra);
      const auto single = theta.to(at::kFloat, at::kCPU);
      CHECK(relative_error(per_sample_squared_norms(model, loss, single, batch, theta.names()), norms) <
            Tolerance::kFloat);
    });
  }

  TEST_CASE("a direction may cover some parameters only") {
    for_every_pair([](const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch) {
      const auto rows = loop_gradients(model, loss, theta, batch);
      Random random(11);
      const auto block = random.normal({2, theta.entries()});
      const auto all = directions_of(block, theta);
      at::Tensor products = at::zeros({2, kExamples}, at::kDouble), norms = at::zeros({kExamples}, at::kDouble);
      for (const auto& name : theta.names()) {
        products = products + per_sample_products(model, loss, theta, batch, {{name, all.at(name)}});
        norms = norms + per_sample_squared_norms(model, loss, theta, batch, {name});
      }
      CHECK(relative_error(products, at::mm(block, rows.t())) < Tolerance::kSameAlgebra);
      CHECK(relative_error(norms, rows.square().sum(1)) < Tolerance::kSameAlgebra);
    });
  }
}
