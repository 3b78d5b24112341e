#include <torch/csrc/autograd/autograd.h>

#include "models/made.h"
#include "support/near.h"
#include "whence/models/per_sample.h"

using namespace whence;
using namespace whence::test;

namespace {

at::Tensor graph_gradients(const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch) {
  TensorList rows;
  const auto tracked = leaves(theta.values());
  const auto losses = loss.per_example(model.output(theta.with(tracked), batch), batch);
  for (std::int64_t b = 0; b < batch.size(); ++b) {
    rows.push_back(flatten(gradient(losses[b], tracked, false, true)));
  }
  return at::stack(rows);
}

}  // namespace

TEST_SUITE("models") {
  TEST_CASE("a layer used twice: gradients add before they are squared") {
    const std::vector<std::int64_t> image = {2, 7, 8};
    const TwiceUsed model;
    const auto loss = create<Loss>("cross-entropy");
    const auto theta = made_parameters(model, image);
    const auto batch = made_batch(*loss, 1, image);
    const auto rows = graph_gradients(model, *loss, theta, batch);
    for (const std::int64_t count : {1, 5}) {
      Random random(2);
      const auto block = random.normal({count, theta.entries()});
      CHECK(relative_error(per_sample_products(model, *loss, theta, batch, directions_of(block, theta)),
                           at::mm(block, rows.t())) < Tolerance::kSameAlgebra);
    }
    CHECK(relative_error(per_sample_squared_norms(model, *loss, theta, batch, theta.names()), rows.square().sum(1)) <
          Tolerance::kSameAlgebra);
  }

  TEST_CASE("float32 and bfloat16 give what autograd gives in them, also under NoGradGuard") {
    const auto model = create<Model>("convnet:channels=3,activation=gelu,dense=4");
    const auto loss = create<Loss>("cross-entropy");
    const auto batch = made_batch(*loss);
    for (const auto& [dtype, tolerance] : {std::pair{at::kFloat, 1e-5}, {at::kBFloat16, 2e-2}}) {
      CAPTURE(tolerance);
      const auto theta = made_parameters(*model).to(dtype, at::kCPU);
      const auto rows = graph_gradients(*model, *loss, theta, batch).to(at::kDouble);
      const auto direction = Random(1).normal({theta.entries()});
      const auto directions = directions_of(direction.unsqueeze(0), theta);
      const c10::NoGradGuard no_grad;
      const auto products = per_sample_products(*model, *loss, theta, batch, directions);
      CHECK((products.scalar_type() == at::kFloat));  // sums of three digits are no scores
      CHECK_FALSE(products.requires_grad());
      CHECK_FALSE(theta.values()[0].requires_grad());
      CHECK(relative_error(products, at::mv(rows, direction).unsqueeze(0)) < tolerance);
      const auto norms = per_sample_squared_norms(*model, *loss, theta, batch, theta.names());
      CHECK((norms.scalar_type() == at::kDouble));
      CHECK(relative_error(norms, rows.square().sum(1)) < tolerance);
    }
  }

  TEST_CASE("many examples and directions are done in pieces") {
    // 40 x 5000 x 300 doubles of factors, and as many of gradients, are each more than the 256 MiB of one piece.
    ParameterSet theta;
    Random random(3);
    theta.add("head.weight", random.normal({300, 400}));
    theta.add("head.bias", random.normal({300}));
    const auto model = create<Model>("linear");
    const auto loss = create<Loss>("squared-error");
    Batch batch;
    batch.inputs = random.normal({3000, 400});
    batch.targets = random.normal({3000, 300});
    const auto v = random.normal({40, 300, 400}).div_(1000);
    const auto scores = per_sample_products(*model, *loss, theta, batch, {{"head.weight", v}});
    const auto residual = model->output(theta, batch) - batch.targets;
    for (const std::int64_t k : {0, 39}) {
      const auto expected = (at::matmul(batch.inputs, v[k].t()) * residual).sum(1);
      CHECK(relative_error(scores[k], expected) < Tolerance::kSameAlgebra);
    }
  }

  TEST_CASE("parameters that no layer owns, and shapes that do not fit, are named") {
    const auto model = create<Model>("linear");
    const auto loss = create<Loss>("cross-entropy");
    auto theta = made_parameters(*model);
    const auto batch = made_batch(*loss);
    CHECK_THROWS_WITH_AS(
        per_sample_products(*model, *loss, theta, batch, {{"head.weight", at::zeros({2, 3, 7}, at::kDouble)}}),
        "per-sample products: directions for head.weight have shape [2, 3, 7], expected [2, 3, 30]", InvalidArgument);
    CHECK_THROWS_WITH_AS(
        per_sample_squared_norms(*model, *loss, theta, batch, {"head.scale"}),
        "per-sample gradients: unknown parameter of a recorded layer \"head.scale\", known: head.weight, head.bias",
        InvalidArgument);
    CHECK_THROWS_WITH_AS(per_sample_products(*model, *loss, theta, batch, {}), "per-sample products: no directions",
                         InvalidArgument);
  }
}
