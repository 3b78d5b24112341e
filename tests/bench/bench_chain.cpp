// What attribution costs, in units of one training gradient over the same data:
//   whence_bench chain PIPELINE [STAGE]      (a trained pipeline; default: its first stage, float32 and float64)
// Every figure is the median of five, in one run. Keep the machine idle, and set OMP_WAIT_POLICY=passive.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "bench/bench.h"
#include "whence/attribution/attribute.h"
#include "whence/attribution/detail/gradient_source.h"
#include "whence/core/parallel.h"
#include "whence/stages/pipeline.h"

using namespace whence;

namespace {

void measure_stage(const std::string& path, const std::string& stage_name, at::ScalarType dtype) {
  const Pipeline pipeline(path, {.dtype = dtype});
  const auto chain = pipeline.load();
  const auto index = stage_name.empty() ? 0 : pipeline.stage_index(stage_name);
  const auto& stage = chain[index];
  const auto& objective = stage.objective;
  const auto &theta = stage.theta, &parent = stage.parent;
  const auto n = count_entries(theta);
  TensorList gradient;
  const double unit = median_seconds([&] { objective.value(theta, parent, &gradient); });
  fmt::print("{}: stage {}, {} examples, {} parameters, {} threads; one gradient {:.2f} ms\n", c10::toString(dtype),
             stage.name, objective.data().size(), n, threads(), 1e3 * unit);
  const auto print = [&](const std::string& what, double time, double products = 0) {
    fmt::print("  {:<44} {:>9.2f} gradients{}\n", what, time / unit,
               products > 0 ? fmt::format("  ({:.0f} products)", products) : "");
  };
  auto random = Random(1);
  for (const std::int64_t columns : {1, 32}) {
    const auto x = random.normal({columns, n}).to(dtype);
    for (const char* spec : {"hessian", "hessian:graph-bytes=0", "gauss-newton", "gauss-newton:graph-bytes=0"}) {
      const auto a = create<Curvature>(spec)->operator_at({objective, theta, parent});
      print(fmt::format("{} product, {} vector{}", spec, columns, columns == 1 ? "" : "s"),
            median_seconds([&] { a->apply(x); }));
    }
  }
  const auto rows = objective.data().take(at::arange(32));
  const auto solver = create<Solver>("cg:relative-tolerance=1e-3");
  for (const std::int64_t columns : {1, 32}) {
    at::Tensor b = at::empty({columns, n}, theta.front().options()), x;
    for (std::int64_t k = 0; k < columns; ++k) {
      const auto point = leaves(theta);
      b[k] = flatten(whence::gradient(objective.example_losses(point, parent, rows.batch(k, k + 1)).sum(), point));
    }
    const auto a = create<Curvature>("hessian")->operator_at({objective, theta, parent});
    const auto inverse = solver->prepare({a, {Inversion::kDamped, 1e-3}});
    inverse->apply(b, x, {});
    const double products = a->products();
    print(fmt::format("cg solve to 1e-3, damping 1e-3, {} quer{}", columns, columns == 1 ? "y" : "ies"),
          median_seconds([&] { inverse->apply(b, x, {}); }), products);
  }
  class Discard : public ScoreSink {
   public:
    bool has(std::int64_t, std::int64_t, std::int64_t, std::int64_t) const override { return false; }
    void block(std::int64_t, std::int64_t, const at::Tensor&) override {}
  };
  /// The same directions whatever is asked: what is left is the scoring pass.
  class Fixed : public whence::detail::GradientSource {
   public:
    Fixed(const Chain& chain, std::size_t at, at::Tensor v)
        : GradientSource(chain), stages_(chain.size()), at_(at), vectors_(std::move(v)) {}
    std::vector<QueryDirections> directions(const QueryBlock& queries, const std::vector<std::size_t>&,
                                            const Progress&) override {
      std::vector<QueryDirections> out(stages_);
      out[at_].points = {directions_of(vectors_.narrow(0, 0, queries.size()), points(at_).front().model)};
      return out;
    }

   private:
    std::size_t stages_, at_;
    at::Tensor vectors_;
  };
  Discard sink;
  const auto queries = pipeline.queries(pipeline.query_splits().front());
  const auto merged = count_entries(objective.merge(theta, parent).values());
  for (const std::int64_t count : {std::int64_t{1}, std::min<std::int64_t>(32, queries.size())}) {
    Fixed source(chain, index, random.normal({count, merged}).to(dtype));
    const auto some = queries.take(at::arange(count));
    print(fmt::format("scoring all examples, {} quer{}", count, count == 1 ? "y" : "ies"), median_seconds([&] {
            attribute({chain, {index}, {&sink}, some, Measurement::kLoss}, source, {}, {});
          }));
  }
}

}  // namespace

int bench_chain(int count, char** values) {
  if (count < 2) {
    fmt::print(stderr, "usage: whence_bench chain PIPELINE [STAGE]\n");
    return 2;
  }
  set_threads(0);
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    measure_stage(values[1], count > 2 ? values[2] : "", dtype);
  }
  return 0;
}
