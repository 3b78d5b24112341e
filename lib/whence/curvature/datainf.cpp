#include "whence/curvature/datainf.h"

#include <ATen/ATen.h>

#include <map>

#include "whence/curvature/detail/layer_rows.h"
#include "whence/curvature/detail/pieces.h"
#include "whence/curvature/detail/statistics.h"

namespace whence {
namespace {

class DataInfInverse : public LinearOperator {
 public:
  DataInfInverse(const CurvaturePoint& point, double damping, double kept_bytes)
      : point_(point), penalty_(detail::penalty_diagonal(point)), kept_bytes_(kept_bytes) {
    std::map<std::string, double> squares;
    double bytes = 0;
    each([&](const detail::RowBatch& batch) {
      bytes += batch.bytes();
      if (bytes <= kept_bytes_) {
        kept_.push_back(batch);
      }
      for (const auto& rows : batch.layers()) {
        squares[rows.layer.name] += detail::squared_norms(rows).sum().item<double>();
      }
    });
    if (bytes > kept_bytes_) {
      kept_.clear();
    }
    const auto layout = detail::trained_layout(point_);
    for (const auto& layer : layout->layers()) {
      const double given = damping + detail::LayerLayout::gather(layer, penalty_.unsqueeze(0)).mean().item<double>();
      damping_[layer.name] = given > 0 ? given : 0.1 * squares[layer.name] / static_cast<double>(layer.entries());
    }
  }
  std::int64_t size() const override { return penalty_.size(0); }
  at::TensorOptions options() const override { return penalty_.options(); }

 protected:
  /// (g g' + d)^-1 x = (x - g (g.x) / (d + |g|^2)) / d. The rows carry sqrt(1/N).
  at::Tensor do_apply(const at::Tensor& x) const override {
    const auto n = static_cast<double>(point_.objective.data().size());
    auto out = at::zeros_like(x);
    each([&](const detail::RowBatch& batch) {
      for (const auto& rows : batch.layers()) {
        const double d = damping_.at(rows.layer.name);
        const auto products = detail::layer_times(rows, detail::LayerLayout::gather(rows.layer, x));  // [B, 1, K]
        const auto weights = -1 / (d * (d + n * detail::squared_norms(rows)));                        // [B]
        detail::LayerLayout::add(rows.layer, detail::layer_transposed(rows, products * weights.view({-1, 1, 1})), out);
      }
    });
    const auto layout = detail::trained_layout(point_);
    for (const auto& layer : layout->layers()) {
      detail::LayerLayout::add(layer, detail::LayerLayout::gather(layer, x) / damping_.at(layer.name), out);
    }
    return out;
  }

 private:
  template <class Body>
  void each(const Body& body) const {
    if (kept_.empty()) {
      detail::for_each_rows("datainf", {.labels = "data"}, point_, body);
    } else {
      std::for_each(kept_.begin(), kept_.end(), body);
    }
  }

  CurvaturePoint point_;
  at::Tensor penalty_;
  double kept_bytes_;
  std::vector<detail::RowBatch> kept_;
  std::map<std::string, double> damping_;
};

}  // namespace

OperatorPtr datainf_inverse(const CurvaturePoint& point, double damping, double kept_bytes) {
  return std::make_shared<DataInfInverse>(point, damping, kept_bytes);
}

}  // namespace whence
