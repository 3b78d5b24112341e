#include "kernels/points.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/store/score_store.h"

using namespace whence;
using namespace whence::test;

namespace {

/// A store of a training kernel's cells.
std::unique_ptr<ScoreStore> store_in(const std::filesystem::path& folder, const KernelPlan& plan) {
  const auto cells = at::arange(plan.rows * plan.outputs, at::kLong);
  return std::make_unique<ScoreStore>(folder, std::vector<ScoreLayout>{{"scores", cells}}, cells, at::kDouble);
}

/// Passes blocks on and counts them; throws instead of the one after `most`.
class CountingSink : public ScoreSink {
 public:
  CountingSink(ScoreSink& to, int most) : to_(to), most_(most) {}
  bool has(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) const override {
    return to_.has(a, b, c, d);
  }
  void block(std::int64_t first_row, std::int64_t first_column, const at::Tensor& values) override {
    if (blocks == most_) {
      throw Interrupted();
    }
    ++blocks;
    to_.block(first_row, first_column, values);
  }
  int blocks = 0;

 private:
  ScoreSink& to_;
  int most_;
};

}  // namespace

TEST_SUITE_BEGIN("kernels");

TEST_CASE("a run that was interrupted goes on with the blocks that are missing, and ends with the same bits") {
  const auto stage = toy_stage("mlp:widths=4,activation=tanh", 0);
  const auto point = point_of(stage);
  const auto& data = stage.objective.data();
  for (const std::string name : {"entk", "a-signgd"}) {
    CAPTURE(name);
    const auto kernel = create<TangentKernel>(name);
    const auto plan = plan_kernel(*kernel, point, data, nullptr, {.block = 5});
    CHECK(plan.halved == kernel->symmetric());
    KernelMatrix whole(plan);
    make_kernel(*kernel, point, data, nullptr, plan, whole);

    Scratch folder;
    int before = 0;
    {
      const auto store = store_in(folder.folder(), plan);
      CountingSink sink(store->sink("scores"), 4);
      CHECK_THROWS_AS(make_kernel(*kernel, point, data, nullptr, plan, sink), Interrupted);
      before = sink.blocks;
    }
    const auto store = store_in(folder.folder(), plan);
    CountingSink sink(store->sink("scores"), 100);
    make_kernel(*kernel, point, data, nullptr, plan, sink);
    CHECK(before == 4);
    // nine cells of three by three blocks; a block whose mirror image is missing is made again
    CHECK(sink.blocks <= 9 - before + 1);
    CHECK(sink.blocks >= 9 - before);
    store->write(folder.folder() / "train.safetensors", "key");
    const auto read = read_scores(folder.folder() / "train.safetensors").stages.at(0).scores;
    CHECK(read.equal(whole.tensor().view(read.sizes())));
  }
}

TEST_CASE("a plan counts its passes and fits its limit") {
  const KernelCase bench(kTuningCases[3]);
  const auto point = point_of(bench.moved("full"));
  const auto& data = point.objective.data();
  const auto entk = create<TangentKernel>("entk"), asymmetric = create<TangentKernel>("a-signgd");

  const auto one = plan_kernel(*entk, point, data, nullptr);
  CHECK(one.block == 4);
  CHECK(one.forward_passes == 4);
  CHECK(one.backward_passes == 8);
  CHECK(one.matrix_bytes == 8 * 8 * 8);
  CHECK(one.seconds > 0);
  CHECK(one.text().starts_with("4 x 4 examples, 2 outputs, blocks of 4: "));

  const auto pairs = plan_kernel(*entk, point, data, nullptr, {.block = 2});
  CHECK(pairs.forward_passes == 2 + 2 + 2);  // the second block of rows meets the first again
  CHECK(plan_kernel(*asymmetric, point, data, nullptr, {.block = 2}).forward_passes == 8);
  const auto queries = data.take(at::tensor({1, 2, 3}, at::kLong));
  CHECK(plan_kernel(*entk, point, queries, &data, {.block = 2}).forward_passes == (2 + 4) + (1 + 4));

  const auto tight = plan_kernel(*entk, point, data, nullptr, {.bytes = one.peak_bytes() * 0.5});
  CHECK(tight.block < 4);
  CHECK(tight.peak_bytes() <= one.peak_bytes() * 0.5);
  CHECK(kernel_of(*entk, point, data, nullptr, {.bytes = one.peak_bytes() * 0.5}).sizes() ==
        at::IntArrayRef({4, 2, 4, 2}));
}

