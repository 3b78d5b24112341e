#include "whence/curvature/spectral_operator.h"

#include <ATen/ATen.h>

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

}  // namespace

at::Tensor SpectralOperator::apply_function(const at::Tensor& x, const SpectralFunction& f) const {
  check_block(x);
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

}  // namespace whence
