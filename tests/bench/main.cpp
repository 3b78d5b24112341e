// What whence costs and what its defaults are worth: whence_bench NAME ARGUMENTS..., each in a file of its own, which
// says what it prints. No tests: times mean something in the optimised build and on an idle machine alone.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>

#include "bench/bench.h"

double median_seconds(const std::function<void()>& work, int times) {
  std::vector<double> found;
  for (int i = 0; i < times; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    found.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(found.begin(), found.begin() + times / 2, found.end());
  return found[static_cast<std::size_t>(times / 2)];
}

std::vector<double> numbers(const at::Tensor& x) {
  const auto flat = x.to(at::kDouble).contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

// One line a bench: X(id, name), whose file bench_ID.cpp defines `int bench_ID(int count, char** values)`.
#define BENCHES(X)            \
  X(chain, "chain")           \
  X(defaults, "defaults")     \
  X(icl, "icl")               \
  X(icl_study, "icl-study")   \
  X(kernels, "kernels")       \
  X(language, "language")     \
  X(nominal, "nominal")       \
  X(passes, "passes")         \
  X(solvers, "solvers")       \
  X(tokenizers, "tokenizers") \
  X(unrolled, "unrolled")

#define DECLARE(id, name) int bench_##id(int count, char** values);
BENCHES(DECLARE)

int main(int count, char** values) {
#define ENTRY(id, name) {name, bench_##id},
  const std::map<std::string, int (*)(int, char**)> benches{BENCHES(ENTRY)};
  const auto found = benches.find(count > 1 ? values[1] : "");
  if (found == benches.end()) {
    fmt::print(stderr, "usage: whence_bench NAME ARGUMENTS..., NAME one of");
    for (const auto& [name, bench] : benches) {
      fmt::print(stderr, " {}", name);
    }
    fmt::print(stderr, "\n");
    return 2;
  }
  return found->second(count - 1, values + 1);
}
