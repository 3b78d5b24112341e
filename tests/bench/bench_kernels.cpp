// What the eNTK of a language model costs: whence_bench kernels DIR EXAMPLES LENGTH OUTPUTS [BLOCK] [FILTER] [KERNEL]
// [THREADS]. Texts of random tokens, half to all of LENGTH long, are asked for one of OUTPUTS words; gradients are
// those of the whole model (or of what FILTER keeps), float32. Beside it one backward pass with the weights' gradients
// an example and output, as somebody would make who forms them: timed for some examples, told for all. Seconds are the
// processor's, so that with one thread what else the machine does counts little. JSON, with the peak of memory and what
// was planned.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <ctime>
#include <functional>
#include <string>

#include "bench/bench.h"
#include "whence/core/memory.h"
#include "whence/core/parallel.h"
#include "whence/kernels/kernel_blocks.h"
#include "whence/kernels/parameter_filter.h"
#include "whence/models/language_model.h"
#include "whence/models/ops.h"
#include "whence/stages/stage.h"

using namespace whence;

namespace {

Dataset asked_texts(std::int64_t count, std::int64_t length, std::int64_t outputs, std::int64_t vocabulary) {
  Dataset::Contents contents;
  auto& texts = contents.texts;
  Random random(0);
  texts.lengths = random.uniform({count}, static_cast<double>(length) / 2, static_cast<double>(length) + 1)
                      .floor()
                      .to(at::kLong)
                      .clamp(1, length);
  texts.begins = texts.lengths.cumsum(0) - texts.lengths;
  texts.tokens = random.uniform({texts.lengths.sum().item<std::int64_t>()}, 0, static_cast<double>(vocabulary))
                     .floor()
                     .to(at::kInt);
  texts.asked = texts.lengths - 1;
  texts.words = at::arange(outputs, at::kLong) + 100;
  texts.vocabulary = vocabulary;
  contents.targets = at::arange(count, at::kLong).remainder(outputs);
  for (std::int64_t c = 0; c < outputs; ++c) {
    contents.classes.push_back(std::to_string(c));
  }
  contents.ids = at::arange(count, at::kLong);
  return Dataset(std::move(contents)).to(at::kFloat, at::kCPU);
}

double seconds_of(const std::function<void()>& body) {
  const auto start = std::clock();
  body();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

}  // namespace

int bench_kernels(int argc, char** argv) {
  if (argc < 5) {
    fmt::print(stderr, "usage: whence_bench kernels DIR EXAMPLES LENGTH OUTPUTS [BLOCK] [FILTER] [KERNEL] [THREADS]\n");
    return 2;
  }
  keep_freed_memory();  // as the tool does
  set_threads(argc > 8 ? std::stoll(argv[8]) : 0);
  const std::int64_t examples = std::stoll(argv[2]), outputs = std::stoll(argv[4]);
  const std::shared_ptr<const Model> model = create<Model>(fmt::format("transformer:directory={}", argv[1]));
  const auto* language = dynamic_cast<const LanguageModel*>(model.get());
  const auto data = asked_texts(examples, std::stoll(argv[3]), outputs, language->vocabulary());
  auto stage = begin_stage({.name = "bench", .model = model, .loss = create<Loss>("cross-entropy"), .data = data}, {},
                           Random(0));
  const KernelPoint point{stage.objective, stage.theta, stage.parent,
                          filtered_parameters(stage.objective, stage.theta, stage.parent, argc > 6 ? argv[6] : "all")};
  const auto kernel = create<TangentKernel>(argc > 7 ? argv[7] : "entk");
  const auto plan = plan_kernel(*kernel, point, data, nullptr, {.block = argc > 5 ? std::stoll(argv[5]) : 0});
  fmt::print(stderr, "{}\n", plan.text());

  give_back_freed_memory();
  forget_peak();
  const double before = resident_bytes();
  double kernel_seconds = 0;
  {
    KernelMatrix matrix(plan);
    kernel_seconds = seconds_of([&] { make_kernel(*kernel, point, data, nullptr, plan, matrix); });
  }
  const double held = peak_bytes() - before;

  const auto timed = std::min<std::int64_t>(examples, 4);
  double pass_seconds = 0, tokens = 0;
  for (std::int64_t i = 0; i < timed; ++i) {
    const DerivativeOrder first(1);
    const auto batch = data.batch(i, i + 1);
    tokens += static_cast<double>(batch.inputs.numel());
    const auto tracked = leaves(stage.theta);
    for (std::int64_t c = 0; c < outputs; ++c) {  // a graph each: forward, and backward with the weights' gradients
      pass_seconds +=
          seconds_of([&] { gradient(stage.objective.output(tracked, stage.parent, batch)[0][c], tracked); });
    }
  }
  const double all =
      pass_seconds * static_cast<double>(data.tokens()) / tokens;  // by tokens: examples differ in length
  fmt::print(
      "{{\"examples\": {}, \"tokens\": {}, \"outputs\": {}, \"parameters\": {}, \"block\": {}, \"kernel seconds\": "
      "{:.1f}, "
      "\"passes seconds\": {:.1f}, \"passes timed\": {}, \"ratio\": {:.2f}, \"planned seconds\": {:.1f}, \"peak GB "
      "beside "
      "the model\": {:.2f}, \"planned peak GB\": {:.2f}}}\n",
      examples, data.tokens(), outputs, stage.objective.trained().entries(), plan.block, kernel_seconds, all,
      timed * outputs, kernel_seconds / all, plan.seconds, held / 1e9, plan.peak_bytes() / 1e9);
  return 0;
}
