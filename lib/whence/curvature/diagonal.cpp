// The diagonal of the Gauss-Newton matrix (or of a Fisher matrix), with the penalty's. Y. LeCun, J. Denker and S.
// Solla, "Optimal Brain Damage", 1990.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <limits>

#include "whence/core/progress.h"
#include "whence/core/tensors.h"
#include "whence/curvature/curvature.h"
#include "whence/curvature/detail/layer_rows.h"
#include "whence/curvature/detail/pieces.h"
#include "whence/curvature/detail/statistics.h"
#include "whence/curvature/spectral_operator.h"

namespace whence {
namespace {

class DiagonalOperator : public SpectralOperator {
 public:
  explicit DiagonalOperator(at::Tensor values) : values_(std::move(values)) {}
  std::int64_t size() const override { return values_.size(0); }
  at::TensorOptions options() const override { return values_.options(); }

 protected:
  at::Tensor do_apply_function(const at::Tensor& x, const SpectralFunction& f) const override {
    return (x * f(values_)).to(x.scalar_type());
  }

 private:
  at::Tensor values_;
};

class Diagonal : public Curvature {
 public:
  explicit Diagonal(detail::StatisticsOptions options) : options_(std::move(options)) {}

  OperatorPtr operator_at(const Objective& objective, const TensorList& theta,
                          const TensorList& parent) const override {
    const CurvaturePoint point{objective, theta, parent};
    auto values = detail::penalty_diagonal(point).unsqueeze(0);
    const ProgressScope scope("the diagonal");
    detail::for_each_rows(
        "diagonal", options_, point,
        [&](const detail::RowBatch& batch) {
          for (const auto& rows : batch.layers()) {
            detail::LayerLayout::add(rows.layer, detail::squared_gradients(rows, {}, {}).unsqueeze(0), values);
          }
          for (const auto& rows : batch.others()) {
            values[0].narrow(0, rows.parameter.offset, rows.parameter.entries).add_(rows.squares());
          }
        },
        std::numeric_limits<std::int64_t>::max());
    return diagonal_operator(values[0]);
  }

  at::Tensor mixed_product(const Objective& objective, const TensorList& theta, const TensorList& parent,
                           const at::Tensor& v) const override {
    return detail::statistics_mixed_product(options_, {objective, theta, parent}, v);
  }
  std::string_view family() const override { return detail::statistics_family(options_); }
  std::string name() const override { return "diagonal"; }
  bool factored() const override { return true; }

 private:
  detail::StatisticsOptions options_;
};

}  // namespace

at::Tensor SpectralOperator::apply_function(const at::Tensor& x, const SpectralFunction& f) const {
  return do_apply_function(x, f);
}

double SpectralOperator::trace() const {
  double sum = 0;  // one pass with zeros shows every eigenvalue
  do_apply_function(at::zeros({1, size()}, options()), [&](const at::Tensor& h) {
    sum += h.sum(at::kDouble).item<double>();
    return h;
  });
  return sum;
}

std::shared_ptr<const SpectralOperator> diagonal_operator(at::Tensor values) {
  return std::make_shared<DiagonalOperator>(std::move(values));
}

WHENCE_METHOD(Curvature, diagonal, Diagonal, detail::StatisticsOptions)

}  // namespace whence
