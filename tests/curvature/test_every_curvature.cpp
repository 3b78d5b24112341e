// The contract that every registered curvature keeps: equal to its dense matrix, built independently; symmetric,
// linear, counted, the same for every batch size. A new family is tested here by its registration line, once its dense
// truth stands in `truth_of`.
#include <torch/csrc/autograd/autograd.h>

#include "support/near.h"
#include "support/some.h"
#include "support/toy_chain.h"
#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/curvature/curvature.h"
#include "whence/curvature/gram_operator.h"
#include "whence/curvature/spectral_operator.h"
#include "whence/models/ops.h"

using namespace whence;
using test::relative_error;
using test::Tolerance;

namespace {

at::Tensor dense_penalty(const Objective& objective, const TensorList& theta, const TensorList& parent) {
  return test::dense_hessian(objective.with_weights(at::zeros({objective.data().size()}, at::kDouble)), theta, parent)
      .detach();
}

/// Rows sqrt(w_i) c' J_i in (theta, parent), [N, R, entries], for the cotangents c of each example that `name` has; one
/// backward pass an output and example, and no code of the curvature room.
at::Tensor dense_rows(std::string_view name, const Stage& stage) {
  const auto& objective = stage.objective;
  const auto& theta = stage.theta;
  const auto& parent = stage.parent;
  auto all = leaves(theta);
  const auto point = all, from = leaves(parent);
  all.insert(all.end(), from.begin(), from.end());
  const auto n = objective.data().size();
  const auto noise =
      Random(0)
          .stream("labels of the fisher")
          .uniform({1, n, objective.loss().noise_width(objective.data().outputs())}, 1e-12, 1 - 1e-12)[0];
  const auto weights = objective.batch_weights(objective.data().batch(0, n));
  TensorList out;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto one = objective.data().batch(i, i + 1);
    const auto output = objective.output(point, from, one);
    TensorList jacobian;
    for (std::int64_t c = 0; c < output.numel(); ++c) {
      jacobian.push_back(flatten(gradient(output.flatten()[c], all, false, true)));
    }
    const auto free = output.detach().requires_grad_(true);
    const auto slope = gradient(objective.loss().per_example(free, one).sum(), TensorList{free}, true)[0].flatten();
    at::Tensor cotangents;  // [R, C]
    if (name == "fisher") {
      cotangents = objective.loss().sampled_gradient(output.detach(), one, noise.narrow(0, i, 1));
    } else if (name == "empirical-fisher") {
      cotangents = slope.detach().unsqueeze(0);
    } else {  // a root of the loss Hessian, by eigenvalues
      TensorList columns;
      for (std::int64_t c = 0; c < output.numel(); ++c) {
        columns.push_back(gradient(slope[c], TensorList{free}, false, true)[0].flatten());
      }
      const auto [h, basis] = at::linalg_eigh(at::stack(columns));
      cotangents = (basis * h.clamp_min(0).sqrt()).t();
    }
    out.push_back(cotangents.mm(at::stack(jacobian)) * weights[i].sqrt());
  }
  return at::stack(out).detach();
}

/// kfac's or ekfac's block of a layer with weight [out, in] at `offset`, its bias behind it, from the rows' gradients
/// there: signals are the bias's columns, inputs the ratio of a gradient to its signal.
at::Tensor kronecker_block(bool corrected, const at::Tensor& rows, std::int64_t out, std::int64_t in) {
  const auto n = rows.size(0), r = rows.size(1);
  const auto gradients =
      at::cat({rows.narrow(2, 0, out * in).reshape({n, r, out, in}), rows.narrow(2, out * in, out).unsqueeze(3)},
              3);  // [N, R, out, in + 1]
  const auto signals = gradients.select(3, in);
  TensorList inputs;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto largest = signals[i].flatten().abs().argmax().item<std::int64_t>();
    inputs.push_back(gradients[i].reshape({-1, in + 1})[largest] / signals[i].flatten()[largest]);
  }
  const auto a = at::stack(inputs), g = signals.reshape({-1, out});
  const auto [right_values, right] = at::linalg_eigh(a.t().mm(a) / static_cast<double>(n));
  const auto [left_values, left] = at::linalg_eigh(g.t().mm(g));
  const auto values = corrected ? at::matmul(at::matmul(left.t(), gradients), right).square().sum(at::IntArrayRef{0, 1})
                                : at::outer(left_values, right_values);
  const auto basis = at::kron(left, right);
  const auto block = basis.mm(at::diag(values.flatten())).mm(basis.t());
  std::vector<std::int64_t> order;  // of the entries in a flat vector: the weight's, then the bias's
  for (std::int64_t i = 0; i < out; ++i) {
    for (std::int64_t j = 0; j < in; ++j) {
      order.push_back(i * (in + 1) + j);
    }
  }
  for (std::int64_t i = 0; i < out; ++i) {
    order.push_back(i * (in + 1) + in);
  }
  const auto index = at::tensor(order, at::kLong);
  return block.index_select(0, index).index_select(1, index);
}

