// The exact Hessian, by differentiating the gradient. B. Pearlmutter, "Fast exact multiplication by the Hessian", 1994.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "whence/core/rounding.h"
#include "whence/curvature/curvature.h"
#include "whence/curvature/detail/dense_hessian.h"
#include "whence/curvature/detail/pieces.h"

namespace whence {
namespace {

struct HessianOptions {
  std::string mixed = "double-backward";
  double step = 0;
  double graph_bytes = 4e9;
  bool dense = true;
  std::int64_t examples = 0;
  std::int64_t seed = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("mixed", self.mixed, OneOf{"double-backward|finite-difference"},
          "how the mixed product is computed; finite-difference takes two ordinary gradients a vector");
    field(
        "step", self.step, kAtLeastZero,
        "finite-difference: |perturbation| / |theta|; 0: 1e-5 in float64, 1e-3 in float32 (the cube root of rounding)");
    field("graph-bytes", self.graph_bytes, kAtLeastZero, "keep graphs between products when they take at most this");
    field("dense", self.dense, kAny,
          "models of dense layers: the product written out, for all vectors of a block; false: by differentiating the "
          "gradient, vector by vector, as for all other models");
    field("examples", self.examples, kAtLeastZero, "a fixed batch of so many, in place of all the data; 0: all");
    field("seed", self.seed, kAtLeastZero, "of that batch");
  }
};

class Hessian : public Curvature {
 public:
  explicit Hessian(HessianOptions options) : options_(std::move(options)) {}
  CurvatureFamily family() const override { return CurvatureFamily::kHessian; }
  std::string name() const override {
    return options_.examples > 0 ? fmt::format("hessian of {} examples", options_.examples) : Curvature::name();
  }

  OperatorPtr operator_at(const CurvaturePoint& whole) const override {
    const auto point = detail::fixed_examples(whole, options_.examples, options_.seed);
    auto make = options_.dense ? detail::dense_hessian_pieces(point) : detail::PieceMaker{};
    if (!make) {
      make = [](const CurvaturePoint& at, const Batch& batch) {
        auto value = at.objective.batch_loss(at.theta, at.parent, batch);
        if (const auto coupling = at.objective.coupling(at.theta);
            coupling.defined()) {  // a share of it with each batch
          value =
              value + coupling * (static_cast<double>(batch.size()) / static_cast<double>(at.objective.data().size()));
        }
        return detail::hessian_piece(value, at.theta);
      };
    }
    return detail::sum_of_pieces(point, make, options_.graph_bytes);
  }

  at::Tensor mixed_product(const CurvaturePoint& whole, const at::Tensor& v) const override {
    const auto point = detail::fixed_examples(whole, options_.examples, options_.seed);
    auto out = detail::penalty_mixed_product(point, v);
    if (!point.objective.tuning().merge_uses_parent()) {
      return out;
    }
    if (options_.mixed == "finite-difference") {
      add_differences(point, v, out);
    } else {
      const auto theta = leaves(point.theta), parent = leaves(point.parent);
      point.objective.for_each_batch([&](const Batch& batch) {
        detail::add_mixed_product(point.objective.batch_loss(theta, parent, batch), theta, parent, v, out);
      });
    }
    return out;
  }

 private:
  /// X v = d/dh grad_parent Phi(theta + h v) at h = 0: formulas.md 9.4 (b). The penalty is quadratic and has been added
  /// exactly.
  void add_differences(const CurvaturePoint& point, const at::Tensor& v, at::Tensor& out) const {
    const auto& [objective, theta, parent] = point;
    const double relative = options_.step > 0 ? options_.step : difference_step(theta.front().scalar_type());
    const auto centre = flatten(theta);
    const double size = std::sqrt(exact_dot(centre, centre));
    const auto norms = row_norms(v);
    for (std::int64_t k = 0; k < v.size(0); ++k) {
      const double norm = norms[k].item<double>();
      if (norm == 0) {
        continue;
      }
      const double h = relative * (size > 0 ? size : 1) / norm;
      for (const double side : {h, -h}) {
        const auto moved = unflatten((centre + side * v[k]).to(centre.scalar_type()), theta);
        const auto from = leaves(parent);
        point.objective.for_each_batch([&](const Batch& batch) {
          out[k].add_(flatten(gradient(point.objective.batch_loss(moved, from, batch), from)), 0.5 / side);
        });
      }
    }
  }

  HessianOptions options_;
};

}  // namespace

WHENCE_METHOD(Curvature, hessian, Hessian, HessianOptions)

}  // namespace whence
