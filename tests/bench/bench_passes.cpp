// Seconds of a thread that passes through a pipeline's last stage take, all its training examples in one batch:
//   whence_bench passes PIPELINE
// Each line of standard input, "forward" or "gradient", is answered by a line: the loss, and the seconds of one pass.
// Whoever asks alternates with what it compares (tests/bench/exported/compare.py does).
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <cstdio>
#include <iostream>

#include "bench/bench.h"
#include "whence/core/memory.h"
#include "whence/core/seconds.h"
#include "whence/core/tensors.h"
#include "whence/models/ops.h"
#include "whence/stages/pipeline.h"

using namespace whence;

int bench_passes(int count, char** arguments) {
  if (count != 2) {
    fmt::print(stderr, "usage: whence_bench passes PIPELINE\n");
    return 2;
  }
  at::set_num_threads(1);
  keep_freed_memory();  // as the tool does
  const Pipeline pipeline(arguments[1], {});
  const auto chain = pipeline.load();
  const auto& stage = chain.back();
  const auto theta = leaves(stage.theta), parent = detach(stage.parent);
  const auto batch = stage.objective.data().batch(0, stage.objective.terms());
  const DerivativeOrder first(1);  // as training says
  for (std::string pass; std::getline(std::cin, pass);) {
    const bool forward = pass == "forward";
    const double start = thread_seconds();
    const c10::AutoGradMode mode(!forward);
    const auto loss = stage.objective.batch_loss(theta, parent, batch);
    if (!forward) {
      gradient(loss, theta);
    }
    const double value = loss.item<double>();
    fmt::print("{} {}\n", value, thread_seconds() - start);
    std::fflush(stdout);
  }
  return 0;
}