/// d^2 / d theta d (theta, parent) as the curvature has it, each block built from single examples.
at::Tensor truth_of(std::string_view name, const Stage& stage) {
  const auto& objective = stage.objective;
  const auto& theta = stage.theta;
  const auto& parent = stage.parent;
  if (name == "hessian") {
    return test::dense_hessian(objective, theta, parent);
  }
  const auto rows = dense_rows(name, stage);
  const auto flat = rows.flatten(0, 1);
  auto total = flat.t().mm(flat);
  const auto p = count_entries(theta);
  auto block = total.narrow(0, 0, p).narrow(1, 0, p);
  if (name == "diagonal") {
    block.copy_(at::diag(block.diagonal().clone()));
  } else if (name == "kfac" || name == "ekfac") {
    block.zero_();
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < theta.size(); i += 2) {  // a weight, then its bias
      const auto out = theta[i].size(0), in = theta[i].size(1), entries = out * (in + 1);
      block.narrow(0, offset, entries)
          .narrow(1, offset, entries)
          .copy_(kronecker_block(name == "ekfac", rows.narrow(2, offset, entries), out, in));
      offset += entries;
    }
  }
  return total.narrow(0, 0, p) + dense_penalty(objective, theta, parent);
}

/// A dtype, and how near products in it come to a dense matrix and to the same products in another order.
struct Precision {
  at::ScalarType type;
  double dense, same;
};
const std::vector<Precision> kPrecisions{{at::kDouble, Tolerance::kDense, Tolerance::kSameAlgebra},
                                         {at::kFloat, Tolerance::kFloat, Tolerance::kFloat}};

CurvaturePoint point_of(const Stage& stage, at::ScalarType type) {
  const auto objective = stage.objective.to(type);
  return {objective, objective.trained().with(stage.theta).to(type, at::kCPU).values(),
          objective.parent_layout().with(stage.parent).to(type, at::kCPU).values()};
}

bool is_mean_over_examples(std::string_view name) { return !create<Curvature>(name)->factored(); }

const std::vector<std::vector<test::ToyStage>> kChains{
    {{"full", "squared-error"}, {"full:proximity=0.3", "cross-entropy"}},
    {{"full", "cross-entropy"}, {"head", "squared-error"}},
};
/// Each of them, trained once.
const std::vector<Chain>& trained_chains() {
  static const std::vector<Chain> chains = [] {
    std::vector<Chain> out;
    for (const auto& kinds : kChains) {
      out.push_back(test::toy_chain(kinds));
    }
    return out;
  }();
  return chains;
}

}  // namespace

TEST_SUITE_BEGIN("curvature");

