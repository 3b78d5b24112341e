// Influence through prefixes, prompts and simplices, and through stages that were trained before and after them,
// against a dense recursion that shares no code with the adjoint, and against retraining.
#include <torch/csrc/autograd/autograd.h>

#include "support/some.h"
#include "support/toy_chain.h"
#include "tuning/prefixed.h"
#include "whence/attribution/attribute.h"

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

/// d^2 objective / d (theta, parent)^2, by differentiating each entry of the gradient: no code of the curvature room.
at::Tensor dense_hessian(const Stage& stage) {
  const auto point = leaves(stage.theta), from = leaves(stage.parent);
  auto all = point;
  all.insert(all.end(), from.begin(), from.end());
  const auto& objective = stage.objective;
  const auto batch = objective.data().batch(0, objective.data().size());
  const auto g =
      flatten(gradient(objective.batch_loss(point, from, batch) + objective.penalty(point, from), all, true));
  TensorList rows;
  for (std::int64_t i = 0; i < g.numel(); ++i) {
    rows.push_back(flatten(gradient(g[i], all, false, true)));
  }
  return at::stack(rows);
}

/// The scores of every stage by formulas.md 9.2 with dense matrices.
std::vector<at::Tensor> dense_scores(const Chain& chain, const Dataset& queries, double damping) {
  std::vector<at::Tensor> out, hessians;
  for (const auto& stage : chain) {
    out.push_back(at::zeros({queries.size(), stage.objective.data().size()}, at::kDouble));
    hessians.push_back(dense_hessian(stage));
  }
  for (std::int64_t query = 0; query < queries.size(); ++query) {
    const auto& last = chain.back();
    const auto point = leaves(last.theta), from = leaves(last.parent);
    const auto loss = last.objective.example_losses(point, from, queries.batch(query, query + 1)).sum();
    auto q = flatten(gradient(loss, point, false, true));
    auto omega = flatten(gradient(loss, from));
    for (auto s = chain.size(); s-- > 0;) {
      const auto& stage = chain[s];
      const auto n = count_entries(stage.theta);
      const auto& h = hessians[s];
      const auto v = at::linalg_solve(h.narrow(0, 0, n).narrow(1, 0, n) + damping * at::eye(n, at::kDouble), q);
      for (std::int64_t i = 0; i < stage.objective.data().size(); ++i) {
        const auto at_theta = leaves(stage.theta);
        const auto one =
            stage.objective.example_losses(at_theta, stage.parent, stage.objective.data().batch(i, i + 1)).sum();
        out[s][query][i] = -at::dot(v, flatten(gradient(one, at_theta)));
      }
      if (s == 0) {
        break;
      }
      omega = omega - at::mv(h.narrow(0, n, omega.numel()).narrow(1, 0, n), v);
      const auto& before = chain[s - 1];
      auto moved = leaves(before.theta);
      const auto count = count_entries(moved);
      const auto parent = leaves(before.parent);
      const auto body = before.objective.hand_on(moved, parent);
      REQUIRE(body.names() == stage.objective.parent_layout().names());
      moved.insert(moved.end(), parent.begin(), parent.end());
      const auto pulled = flatten(gradient(body.values(), moved, unflatten(omega, body.values()), false, false));
      q = pulled.narrow(0, 0, count);
      omega = pulled.narrow(0, count, pulled.numel() - count);
    }
  }
  return out;
}

at::Tensor scores(const Chain& chain, std::size_t stage, const Dataset& queries, const char* solver, double damping) {
  const InverseProblem problem{create<Curvature>("hessian"), create<Solver>(solver), {.damping = damping}};
  return score_matrix(chain, stage, *create<Attributor>("influence")->prepare(chain, problem), queries,
                      Measurement::kLoss);
}

void check_dense(const TextChain& made, double damping, double tolerance) {
  const auto truth = dense_scores(made.chain, made.queries, damping);
  for (std::size_t s = 0; s < made.chain.size(); ++s) {
    CAPTURE(s);
    CHECK(relative_error(scores(made.chain, s, made.queries, "direct", damping), truth[s]) < tolerance);
    CHECK(truth[s].abs().max().item<double>() > 1e-7);
  }
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("scores through prefixes, prompts and simplices equal the dense recursion") {
  const std::vector<std::vector<std::string>> chains{
      {"prefix:length=2,deviation=0.5"},
      {"full:proximity=0.3", "prefix:length=2,deviation=0.5"},
      {"prefix:length=2,mlp=2"},
      {"prompt:length=2"},
      {"prefix-simplex:vertices=2,length=2,deviation=0.5,beta=0.3"},
      {"prefix-simplex:vertices=2,length=1,deviation=0.5", "full:proximity=0.3"},
  };
  for (const auto& tunings : test::some(chains, 2)) {
    CAPTURE(fmt::format("{} of {}", tunings.front(), tunings.size()));
    check_dense(TextChain(kNarrow, 1, tunings, 5, 150, 0.05), 0.5, 1e-8);
  }
}

TEST_CASE("scores through a prefix of a transformer of two blocks equal the dense recursion") {
  for (const char* tuning : {"prefix:length=2,deviation=0.5", "prefix-simplex:vertices=2,length=1,deviation=0.5"}) {
    CAPTURE(tuning);
    check_dense(TextChain(test::kRoomyTransformers[0], 2, {tuning}, 4, 60, 0.05), 4, 1e-6);  // far from a minimum
  }
}

TEST_CASE("scores equal central differences of retraining the chain, prefix or simplex last") {
  for (const char* tuning : {"prefix:length=2,deviation=0.5", "prefix-simplex:vertices=2,length=1,deviation=0.5"}) {
    CAPTURE(tuning);
    const TextChain made(kNarrow, 1, {tuning}, 8, 1000, 0.1);
    const double h = 5e-4;
    for (std::size_t s = 0; s < made.chain.size(); ++s) {
      CAPTURE(s);
      const auto found = scores(made.chain, s, made.queries, "cg:relative-tolerance=1e-12", 0)[0];
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
