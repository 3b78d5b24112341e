#include "whence/core/random.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

namespace whence {

Random::Random(std::uint64_t seed) : seed_(seed), generator_(at::detail::createCPUGenerator(seed)) {}

Random Random::stream(std::string_view name) const {
  std::uint64_t hash = 14695981039346656037ULL ^ seed_;  // FNV-1a
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  }
  return Random(hash);
}

at::Tensor Random::normal(at::IntArrayRef shape) { return at::randn(shape, generator_, at::kDouble); }

at::Tensor Random::uniform(at::IntArrayRef shape, double low, double high) {
  return at::rand(shape, generator_, at::kDouble).mul_(high - low).add_(low);
}

at::Tensor Random::permutation(std::int64_t n) { return at::randperm(n, generator_, at::kLong); }

}  // namespace whence