TEST_CASE("every curvature equals its dense matrix, is symmetric, linear and counted, in float64 and float32") {
  for (const auto& method : methods<Curvature>()) {
    const auto curvature = create<Curvature>(method.name);
    for (const auto& chain : trained_chains()) {
      CAPTURE(method.name);
      for (const auto& stage : chain) {
        const auto n = count_entries(stage.theta);
        const auto dense = truth_of(method.name, stage).narrow(1, 0, n);
        for (const auto& [type, near_dense, same] : kPrecisions) {
          CAPTURE(stage.name);
          CAPTURE(c10::toString(type));
          const auto [objective, theta, parent] = point_of(stage, type);
          const auto a = curvature->operator_at({objective, theta, parent});
          REQUIRE(a->size() == n);
          REQUIRE(a->options().dtype() == type);
          const auto x = Random(3).normal({4, n}).to(type);
          const auto image = a->apply(x);
          CHECK(a->products() == 4);
          CHECK(relative_error(image, x.to(at::kDouble).mm(dense)) < near_dense);
          CHECK(relative_error(image.mm(x.t()), x.mm(image.t())) < same);
          CHECK(relative_error(a->apply(x[0].unsqueeze(0) + 2 * x[1].unsqueeze(0)),
                               (image[0] + 2 * image[1]).unsqueeze(0)) < same);
          CHECK(at::equal(a->apply(x), image));
        }
      }
    }
  }
}

TEST_CASE("every curvature is the whole stage's mean, whatever the batch size, graphs kept or rebuilt, in any dtype") {
  const auto whole = test::toy_chain({{"full", "cross-entropy"}})[0];
  for (const auto& method : methods<Curvature>()) {
    for (const auto& [type, near_dense, same] : kPrecisions) {
      CAPTURE(method.name);
      CAPTURE(c10::toString(type));
      const auto [objective, theta, parent] = point_of(whole, type);
      const auto x = Random(4).normal({2, count_entries(theta)}).to(type);
      const auto expected = create<Curvature>(method.name)->operator_at({objective, theta, parent})->apply(x);
      for (const std::int64_t batch : {1, 5, 12}) {
        for (const char* bytes : {"0", "1e9"}) {
          const auto spec = std::string(method.name) +
                            (is_mean_over_examples(method.name) ? std::string(":graph-bytes=") + bytes : "");
          const auto a = create<Curvature>(spec)->operator_at({objective.with_batch_size(batch), theta, parent});
          CHECK(relative_error(a->apply(x), expected) < same);
        }
      }
    }
  }
}

TEST_CASE("every curvature's pass over the data stops where the program says so") {
  const auto whole = test::toy_chain({{"full", "cross-entropy"}})[0];
  const struct Restore {
    ~Restore() { set_interruption_check({}); }
  } restore;
  for (const auto& method : methods<Curvature>()) {
    CAPTURE(method.name);
    int batches = 0;
    set_interruption_check([&batches] {
      if (++batches == 3) {
        throw Interrupted();
      }
    });
    const auto product = [&] {
      const auto a = create<Curvature>(method.name)->operator_at({whole.objective.with_batch_size(1), whole.theta, {}});
      a->apply(at::ones({1, a->size()}, at::kDouble));
    };
    CHECK_THROWS_AS(product(), Interrupted);
    CHECK(batches == 3);
  }
}

TEST_CASE("every curvature's mixed product equals the dense cross block, and is zero where nothing is remembered") {
  const auto forgetful = test::toy_chain({{"full"}, {"full"}})[1];
  for (const auto& method : methods<Curvature>()) {
    CAPTURE(method.name);
    const auto curvature = create<Curvature>(method.name);
    for (const auto& chain : trained_chains()) {
      const auto& stage = chain[1];
      const auto n = count_entries(stage.theta), p = count_entries(stage.parent);
      const auto dense = truth_of(method.name, stage).narrow(1, n, p);
      for (const auto& [type, near_dense, same] : kPrecisions) {
        CAPTURE(c10::toString(type));
        const auto v = Random(5).normal({3, n}).to(type);
        const auto [objective, theta, parent] = point_of(stage, type);
        const auto mixed = curvature->mixed_product({objective.with_batch_size(5), theta, parent}, v);
        CHECK(relative_error(mixed, v.to(at::kDouble).mm(dense)) < near_dense);
      }
    }
    for (const auto& [type, near_dense, same] : kPrecisions) {
      CAPTURE(c10::toString(type));
      const auto [objective, theta, parent] = point_of(forgetful, type);
      const auto v = Random(5).normal({1, count_entries(theta)}).to(type);
      CHECK(curvature->mixed_product({objective, theta, parent}, v).abs().max().item<double>() == 0);
    }
  }
}

