// What a gradient of each stage takes, beside the nominal seconds that defaults are chosen by (core/operation_count.h):
//   whence_bench nominal PIPELINE...
#include <fmt/format.h>

#include "bench/bench.h"
#include "whence/core/operation_count.h"
#include "whence/stages/cost.h"
#include "whence/stages/pipeline.h"

using namespace whence;

int bench_nominal(int count, char** arguments) {
  fmt::print("{:<28} {:>10} {:>10} {:>7}\n", "stage", "nominal s", "taken s", "ratio");
  for (int i = 1; i < count; ++i) {
    const Pipeline pipeline(arguments[i], {});
    for (const auto& stage : pipeline.load()) {
      const double nominal = nominal_gradient_seconds(stage), taken = gradient_seconds(stage);
      fmt::print("{:<28} {:>10.3g} {:>10.3g} {:>7.2f}\n", pipeline.path().stem().string() + ": " + stage.name, nominal,
                 taken, nominal / taken);
    }
  }
  return 0;
}
