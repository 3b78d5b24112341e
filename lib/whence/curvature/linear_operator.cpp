#include "whence/curvature/linear_operator.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "whence/core/chunks.h"
#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/core/rounding.h"
#include "whence/core/tensors.h"

namespace whence {
namespace {

/// Made of products with one or two others of one size.
class DerivedOperator : public LinearOperator {
 public:
  explicit DerivedOperator(OperatorPtr a, OperatorPtr b = nullptr) : a_(std::move(a)), b_(std::move(b)) {
    if (b_ && a_->size() != b_->size()) {
      throw InvalidArgument(fmt::format("operators of {} and {} entries cannot be combined", a_->size(), b_->size()));
    }
  }
  std::int64_t size() const override { return a_->size(); }
  at::TensorOptions options() const override { return algebra_options(a_->options()); }
  double rounding() const override { return b_ ? std::max(a_->rounding(), b_->rounding()) : a_->rounding(); }

 protected:
  OperatorPtr a_, b_;
};

class DampedOperator : public DerivedOperator {
 public:
  DampedOperator(OperatorPtr a, double damping) : DerivedOperator(std::move(a)), damping_(damping) {}

 protected:
  at::Tensor do_apply(const at::Tensor& x) const override { return a_->apply(x).add(x, damping_); }
  at::Tensor do_apply_sampled(const at::Tensor& x, std::int64_t batch_size, Random& random) const override {
    return a_->apply_sampled(x, batch_size, random).add(x, damping_);
  }

 private:
  double damping_;
};

class SquaredOperator : public DerivedOperator {
 public:
  SquaredOperator(OperatorPtr a, double shift) : DerivedOperator(std::move(a)), shift_(shift) {}

 protected:
  at::Tensor do_apply(const at::Tensor& x) const override { return a_->apply(a_->apply(x)).add(x, shift_); }
  /// Two independent samples: the mean of a product is then the product of the means.
  at::Tensor do_apply_sampled(const at::Tensor& x, std::int64_t batch_size, Random& random) const override {
    return a_->apply_sampled(a_->apply_sampled(x, batch_size, random), batch_size, random).add(x, shift_);
  }

 private:
  double shift_;
};

class SumOperator : public DerivedOperator {
 public:
  using DerivedOperator::DerivedOperator;

 protected:
  at::Tensor do_apply(const at::Tensor& x) const override { return a_->apply(x).add_(b_->apply(x)); }
  at::Tensor do_apply_sampled(const at::Tensor& x, std::int64_t batch_size, Random& random) const override {
    return a_->apply_sampled(x, batch_size, random).add_(b_->apply_sampled(x, batch_size, random));
  }
};

class ScaledOperator : public DerivedOperator {
 public:
  ScaledOperator(double factor, OperatorPtr a) : DerivedOperator(std::move(a)), factor_(factor) {}

 protected:
  at::Tensor do_apply(const at::Tensor& x) const override { return a_->apply(x).mul_(factor_); }
  at::Tensor do_apply_sampled(const at::Tensor& x, std::int64_t batch_size, Random& random) const override {
    return a_->apply_sampled(x, batch_size, random).mul_(factor_);
  }

 private:
  double factor_;
};

class ComposedOperator : public DerivedOperator {
 public:
  using DerivedOperator::DerivedOperator;

 protected:
  at::Tensor do_apply(const at::Tensor& x) const override { return a_->apply(b_->apply(x)); }
};

}  // namespace

void LinearOperator::check_block(const at::Tensor& x) const {
  if (x.dim() != 2 || x.size(1) != size()) {
    std::ostringstream message;
    message << "operator acts on blocks [K, " << size() << "], got " << x.sizes();
    throw InvalidArgument(message.str());
  }
}

at::Tensor LinearOperator::apply(const at::Tensor& x) const {
  check_block(x);
  products_ = products_ + static_cast<double>(x.size(0));
  const auto type = c10::typeMetaToScalarType(options().dtype());
  return x.scalar_type() == type ? do_apply(x) : do_apply(x.to(type)).to(x.scalar_type());
}

double LinearOperator::rounding() const { return 16 * epsilon(c10::typeMetaToScalarType(options().dtype())); }

double LinearOperator::trace() const { return NAN; }

at::Tensor LinearOperator::apply_sampled(const at::Tensor& x, std::int64_t batch_size, Random& random) const {
  check_block(x);
  if (examples() > 0) {
    products_ =
        products_ + static_cast<double>(x.size(0)) * static_cast<double>(batch_size) / static_cast<double>(examples());
  }
  const auto type = c10::typeMetaToScalarType(options().dtype());
  return x.scalar_type() == type ? do_apply_sampled(x, batch_size, random)
                                 : do_apply_sampled(x.to(type), batch_size, random).to(x.scalar_type());
}

at::Tensor LinearOperator::do_apply_sampled(const at::Tensor&, std::int64_t, Random&) const {
  throw InvalidArgument(
      "this operator is not a mean over examples, so it cannot be sampled: leave the solver's batch-size at 0");
}

OperatorPtr damped(OperatorPtr a, double damping) {
  return damping == 0 ? a : std::make_shared<DampedOperator>(std::move(a), damping);
}

OperatorPtr squared(OperatorPtr a, double shift) { return std::make_shared<SquaredOperator>(std::move(a), shift); }

OperatorPtr operator+(OperatorPtr a, OperatorPtr b) {
  return std::make_shared<SumOperator>(std::move(a), std::move(b));
}

OperatorPtr operator*(double factor, OperatorPtr a) { return std::make_shared<ScaledOperator>(factor, std::move(a)); }

OperatorPtr operator*(OperatorPtr a, OperatorPtr b) {
  return std::make_shared<ComposedOperator>(std::move(a), std::move(b));
}

double mean_eigenvalue(const LinearOperator& a, std::int64_t probes, Random random) {
  if (const double known = a.trace(); !std::isnan(known)) {
    return known / static_cast<double>(a.size());
  }
  double sum = 0;
  const auto size = a.size();
  in_chunks(probes, size * static_cast<std::int64_t>(a.options().dtype().itemsize()),
            [&](std::int64_t begin, std::int64_t count) {
              auto signs = at::empty({count * size}, a.options());
              in_chunks(count * size, 8, [&](std::int64_t first, std::int64_t length) {  // drawn in float64
                signs.narrow(0, first, length).copy_(random.uniform({length}, -1, 1).sign_());
              });
              signs = signs.view({count, size});
              sum += row_dots(signs, a.apply(signs)).sum().item<double>();
              check_interruption(begin + count, probes);
            });
  return sum / static_cast<double>(probes) / static_cast<double>(a.size());
}

double largest_eigenvalue(const LinearOperator& a, std::int64_t iterations, Random random) {
  auto x = random.normal({1, a.size()}).to(a.options());
  double value = 0;
  for (std::int64_t i = 0; i < iterations; ++i) {
    x = x / row_norms(x).item<double>();
    const auto product = a.apply(x);
    value = row_dots(x, product).item<double>();
    if (row_norms(product).item<double>() == 0) {
      return 0;
    }
    x = product;
  }
  return value;
}

}  // namespace whence