TEST_CASE("the finite-difference mixed product agrees with double backward") {
  for (const auto& chain : trained_chains()) {
    const auto& stage = chain[1];
    const auto v = Random(6).normal({2, count_entries(stage.theta)});
    const auto exact = create<Curvature>("hessian")->mixed_product({stage.objective, stage.theta, stage.parent}, v);
    const auto differences = create<Curvature>("hessian:mixed=finite-difference")
                                 ->mixed_product({stage.objective, stage.theta, stage.parent}, v);
    CHECK(relative_error(exact, differences) < Tolerance::kDifferences);
  }
}

TEST_CASE("sampled products average to the full product") {
  const auto stage = test::toy_chain({{"full", "cross-entropy"}})[0];
  for (const auto& method : methods<Curvature>()) {
    if (!is_mean_over_examples(method.name)) {
      continue;
    }
    CAPTURE(method.name);
    const auto a = create<Curvature>(method.name)->operator_at({stage.objective, stage.theta, {}});
    const auto x = Random(7).normal({1, a->size()});
    const auto expected = a->apply(x);
    auto draws = Random(8);
    constexpr int kDraws = 2000;
    auto sum = at::zeros_like(x), squares = at::zeros_like(x);
    for (int i = 0; i < kDraws; ++i) {
      const auto sample = a->apply_sampled(x, 3, draws);
      sum += sample;
      squares += sample.square();
    }
    const auto mean = sum / kDraws;
    const auto error = ((squares / kDraws - mean.square()) / kDraws).clamp_min(1e-30).sqrt();
    CHECK(((mean - expected).abs() / error).max().item<double>() <
          5);  // the largest of 24 standard normals; fixed seed
  }
}

TEST_CASE("gauss-newton by rows equals it by differentiating twice, also through convolutions") {
  for (const char* model : {"mlp:widths=5/4,activation=gelu", "linear"}) {
    const auto stage = test::toy_chain({{"full", "cross-entropy"}}, model)[0];
    const auto x = Random(4).normal({3, count_entries(stage.theta)});
    const auto rows = create<Curvature>("gauss-newton")->operator_at({stage.objective, stage.theta, {}});
    const auto twice = create<Curvature>("gauss-newton:rows=false")->operator_at({stage.objective, stage.theta, {}});
    CHECK(relative_error(rows->apply(x), twice->apply(x)) < Tolerance::kSameAlgebra);
  }
  Dataset::Contents contents;
  contents.inputs = Random(1).normal({7, 2, 8, 8});
  contents.targets = at::arange(7).remainder(3);
  contents.ids = at::arange(7);
  contents.classes = {"a", "b", "c"};
  const auto data = Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
  for (const char* spec :
       {"convnet:channels=3/4,activation=tanh,pool=avg", "convnet:channels=3,activation=tanh,dense=5"}) {
    const std::shared_ptr<const Model> model = create<Model>(spec);
    auto draws = Random(2);
    const auto fresh = model->initial(data.input_shape(), 3, draws);
    const Objective objective(model, create<Loss>("cross-entropy"), create<Tuning>("full"), data, 0.1, fresh, {}, 3);
    const auto x = Random(4).normal({3, fresh.entries()});
    const auto rows = create<Curvature>("gauss-newton")->operator_at({objective, fresh.values(), {}});
    const auto twice = create<Curvature>("gauss-newton:rows=false")->operator_at({objective, fresh.values(), {}});
    CHECK(relative_error(rows->apply(x), twice->apply(x)) < Tolerance::kSameAlgebra);
    const auto diagonal = create<Curvature>("diagonal")->operator_at({objective, fresh.values(), {}});
    const auto ones = at::ones({1, fresh.entries()}, at::kDouble);
    const auto dense = rows->apply(at::eye(fresh.entries(), at::kDouble));
    CHECK(relative_error(diagonal->apply(ones)[0], dense.diagonal()) < Tolerance::kSameAlgebra);
    // the trace is the same in every basis, so ekfac, which fits every eigenvalue, keeps it
    const auto kronecker = create<Curvature>("ekfac")->operator_at({objective, fresh.values(), {}});
    CHECK(relative_error(kronecker->apply(at::eye(fresh.entries(), at::kDouble)).diagonal().sum(),
                         dense.diagonal().sum()) < Tolerance::kSameAlgebra);
  }
}

