// The generalized Gauss-Newton matrix J' H_out J: the Hessian without the curvature of the network, positive
// semidefinite for a convex loss. N. Schraudolph, "Fast Curvature Matrix-Vector Products", 2002. The penalty is
// quadratic and enters exactly.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "whence/core/progress.h"
#include "whence/curvature/curvature.h"
#include "whence/curvature/detail/pieces.h"
#include "whence/curvature/detail/row_operator.h"

namespace whence {
namespace {

struct GaussNewtonOptions {
  double graph_bytes = 4e9;
  bool rows = true;
  std::int64_t examples = 0;
  std::int64_t seed = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("graph-bytes", self.graph_bytes, kAtLeastZero,
          "keep what products share, rows of J or graphs, when that takes at most this");
    field("rows", self.rows, kAny,
          "where the model allows, J from one backward pass an output, for all vectors of a block; false: by "
          "differentiating twice, vector by vector");
    field("examples", self.examples, kAtLeastZero, "a fixed batch of so many, in place of all the data; 0: all");
    field("seed", self.seed, kAtLeastZero, "of that batch");
  }
};

/// J v, H_out and J' w of one batch, from one forward graph. The Jacobian-vector product differentiates the
/// vector-Jacobian product, which is linear in its cotangent: no forward-mode differentiation, so it may run in any
/// thread.
class Linearisation {
 public:
  Linearisation(const CurvaturePoint& point, const Batch& batch)
      : at_(point), batch_(batch), output_(point.objective.output(point.theta, point.parent, batch)) {
    cotangent_ = at::zeros_like(output_).requires_grad_(true);
    pulled_ = gradient(TensorList{output_}, at_.theta, {cotangent_}, true);
  }

  /// w_i / N H_out J v: [rows, C].
  at::Tensor output_curvature(const at::Tensor& v) const {
    const auto direction = unflatten(v.to(at_.theta.front().scalar_type()), at_.theta);
    const auto tangent = gradient(pulled_, {cotangent_}, direction, false, true).front();
    const auto curved = at_.objective.loss().hessian_product(output_.detach(), batch_, tangent);
    return curved * spread_to_outputs(batch_, at_.objective.batch_weights(batch_)).unsqueeze(1);
  }
  /// J_x' w for the parameters x: a flat vector.
  at::Tensor pull_back(const at::Tensor& w, const TensorList& x) const {
    return flatten(gradient(TensorList{output_}, x, {w.to(output_.scalar_type())}, false, true));
  }

 private:
  const CurvaturePoint& at_;
  Batch batch_;
  at::Tensor output_, cotangent_;
  TensorList pulled_;
};

class GaussNewtonPiece : public detail::Piece {
 public:
  GaussNewtonPiece(const CurvaturePoint& at, const Batch& batch) : theta_(at.theta), linear_(at, batch) {}
  void add_product(const at::Tensor& x, at::Tensor& out) const override {
    for (std::int64_t k = 0; k < x.size(0); ++k) {
      check_interruption();
      out[k].add_(linear_.pull_back(linear_.output_curvature(x[k]), theta_));
    }
  }

 private:
  TensorList theta_;
  Linearisation linear_;
};

/// Up to so many rows an example, a backward pass for each is cheaper than two a vector.
constexpr std::int64_t kMostRows = 64;

std::optional<detail::LayerLayout> rows_of(const CurvaturePoint& point) {
  return detail::exact_rows(point.objective.data()) <= kMostRows
             ? detail::trained_layout(point, detail::LayerLayout::Beside::kRows)
             : std::nullopt;
}

class GaussNewton : public Curvature {
 public:
  explicit GaussNewton(GaussNewtonOptions options) : options_(options) {}
  std::string name() const override {
    return options_.examples > 0 ? fmt::format("gauss-newton of {} examples", options_.examples) : Curvature::name();
  }

  OperatorPtr operator_at(const CurvaturePoint& whole) const override {
    const auto point = detail::fixed_examples(whole, options_.examples, options_.seed);
    if (const auto layout = options_.rows ? rows_of(point) : std::nullopt) {
      return detail::row_operator(point, *layout, {detail::RowKind::kGaussNewton}, options_.graph_bytes);
    }
    const auto make = [](const CurvaturePoint& at, const Batch& batch) {
      return std::make_unique<GaussNewtonPiece>(at, batch);
    };
    return detail::sum_of_pieces(point, make, options_.graph_bytes);
  }

  at::Tensor mixed_product(const CurvaturePoint& whole, const at::Tensor& v) const override {
    return detail::gauss_newton_mixed_product(detail::fixed_examples(whole, options_.examples, options_.seed), v);
  }

 private:
  GaussNewtonOptions options_;
};

}  // namespace

at::Tensor detail::gauss_newton_mixed_product(const CurvaturePoint& point, const at::Tensor& v) {
  auto out = penalty_mixed_product(point, v);
  if (!point.objective.tuning().merge_uses_parent()) {
    return out;
  }
  const auto trained = rows_of(point), before = parent_layout(point);
  if (trained && before) {
    add_row_mixed_product(point, *trained, *before, {RowKind::kGaussNewton}, v, out);
    return out;
  }
  const CurvaturePoint at{point.objective, leaves(point.theta), leaves(point.parent)};
  at.objective.for_each_batch([&](const Batch& batch) {
    const Linearisation linear(at, batch);
    for (std::int64_t k = 0; k < v.size(0); ++k) {
      out[k].add_(linear.pull_back(linear.output_curvature(v[k]), at.parent));
    }
  });
  return out;
}

WHENCE_METHOD(Curvature, gauss_newton, GaussNewton, GaussNewtonOptions)

}  // namespace whence
