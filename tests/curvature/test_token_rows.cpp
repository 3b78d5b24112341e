// Rows of texts whose tokens are predicted: the Gauss-Newton matrix sums over tokens after squaring.
#include <torch/csrc/autograd/autograd.h>

#include "models/language.h"
#include "support/near.h"
#include "whence/curvature/curvature.h"
#include "whence/curvature/detail/row_operator.h"
#include "whence/curvature/spectral_operator.h"

using namespace whence;
using test::relative_error;
using test::Tolerance;

namespace {

/// Trains the linear layers of a model that the parent is.
class LinearLayers : public Tuning {
 public:
  explicit LinearLayers(std::vector<std::string> names) : names_(std::move(names)) {}
  ParameterSet trainable(const ParameterSet&, const ParameterSet& parent, Random&) const override {
    ParameterSet out;
    for (const auto& name : names_) {
      out.add(name, parent.at(name));
    }
    return out;
  }
  ParameterSet merge(const ParameterSet& parent, const ParameterSet& tuned) const override {
    auto values = parent.values();
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = tuned.contains(parent.names()[i]) ? tuned.at(parent.names()[i]) : values[i];
    }
    return parent.with(values);
  }
  at::Tensor penalty(const ParameterSet&, const ParameterSet& tuned, double weight_decay) const override {
    auto total = at::zeros({}, at::kDouble);
    for (const auto& value : tuned.values()) {
      total = total + 0.5 * weight_decay * value.pow(2).sum();
    }
    return total;
  }
  bool merge_uses_parent() const override { return true; }
  bool remembers_parent() const override { return true; }

 private:
  std::vector<std::string> names_;
};

/// Two short texts of different lengths for a tiny llama, all of it in double.
struct Problem {
  Problem() : language("llama"), model(create<Model>("transformer:directory=" + language.path.string())) {
    Dataset::Contents contents;
    auto& texts = contents.texts;
    texts.tokens = language.data.texts().tokens.narrow(0, 0, 8).clone();
    texts.tokens[4] = texts.tokens[3];  // one that is read twice
    texts.lengths = at::tensor({3, 5}, at::kLong);
    texts.begins = at::tensor({0, 3}, at::kLong);
    texts.targets = at::cat({texts.tokens.slice(0, 1), at::full({1}, -1, at::kInt)});
    texts.targets.index_fill_(0, at::tensor({2, 7}, at::kLong), -1);
    texts.vocabulary = language.language->vocabulary();
    contents.ids = at::arange(2);
    data = Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
  }
  Objective objective(std::shared_ptr<const Tuning> tuning, const ParameterSet& trained, const ParameterSet& parent,
                      std::int64_t batch) const {
    return Objective(model, create<Loss>("next-token"), std::move(tuning), data, 0.1, trained, parent, batch);
  }
  /// Rows sqrt(1/N) L' J of every predicted token and output, by one backward pass each: [rows, P].
  at::Tensor rows() const {
    TensorList out;
    for (std::int64_t i = 0; i < data.size(); ++i) {
      const auto point = leaves(language.theta.values());
      const auto output = model->output(language.theta.with(point), data.batch(i, i + 1));
      for (std::int64_t m = 0; m < output.size(0); ++m) {
        const auto p = at::softmax(output[m].detach(), 0);
        for (std::int64_t c = 0; c < p.size(0); ++c) {
          auto cotangent = p.clone();
          cotangent[c] -= 1;
          const auto scaled = cotangent * at::sqrt(p[c] / static_cast<double>(data.size()));
          out.push_back(flatten(gradient(TensorList{output[m]}, point, {scaled}, false, true)));
        }
      }
    }
    return at::stack(out);
  }

  test::LanguageCase language;
  std::shared_ptr<const Model> model;
  Dataset data;
};

}  // namespace

TEST_SUITE_BEGIN("curvature");

TEST_CASE("exact Gauss-Newton rows of predicted tokens square each token by itself") {
  const Problem problem;
  const auto& theta = problem.language.theta;
  const auto rows = problem.rows();
  const auto exact = rows.square().sum(0) + 0.1;
  for (const std::int64_t batch : {1, 2}) {
    CAPTURE(batch);
    const auto objective = problem.objective(create<Tuning>("full"), theta, {}, batch);
    const auto diagonal = create<Curvature>("diagonal:labels=exact")->operator_at(objective, theta.values(), {});
    CHECK(relative_error(diagonal->apply(at::ones({1, theta.entries()}, at::kDouble))[0], exact) < Tolerance::kDense);
    // the trace is the same in every basis
    const auto ekfac = create<Curvature>("ekfac:labels=exact")->operator_at(objective, theta.values(), {});
    CHECK(mean_eigenvalue(*ekfac, 1, Random(0)) ==
          doctest::Approx(exact.mean().item<double>()).epsilon(Tolerance::kDense));
  }
  Tape tape;
  problem.model->output(theta, problem.data.batch(0, 1), &tape);
  std::vector<std::string> names;
  TensorList columns;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < theta.size(); ++i) {
    const auto& name = theta.names()[i];
    if (std::any_of(tape.entries.begin(), tape.entries.end(), [&](const TapeEntry& entry) {
          return entry.weight == name && entry.kind == TapeEntry::Kind::kLinear;
        })) {
      names.push_back(name);
      columns.push_back(rows.narrow(1, offset, theta.values()[i].numel()));
    }
    offset += theta.values()[i].numel();
  }
  const auto part = at::cat(columns, 1);
  const auto tuning = std::make_shared<LinearLayers>(names);
  auto draws = Random(1);
  const auto trained = tuning->trainable(theta, theta, draws);
  const auto x = Random(2).normal({2, trained.entries()});
  const auto expected = x.mm(part.t()).mm(part) + 0.1 * x;
  const CurvaturePoint point{problem.objective(tuning, trained, theta, 1), trained.values(), theta.values()};
  const auto layout = whence::detail::trained_layout(point);
  REQUIRE(layout);
  const auto by_rows = whence::detail::row_operator(point, *layout, {whence::detail::RowKind::kGaussNewton}, 1e9);
  CHECK(relative_error(by_rows->apply(x), expected) < Tolerance::kDense);
  const auto twice = create<Curvature>("gauss-newton")->operator_at(point.objective, point.theta, point.parent);
  CHECK(relative_error(twice->apply(x), expected) < Tolerance::kDense);
}

TEST_CASE("factors fitted to the data's own labels are the empirical Fisher's, in a chain too") {
  for (const char* name : {"diagonal", "kfac", "ekfac"}) {
    CAPTURE(name);
    CHECK(create<Curvature>(std::string(name) + ":labels=data")->family() == "empirical-fisher");
    CHECK(create<Curvature>(name)->family() == "gauss-newton");
    CHECK(create<Curvature>(name)->factored());
    CHECK(create<Curvature>(resolved_spec<Curvature>(name))->name() == name);  // as run.json has it, empty texts too
  }
  CHECK(create<Curvature>("hessian:examples=3")->name() == "hessian of 3 examples");
}

TEST_SUITE_END();