namespace {

/// Two layers of one matrix with biases of their own, and a head.
class TwoBiases : public Model {
 public:
  ParameterSet initial(at::IntArrayRef input_shape, std::int64_t outputs, Random& random) const override {
    ParameterSet theta;
    const auto add = [&](const std::string& name, at::IntArrayRef sizes) {
      theta.add(name, random.stream(name).normal(sizes));
    };
    add("a.weight", {input_shape[0], input_shape[0]});
    add("a.bias", {input_shape[0]});
    add("b.bias", {input_shape[0]});
    add("head.weight", {outputs, input_shape[0]});
    add("head.bias", {outputs});
    return theta;
  }
  at::Tensor output(const ParameterSet& theta, const Batch& batch, Tape* tape) const override {
    const at::Tensor first = linear(theta, LinearNames{"a.weight", "a.bias"}, inputs_like(theta, batch.inputs), tape);
    return linear(theta, "head", linear(theta, LinearNames{"a.weight", "b.bias"}, first.tanh(), tape).tanh(), tape);
  }
};

}  // namespace

TEST_CASE("a matrix that two layers multiply by, each with its own bias, has both") {
  Dataset::Contents contents;
  contents.inputs = Random(1).normal({7, 4});
  contents.targets = at::arange(7).remainder(3);
  contents.ids = at::arange(7);
  contents.classes = {"a", "b", "c"};
  const auto data = Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
  const auto model = std::make_shared<const TwoBiases>();
  auto draws = Random(2);
  const auto fresh = model->initial({4}, 3, draws);
  const Objective objective(model, create<Loss>("cross-entropy"), create<Tuning>("full"), data, 0.1, fresh, {}, 3);
  const CurvaturePoint point{objective, fresh.values(), {}};
  const auto dense = [&](const char* spec) {
    return create<Curvature>(spec)->operator_at(point)->apply(at::eye(fresh.entries(), at::kDouble));
  };
  const auto truth = dense("gauss-newton:rows=false");
  CHECK(relative_error(dense("gauss-newton"), truth) < Tolerance::kSameAlgebra);
  CHECK(relative_error(dense("diagonal").diagonal(), truth.diagonal()) < Tolerance::kSameAlgebra);
  CHECK(relative_error(dense("ekfac").diagonal().sum(), truth.diagonal().sum()) < Tolerance::kSameAlgebra);
}

TEST_CASE("the Hessian of dense layers, written out, equals double backward") {
  const std::vector<std::string> models{"mlp:widths=5/4,activation=gelu", "linear:bias=false", "mlp:widths=6/5/4",
                                        "mlp:widths=7,activation=relu", "linear"};
  for (const auto& model : test::some(models, 2)) {
    for (const char* loss : {"cross-entropy", "squared-error"}) {
      CAPTURE(model);
      CAPTURE(loss);
      const auto stage =
          test::toy_chain({{.tuning = "full", .loss = loss, .examples = 30, .trained = false}}, model, 1, 3, 11)[0];
      auto weights = Random(5).uniform({30}, 0, 2);
      const auto objective = stage.objective.with_weights(weights);
      const auto x = Random(4).normal({3, count_entries(stage.theta)});
      const auto written = create<Curvature>("hessian")->operator_at({objective, stage.theta, {}});
      const auto differentiated = create<Curvature>("hessian:dense=false")->operator_at({objective, stage.theta, {}});
      CHECK(relative_error(written->apply(x), differentiated->apply(x)) < Tolerance::kSameAlgebra);
      // at a point that is no minimum, where the residuals are large
      auto moved = stage.theta;
      for (auto& value : moved) {
        value = value + Random(7).normal(value.sizes());
      }
      CHECK(relative_error(create<Curvature>("hessian")->operator_at({objective, moved, {}})->apply(x),
                           create<Curvature>("hessian:dense=false")->operator_at({objective, moved, {}})->apply(x)) <
            Tolerance::kSameAlgebra);
    }
  }
}

