#pragma once
#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "whence/core/random.h"

namespace whence {

/// A symmetric linear map of a parameter space of P entries into itself, known only by its products with blocks of
/// vectors. Whoever holds one calls apply(), which checks the shape and counts the products; whoever writes one defines
/// do_apply(). The same block gives the same bits.
class LinearOperator {
 public:
  virtual ~LinearOperator() = default;

  /// A x for each row of x: [K, P] to [K, P]. Throws InvalidArgument on any other shape. Computed in the dtype of
  /// options() and given back in that of x, so that a solver of a bfloat16 model can work in float32.
  at::Tensor apply(const at::Tensor& x) const;
  /// An unbiased estimate of A x from `batch_size` examples drawn by `random`, with replacement. Throws InvalidArgument
  /// where the operator is not a mean over examples.
  at::Tensor apply_sampled(const at::Tensor& x, std::int64_t batch_size, Random& random) const;

  /// P.
  virtual std::int64_t size() const = 0;
  /// Dtype and device of its blocks.
  virtual at::TensorOptions options() const = 0;
  /// Eigenvalues below this times the largest are lost in the rounding of products: 16 spacings of the dtype.
  virtual double rounding() const;

  /// Products with one vector made so far: the cost every solver is judged by. A sampled product counts by its share of
  /// the data.
  double products() const { return products_.load(); }

 protected:
  virtual at::Tensor do_apply(const at::Tensor& x) const = 0;
  virtual at::Tensor do_apply_sampled(const at::Tensor& x, std::int64_t batch_size, Random& random) const;
  /// tr(A) where it is known for less than a product; NaN where not.
  virtual double trace() const;
  friend double mean_eigenvalue(const LinearOperator& a, std::int64_t probes, Random random);
  /// Examples the operator is a mean over; 0 where it is none.
  virtual std::int64_t examples() const { return 0; }

  /// Throws InvalidArgument unless x is [K, P].
  void check_block(const at::Tensor& x) const;

 private:
  mutable std::atomic<double> products_{0};
};

using OperatorPtr = std::shared_ptr<const LinearOperator>;

/// A + damping I.
OperatorPtr damped(OperatorPtr a, double damping);
/// A^2 + shift I: two products of A each.
OperatorPtr squared(OperatorPtr a, double shift);
/// The sum of two operators, a multiple of one, and the composition x -> A (B x), which is symmetric where they
/// commute. Throw InvalidArgument where the sizes differ.
OperatorPtr operator+(OperatorPtr a, OperatorPtr b);
OperatorPtr operator*(double factor, OperatorPtr a);
OperatorPtr operator*(OperatorPtr a, OperatorPtr b);

/// tr(A) / P: exact where the operator knows it (its own trace()), else estimated from `probes` random sign vectors
/// (Hutchinson 1990), which are drawn a few at a time: memory is that of as many vectors as take 256 MiB.
double mean_eigenvalue(const LinearOperator& a, std::int64_t probes, Random random);
/// The eigenvalue of largest magnitude, from below, by `iterations` power steps: its Rayleigh quotient.
double largest_eigenvalue(const LinearOperator& a, std::int64_t iterations, Random random);

}  // namespace whence
