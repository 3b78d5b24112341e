// What passes over a language model take, beside tests/bench/language/torch_pass.py: whence_bench language DIR B T
// [THREADS] [QUERIES]. Random tokens, one text a row; the median of several runs, in seconds, as JSON; scores of 1, 8
// and 32 queries, at most QUERIES (a query is a vector as long as the model).
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>

#include "bench/bench.h"
#include "whence/core/memory.h"
#include "whence/core/parallel.h"
#include "whence/models/language_model.h"
#include "whence/models/ops.h"
#include "whence/models/per_sample.h"
#include "whence/training/objective.h"

using namespace whence;

namespace {

Dataset random_texts(std::int64_t count, std::int64_t length, std::int64_t vocabulary) {
  Dataset::Contents contents;
  auto& texts = contents.texts;
  Random random(0);
  texts.tokens = random.uniform({count * length}, 0, static_cast<double>(vocabulary)).floor().to(at::kInt);
  texts.lengths = at::full({count}, length, at::kLong);
  texts.begins = at::arange(count, at::kLong) * length;
  texts.targets = at::cat({texts.tokens.slice(0, 1), at::full({1}, -1, at::kInt)});
  texts.targets.index_fill_(0, texts.begins + texts.lengths - 1, -1);
  texts.vocabulary = vocabulary;
  contents.ids = at::arange(count, at::kLong);
  return Dataset(std::move(contents)).to(at::kFloat, at::kCPU);
}

Directions directions(const ParameterSet& theta, std::int64_t count) {
  Random random(1);
  Directions out;
  for (std::size_t i = 0; i < theta.size(); ++i) {
    const auto& value = theta.values()[i];
    out.add(theta.names()[i], random.normal(direction_shape(count, value)).to(value.options()));
  }
  return out;
}

}  // namespace

int bench_language(int argc, char** argv) {
  if (argc < 4) {
    fmt::print(stderr, "usage: whence_bench language DIR B T [THREADS] [QUERIES]\n");
    return 2;
  }
  keep_freed_memory();  // as the tool does
  set_threads(argc > 4 ? std::stoll(argv[4]) : 0);
  const std::shared_ptr<Model> model = create<Model>(fmt::format("transformer:directory={}", argv[1]));
  const auto* language = dynamic_cast<const LanguageModel*>(model.get());
  const auto data = random_texts(std::stoll(argv[2]), std::stoll(argv[3]), language->vocabulary());
  const std::shared_ptr<Loss> loss = create<Loss>("next-token:mean");
  Random random(0);
  const auto batch = data.batch(0, data.size());
  const std::int64_t most = argc > 5 ? std::stoll(argv[5]) : 32;
  fmt::print("{{");
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto theta = model->initial({}, 0, random).to(dtype, at::kCPU);
    const char* name = dtype == at::kFloat ? "float32" : "bfloat16";
    const auto forward = [&] {
      const at::NoGradGuard no_gradient;
      const DerivativeOrder first(1);
      loss->per_example(model->output(theta, batch), batch).mean().item<float>();
    };
    const auto train = [&] {
      const DerivativeOrder first(1);
      const auto tracked = leaves(theta.values());
      gradient(loss->per_example(model->output(theta.with(tracked), batch), batch).mean(), tracked);
    };
    fmt::print("{}\"forward {}\": {:.4f}, \"backward {}\": {:.4f}", dtype == at::kFloat ? "" : ", ", name,
               median_seconds(forward), name, median_seconds(train));
    for (const std::int64_t queries : {1, 8, 32}) {
      if (queries > most) {
        break;
      }
      const auto block = directions(theta, queries);
      const auto seconds =
          median_seconds([&] { per_sample_products(*model, *loss, theta, batch, block).sum().item<float>(); });
      fmt::print(", \"score of {} queries {}\": {:.4f}", queries, name, seconds);
    }
  }
  fmt::print("}}\n");
  return 0;
}