TEST_CASE("rows give products with the root and the dual matrix") {
  const auto stage = test::toy_chain({{"full", "cross-entropy"}}, "mlp:widths=4,activation=tanh", 1, 3, 5)[0];
  std::int64_t by_rows = 0;
  for (const auto& method : methods<Curvature>()) {
    CAPTURE(method.name);
    const auto curvature = create<Curvature>(method.name);
    const auto a = curvature->operator_at({stage.objective, stage.theta, {}});
    const auto* gram = dynamic_cast<const GramOperator*>(a.get());
    CHECK((gram != nullptr) == (!curvature->factored() && curvature->family() != CurvatureFamily::kHessian));
    if (gram == nullptr) {
      continue;
    }
    ++by_rows;
    const auto j = gram->times(at::eye(gram->size(), at::kDouble)).t();  // [rows, P]
    REQUIRE(j.size(0) == gram->rows());
    CHECK(relative_error(gram->transposed_times(at::eye(gram->rows(), at::kDouble)), j) < Tolerance::kSameAlgebra);
    const auto scale = at::full({gram->size()}, 0.7, at::kDouble);
    CHECK(relative_error(gram->gram(scale), 0.7 * j.mm(j.t())) < Tolerance::kSameAlgebra);
    const auto x = Random(3).normal({2, gram->size()});
    CHECK(relative_error(a->apply(x), x.mm(j.t()).mm(j) + x * gram->diagonal()) < Tolerance::kSameAlgebra);
  }
  CHECK(by_rows >= 3);
}

TEST_CASE("fisher's mean over labels is the Gauss-Newton matrix") {
  for (const char* loss : {"cross-entropy", "squared-error"}) {
    const auto stage = test::toy_chain({{"full", loss}})[0];
    const auto x = Random(3).normal({1, count_entries(stage.theta)});
    const auto exact = create<Curvature>("gauss-newton")->operator_at({stage.objective, stage.theta, {}})->apply(x);
    const auto error = [&](const char* spec) {
      return relative_error(create<Curvature>(spec)->operator_at({stage.objective, stage.theta, {}})->apply(x), exact);
    };
    const double few = error("fisher:samples=100"), many = error("fisher:samples=10000");
    CHECK(many < 0.03);
    CHECK(many < few);
  }
}

TEST_CASE("ekfac and kfac on one linear layer with squared error are the exact Gauss-Newton matrix") {
  const auto stage = test::toy_chain({{"full", "squared-error"}}, "linear")[0];
  const auto x = Random(3).normal({3, count_entries(stage.theta)});
  const auto exact = create<Curvature>("gauss-newton")->operator_at({stage.objective, stage.theta, {}})->apply(x);
  for (const char* spec : {"ekfac:labels=exact", "kfac:labels=exact"}) {
    CHECK(relative_error(create<Curvature>(spec)->operator_at({stage.objective, stage.theta, {}})->apply(x), exact) <
          Tolerance::kDense);
  }
}

TEST_CASE("factors fitted to the data's own labels are the empirical Fisher's, in a chain too") {
  for (const char* name : {"diagonal", "kfac", "ekfac"}) {
    CAPTURE(name);
    CHECK(create<Curvature>(std::string(name) + ":labels=data")->family() == CurvatureFamily::kEmpiricalFisher);
    CHECK(create<Curvature>(name)->family() == CurvatureFamily::kGaussNewton);
    CHECK(create<Curvature>(name)->factored());
    CHECK(create<Curvature>(resolved_spec<Curvature>(name))->name() == name);  // as run.json has it, empty texts too
  }
  CHECK(create<Curvature>("hessian:examples=3")->name() == "hessian of 3 examples");
}

