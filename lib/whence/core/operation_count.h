#pragma once
#include <functional>

namespace whence {

/// What work costs wherever it runs and whatever else the machine does, in what LibTorch's operators do.
struct OperationCount {
  double multiplications = 0;  ///< Multiply-adds of matrix products, convolutions and attention.
  double bytes = 0;            ///< Of the largest operand of every other operator.
  double calls = 0;            ///< Of operators that call no other.

  /// Seconds on a quiet machine of two cores, in float32: 0.9 to 1.4 times what was taken where it was fitted
  /// (tests/bench/bench_nominal.cpp). For choices that must come out alike every time; for what this machine takes,
  /// take the time.
  double nominal_seconds() const;
};

/// Counts what `work` has LibTorch do, in threads that autograd brings in too. One at a time; what other threads do
/// meanwhile is not counted. Cost: some microseconds an operator.
OperationCount count_operations(const std::function<void()>& work);
/// Whether a count is going on. What is kept from an earlier pass is then made anew, so that a count does not depend on
/// what was asked before.
bool counts_operations();

}  // namespace whence
