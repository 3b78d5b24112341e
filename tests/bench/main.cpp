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

int bench_chain(int count, char** values);
int bench_defaults(int count, char** values);
int bench_icl(int count, char** values);
int bench_icl_study(int count, char** values);
int bench_kernels(int count, char** values);
int bench_language(int count, char** values);
int bench_nominal(int count, char** values);
int bench_passes(int count, char** values);
int bench_solvers(int count, char** values);
int bench_tokenizers(int count, char** values);
int bench_unrolled(int count, char** values);

int main(int count, char** values) {
  const std::map<std::string, int (*)(int, char**)> benches{
      {"chain", bench_chain},           {"defaults", bench_defaults}, {"icl", bench_icl},
      {"icl-study", bench_icl_study},   {"kernels", bench_kernels},   {"language", bench_language},
      {"nominal", bench_nominal},       {"passes", bench_passes},     {"solvers", bench_solvers},
      {"tokenizers", bench_tokenizers}, {"unrolled", bench_unrolled},
  };
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
