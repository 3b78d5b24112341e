// Influence through prefixes, prompts and simplices, and through stages that were trained before and after them,
// against a dense recursion that shares no code with the adjoint, and against retraining.
#include <torch/csrc/autograd/autograd.h>

#include "stages/chain_truth.h"
#include "support/some.h"
#include "tuning/prefixed.h"

using namespace whence;
using test::relative_error;

namespace {

/// Heads of one dimension: none of the rotations that would leave a longer one's outputs as they are.
const test::RoomyTransformer kNarrow{
    "gpt2", "next-token",
    R"({{"model_type": "gpt2", "vocab_size": {0}, "n_positions": 8, "n_embd": 3, "n_layer": {1}, "n_head": 3,
         "n_inner": 3, "initializer_range": 0.6}})"};

/// Random texts of one to four tokens, their next tokens or one of three classes predicted.
Dataset some_texts(bool classes, std::int64_t count, Random random) {
  Dataset::Contents contents;
  auto& texts = contents.texts;
  texts.lengths = random.uniform({count}, 1, 5).floor().to(at::kLong);
  texts.begins = texts.lengths.cumsum(0) - texts.lengths;
  texts.tokens = random.uniform({texts.lengths.sum().item<std::int64_t>()}, 0, 5).floor().to(at::kInt);
  texts.vocabulary = 5;
  if (classes) {
    contents.targets = random.uniform({count}, 0, 3).floor().to(at::kLong);
    contents.classes = {"a", "b", "c"};
  } else {
    texts.targets = at::cat({texts.tokens.slice(0, 1), at::full({1}, -1, at::kInt)});
    texts.targets.index_fill_(0, texts.begins + texts.lengths - 1, -1);
  }
  contents.ids = at::arange(count, at::kLong) * 3;
  return Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
}

void settle(Stage& stage, std::int64_t iterations) {
  const auto optimizer =
      create<Optimizer>(fmt::format("lbfgs:max-iterations={},tolerance=1e-13,history=50", iterations));
  TrainingState state{clone(stage.theta), 0, {}};
  optimizer->minimise(stage.objective, stage.parent, state, Random(0), {});
  stage.theta = detach(state.theta);
}

/// A pretrained model of next tokens, then stages of classes with these tunings, in double.
struct TextChain {
  TextChain(const test::RoomyTransformer& family, std::int64_t blocks, const std::vector<std::string>& tunings,
            std::int64_t examples, std::int64_t iterations, double pretraining_decay) {
    folder.put("config.json", fmt::format(fmt::runtime(family.config), 5, blocks));
    const std::shared_ptr<const Model> model = create<Model>("transformer:directory=" + folder.folder().string());
    const Random random(3);
    for (std::size_t k = 0; k <= tunings.size(); ++k) {
      const auto draws = random.stream(fmt::format("stage {}", k));
      chain.push_back(begin_stage({.name = fmt::format("stage{}", k),
                                   .model = model,
                                   .loss = create<Loss>(k == 0 ? "next-token" : "cross-entropy"),
                                   .tuning = create<Tuning>(k == 0 ? "full" : tunings[k - 1]),
                                   .data = some_texts(k > 0, examples, draws.stream("data")),
                                   .weight_decay = k == 0 ? pretraining_decay : 0.05,
                                   .batch_size = 100},
                                  chain, draws));
      settle(chain.back(), iterations);
    }
    queries = some_texts(true, 2, random.stream("queries"));
  }

  test::Scratch folder;
  Chain chain;
  Dataset queries;
};

void check_dense(const TextChain& made, double damping, double tolerance) {
  const auto truth = test::dense_scores(made.chain, made.queries, test::damped_inverse(damping), false);
  test::check_apart(made.chain);
  const auto scores = test::Inverter("hessian", "direct", {.damping = damping}).scores_of_all(made.chain, made.queries);
  for (std::size_t s = 0; s < made.chain.size(); ++s) {
    CAPTURE(s);
    CHECK(relative_error(scores[s], truth[s]) < tolerance);
    CHECK(truth[s].abs().max().item<double>() > 1e-7);
  }
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("scores through prefixes, prompts and simplices equal the dense recursion") {
  const std::vector<std::vector<std::string>> chains{
      {"full:proximity=0.3", "prefix:length=2,deviation=0.5"},
      {"prefix:length=2,mlp=2"},
      {"prompt:length=2"},
      {"prefix-simplex:vertices=2,length=2,deviation=0.5,beta=0.3", "full:proximity=0.3"},
  };
  for (const auto& tunings : test::some(chains, 2)) {
    CAPTURE(fmt::format("{} of {}", tunings.front(), tunings.size()));
    check_dense(TextChain(kNarrow, 1, tunings, 5, 40, 0.05), 0.5, 1e-8);
  }
}

TEST_CASE("scores through a prefix of a transformer of two blocks equal the dense recursion") {
  for (const char* tuning : {"prefix:length=2,deviation=0.5", "prefix-simplex:vertices=2,length=1,deviation=0.5"}) {
    CAPTURE(tuning);
    check_dense(TextChain(test::kRoomyTransformers[0], 2, {tuning}, 4, 20, 0.05), 4, 1e-6);  // far from a minimum
  }
}

TEST_CASE("scores equal central differences of retraining the chain, prefix or simplex last") {
  for (const char* tuning : {"prefix:length=2,deviation=0.5", "prefix-simplex:vertices=2,length=1,deviation=0.5"}) {
    CAPTURE(tuning);
    const TextChain made(kNarrow, 1, {tuning}, 8, 500, 0.1);
    const auto scores = test::Inverter("hessian", "cg:relative-tolerance=1e-12,max-iterations=5000")
                            .scores_of_all(made.chain, made.queries);
    const double h = 5e-4;
    for (std::size_t s = 0; s < made.chain.size(); ++s) {
      CAPTURE(s);
      const auto& found = scores[s][0];
      for (const std::int64_t row : {4}) {
        double f[2];
        for (int side = 0; side < 2; ++side) {
          auto weights = at::ones({8}, at::kDouble);
          weights[row] = 1 + (side == 0 ? h : -h);
          f[side] = measure_all(Measurement::kLoss, test::retrained(made.chain, s, weights).back(), made.queries)[0]
                        .item<double>();
        }
        const double truth = (f[0] - f[1]) / (2 * h) * 8;
        CAPTURE(truth);
        CHECK(std::abs(found[row].item<double>() - truth) <= 1e-5 * found.abs().max().item<double>());
      }
    }
  }
}

TEST_SUITE_END();
