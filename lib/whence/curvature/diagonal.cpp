// The diagonal of the Gauss-Newton matrix (or of a Fisher matrix), with the penalty's. Y. LeCun, J. Denker and S.
// Solla, "Optimal Brain Damage", 1990.
#include <ATen/ATen.h>

#include <limits>

#include "whence/core/progress.h"
#include "whence/curvature/curvature.h"
#include "whence/curvature/detail/layer_rows.h"
#include "whence/curvature/detail/pieces.h"
#include "whence/curvature/detail/statistics.h"
#include "whence/curvature/spectral_operator.h"

namespace whence {
namespace {

constexpr auto kAnyWidth = std::numeric_limits<std::int64_t>::max();

class Diagonal : public Curvature {
 public:
  explicit Diagonal(detail::StatisticsOptions options) : options_(std::move(options)) {}

  OperatorPtr operator_at(const CurvaturePoint& point) const override {
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
        kAnyWidth);
    return diagonal_operator(values[0]);
  }
  void check(const CurvaturePoint& point, bool mixed) const override {
    detail::check_statistics("diagonal", options_, point, mixed, kAnyWidth);
  }

  at::Tensor mixed_product(const CurvaturePoint& point, const at::Tensor& v) const override {
    return detail::statistics_mixed_product(options_, point, v);
  }
  CurvatureFamily family() const override { return detail::statistics_family(options_); }
  std::string name() const override { return "diagonal"; }
  bool factored() const override { return true; }

 private:
  detail::StatisticsOptions options_;
};

}  // namespace

WHENCE_METHOD(Curvature, diagonal, Diagonal, detail::StatisticsOptions)

}  // namespace whence