TEST_CASE("what cannot be made is refused in one line with its sizes") {
  const KernelCase bench(kTuningCases[3]);
  auto point = point_of(bench.moved("full"));
  const auto& data = point.objective.data();
  const auto entk = create<TangentKernel>("entk");
  const auto message = [&](const KernelLimits& limits) -> std::string {
    try {
      plan_kernel(*entk, point, data, nullptr, limits);
    } catch (const InvalidArgument& e) {
      return e.what();
    }
    return "";
  };
  const auto refused = message({.bytes = 100});
  CHECK(refused.starts_with("kernel: a block of 1 example takes 0.0 MB"));
  CHECK(refused.find("of 0.0 MB allowed: allow more memory, or take fewer parameters or shorter texts") !=
        std::string::npos);
  CHECK(message({.bytes = 3000, .block = 3}).starts_with("kernel: a block of 3 examples takes "));
  CHECK(message({.block = 3}).empty());

  point.names = {};
  CHECK_THROWS_WITH_AS(plan_kernel(*entk, point, data, nullptr),
                       "kernel: no parameters to take gradients in, expected at least one", InvalidArgument);
  point.names = {"model.norm.wieght"};
  CHECK_THROWS_AS(plan_kernel(*entk, point, data, nullptr), InvalidArgument);

  const TuningBench tokens(kTuningCases[3]);
  const auto stage = tokens.tuned("full");
  CHECK_THROWS_WITH_AS(plan_kernel(*entk, point_of(stage), stage.objective.data(), nullptr),
                       "kernel: tokens are predicted at every place of a text, 5 outputs each, expected a number of "
                       "outputs an example: give the data label-words, or a head",
                       InvalidArgument);
}

TEST_CASE("filters tell parameters apart by what a pass does with them") {
  const auto names = [](const KernelCase& bench, const std::string& tuning, const std::string& filter) {
    return point_of(bench.moved(tuning), filter).names;
  };
  const KernelCase tied(kTuningCases[2]), untied(kTuningCases[3]), image(kTuningCases[1]);
  using Names = std::vector<std::string>;
  CHECK(names(image, "full", "biases") == Names{"body.0.bias", "body.1.bias", "head.bias"});
  CHECK(names(image, "full", "no-head+biases") == Names{"body.0.bias", "body.1.bias"});
  CHECK(names(image, "lora:rank=2", "tuning").size() == 4);
  CHECK(names(image, "lora:rank=2", "all").size() == 6);
  const auto has = [](const Names& all, const std::string& end) {
    return std::any_of(all.begin(), all.end(), [&](const auto& name) { return name.ends_with(end); });
  };
  CHECK(has(names(tied, "full", "all"), "wte.weight"));
  CHECK_FALSE(has(names(tied, "full", "no-embeddings"), "wte.weight"));
  CHECK_FALSE(has(names(tied, "full", "no-embeddings"), "wpe.weight"));
  CHECK_FALSE(has(names(tied, "full", "no-head"), "wte.weight"));  // which is the head too
  CHECK(has(names(tied, "full", "no-head"), "wpe.weight"));
  CHECK(has(names(untied, "full", "no-embeddings"), "lm_head.weight"));
  CHECK_FALSE(has(names(untied, "full", "no-head"), "lm_head.weight"));
  CHECK(has(names(untied, "full", "no-head"), "embed_tokens.weight"));
  CHECK_THROWS_WITH_AS(parse_parameter_filter("all+no-heads"),
                       "unknown filter of parameters \"no-heads\"; did you mean \"no-head\"? known: all, "
                       "no-embeddings, no-head, biases, tuning, body",
                       InvalidArgument);
  CHECK_THROWS_AS(names(image, "full", "tuning"), InvalidArgument);
}

TEST_SUITE_END();