TEST_CASE("spectral operators apply functions of their eigenvalues") {
  const auto stage = test::toy_chain({{"full", "cross-entropy"}})[0];
  const auto x = Random(3).normal({3, count_entries(stage.theta)});
  std::int64_t factored = 0;
  for (const auto& method : methods<Curvature>()) {
    CAPTURE(method.name);
    const auto curvature = create<Curvature>(method.name);
    const auto a = curvature->operator_at({stage.objective, stage.theta, {}});
    const auto* spectral = dynamic_cast<const SpectralOperator*>(a.get());
    CHECK((spectral != nullptr) == curvature->factored());
    if (spectral == nullptr) {
      continue;
    }
    ++factored;
    CHECK_THROWS_AS(spectral->apply_function(x[0], [](const at::Tensor& h) { return h; }), InvalidArgument);
    const auto inverse = spectral->apply_function(x, [](const at::Tensor& h) { return 1 / (h + 0.3); });
    CHECK(relative_error(damped(a, 0.3)->apply(inverse), x) < Tolerance::kSameAlgebra);
  }
  CHECK(factored >= 3);
}

TEST_CASE("a fixed batch of examples is the curvature of a smaller data set") {
  const auto stage = test::toy_chain({{"full", "cross-entropy"}})[0];
  const auto x = Random(3).normal({1, count_entries(stage.theta)});
  for (const std::string name : {"hessian", "gauss-newton"}) {
    const auto curvature = [&](const std::string& spec) {
      return create<Curvature>(spec)->operator_at({stage.objective, stage.theta, {}})->apply(x);
    };
    CHECK(at::equal(curvature(name + ":examples=100"), curvature(name)));
    const auto rows = std::get<0>(Random(5).stream("fixed examples").permutation(12).narrow(0, 0, 5).sort());
    const auto part = create<Curvature>(name)->operator_at({stage.objective.over(rows), stage.theta, {}})->apply(x);
    CHECK(at::equal(curvature(name + ":examples=5,seed=5"), part));
  }
}

TEST_CASE("operators add, scale and compose; sizes must agree") {
  const auto stage = test::toy_chain({{"full", "cross-entropy"}})[0];
  const auto a = create<Curvature>("hessian")->operator_at({stage.objective, stage.theta, {}});
  const auto b = create<Curvature>("diagonal")->operator_at({stage.objective, stage.theta, {}});
  const auto x = Random(3).normal({2, a->size()});
  CHECK(relative_error((a + 2.0 * b)->apply(x), a->apply(x) + 2 * b->apply(x)) < Tolerance::kSameAlgebra);
  CHECK(relative_error((a * b)->apply(x), a->apply(b->apply(x))) < Tolerance::kSameAlgebra);
  const auto other = test::toy_chain({{"full", "cross-entropy"}}, "linear")[0];
  const auto c = create<Curvature>("hessian")->operator_at({other.objective, other.theta, {}});
  CHECK_THROWS_WITH_AS(a + c, doctest::Contains("cannot be combined"), InvalidArgument);
}

TEST_CASE("eigenvalue estimates: trace by random signs, largest by power steps") {
  const auto stage = test::toy_chain({{"full", "cross-entropy"}})[0];
  const auto a = create<Curvature>("gauss-newton")->operator_at({stage.objective, stage.theta, {}});
  const auto n = a->size();
  const auto values = std::get<0>(at::linalg_eigh(a->apply(at::eye(n, at::kDouble))));
  CHECK(largest_eigenvalue(*a, 200, Random(1)) == doctest::Approx(values[n - 1].item<double>()).epsilon(1e-6));
  CHECK(mean_eigenvalue(*a, 4000, Random(1)) == doctest::Approx(values.mean().item<double>()).epsilon(0.02));
}

TEST_CASE("a block of another width is refused with both shapes") {
  const auto stage = test::toy_chain({{"full"}})[0];
  const auto a = create<Curvature>("hessian")->operator_at({stage.objective, stage.theta, {}});
  CHECK_THROWS_WITH_AS(a->apply(at::zeros({2, 5}, at::kDouble)), doctest::Contains("got [2, 5]"), InvalidArgument);
}

TEST_SUITE_END();
