// What every registered method must do, whatever it is.
#include <torch/csrc/autograd/autograd.h>

#include "attribution/made.h"
#include "whence/core/parallel.h"

using namespace whence;
using test::relative_error;

namespace {

template <class Body>
void for_every_method(const Body& body) {
  for (const auto& method : methods<Attributor>()) {
    CAPTURE(method.name);
    body(std::string(method.name));
  }
}

/// The chain with every pass and every number in float32.
Chain in_float32(Chain chain) {
  const auto narrow = [](TensorList& values) {
    for (auto& value : values) {
      value = value.to(at::kFloat);
    }
  };
  for (auto& stage : chain) {
    stage.objective = stage.objective.to(at::kFloat);
    narrow(stage.theta);
    narrow(stage.parent);
    for (auto& snapshot : stage.trajectory) {
      narrow(snapshot.theta);
    }
  }
  return chain;
}

}  // namespace

TEST_SUITE_BEGIN("attribution");

TEST_CASE("any batch size, query block, example order and thread count give the same scores, by every method") {
  const struct Restore {
    std::int64_t before = threads();
    ~Restore() { set_threads(before); }
  } restore;
  const auto chain = test::traced_chain(test::kTwoStages);
  const auto queries = test::toy_data("cross-entropy", 5, 3, Random(99));
  for_every_method([&](const std::string& method) {
    for (std::size_t s = 0; s < 2; ++s) {
      const auto expected = test::scores_of(chain, s, queries, method);
      for (const std::int64_t batch : {1, 5, 7, 12}) {
        auto other = chain;
        for (auto& stage : other) {
          stage.objective = stage.objective.with_batch_size(batch);
        }
        CHECK(relative_error(test::scores_of(other, s, queries, method), expected) < 1e-10);
      }
      TensorList alone;
      for (std::int64_t q = 0; q < 5; ++q) {
        alone.push_back(test::scores_of(chain, s, queries.take(at::tensor({q})), method));
      }
      CHECK(relative_error(at::cat(alone), expected) < 1e-10);
      auto shuffled = chain;
      const auto order = Random(6).permutation(12);
      const auto& old = chain[s].objective;
      shuffled[s].objective = Objective(create<Model>("mlp:widths=4,activation=tanh"), create<Loss>("cross-entropy"),
                                        create<Tuning>(test::kTwoStages[s].tuning), old.data().take(order),
                                        old.weight_decay(), old.trained(), old.parent_layout(), 5);
      CHECK(relative_error(test::scores_of(shuffled, s, queries, method), expected.index_select(1, order)) < 1e-10);
      set_threads(1);
      CHECK(relative_error(test::scores_of(chain, s, queries, method), expected) < 1e-10);
      set_threads(2);
      CHECK(at::equal(test::scores_of(chain, s, queries, method), expected));
    }
  });
}

TEST_CASE("float32 gives the scores of float64, through both stages, by every method") {
  const auto chain = test::traced_chain(test::kTwoStages);
  const auto narrow = in_float32(chain);
  const auto queries = test::toy_data("cross-entropy", 2, 3, Random(99));
  for_every_method([&](const std::string& method) {
    CHECK(relative_error(test::scores_of(narrow, 0, queries.to(at::kFloat, at::kCPU), method),
                         test::scores_of(chain, 0, queries, method)) < test::Tolerance::kFloat);
  });
}

TEST_CASE("every method but a baseline gives an example that is the query a negative score on its loss") {
  const auto chain = test::traced_chain(test::kTwoStages);
  const auto& data = chain[1].objective.data();
  for_every_method([&](const std::string& method) {
    if (create<Attributor>(method)->claim() == Claim::kNothing) {
      return;
    }
    CHECK(test::scores_of(chain, 1, data, method).diagonal().max().item<double>() < 0);
    // and on its margin a positive one: to weigh more is to be fitted better
    CHECK(test::scores_of(chain, 1, data, method, Measurement::kMargin).diagonal().min().item<double>() > 0);
  });
}

TEST_CASE("what a cache kept scores the same in a later run, by every method") {
  const auto chain = test::traced_chain(test::kTwoStages);
  const auto queries = test::toy_data("cross-entropy", 5, 3, Random(99));
  for_every_method([&](const std::string& method) {
    std::map<std::string, ParameterSet> kept;
    const auto cache = test::cache_in(kept);
    const auto first = test::prepared(chain, method), later = test::prepared(chain, method);
    test::MemorySink a(5, 12), b(5, 12);
    attribute({chain, {0}, {&a}, queries, Measurement::kLoss, 2}, *first, cache, {});
    CHECK(kept.size() == 3);
    attribute({chain, {0}, {&b}, queries, Measurement::kLoss, 2}, *later, cache, {});
    CHECK(at::equal(a.values, b.values));
    for (auto& [block, vectors] : kept) {  // what another version kept is not taken for this one's
      vectors = {{"products", at::zeros({2}, at::kDouble)}, {"vectors.0", at::zeros({2, 3})}};
    }
    test::MemorySink c(5, 12);
    attribute({chain, {0}, {&c}, queries, Measurement::kLoss, 2}, *test::prepared(chain, method), cache, {});
    CHECK(at::equal(a.values, c.values));
  });
}

TEST_CASE("a stage between that trains its head alone cannot be felt by gradients: its examples score 0") {
  const auto chain = test::traced(
      test::toy_chain({{"full", "cross-entropy"}, {"head", "cross-entropy"}, {"full:proximity=0.3", "cross-entropy"}}));
  const auto queries = test::toy_data("cross-entropy", 5, 3, Random(99));
  for (const char* method : {"grad-dot", "grad-cos", "tracin", "influence"}) {
    CAPTURE(method);
    const auto scores = test::scores_of(chain, 1, queries, method);
    CHECK(scores.abs().max().item<double>() == 0);
    CHECK(test::scores_of(chain, 0, queries, method).abs().max().item<double>() > 0);
  }
}

TEST_CASE("every method says what it looks at and what it costs") {
  const auto chain = test::traced_chain(test::kTwoStages);
  for_every_method([&](const std::string& method) {
    const auto made = test::prepared(chain, method);
    for (std::size_t s = 0; s < 2; ++s) {
      const auto& trained = chain[s].objective.trained();
      for (const auto& name : made->parameters(s)) {
        CHECK(trained.contains(name));
      }
      const auto cost = made->cost(s, 4);
      CHECK(cost.passes_once >= 0);
      CHECK(cost.passes_once + cost.passes_a_block >= 0);
      CHECK(cost.bytes_a_query > 0);
    }
    const bool gradients = method != "random" && method != "rep-sim";
    CHECK(made->parameters(1).size() == (gradients ? chain[1].objective.trained().size() : 0));
  });
}

TEST_SUITE_END();
