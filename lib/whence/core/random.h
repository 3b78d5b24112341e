#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace whence {

/// A seeded source of randomness. Two sources of one seed and name give the same bits on every machine and for every
/// thread count.
class Random {
 public:
  explicit Random(std::uint64_t seed);
  /// An independent stream for `name`: what one part draws never moves what another draws.
  Random stream(std::string_view name) const;

  /// Float64 on the CPU: callers convert, so that every dtype and device starts from the same numbers.
  at::Tensor normal(at::IntArrayRef shape);
  at::Tensor uniform(at::IntArrayRef shape, double low, double high);
  /// A random order of 0 .. n-1, int64.
  at::Tensor permutation(std::int64_t n);
  std::uint64_t seed() const { return seed_; }

 private:
  std::uint64_t seed_;
  at::Generator generator_;
};

}  // namespace whence
