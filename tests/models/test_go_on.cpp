// A pass that goes on from keys and values against passes over each text whole, in double.
#include <fmt/format.h>

#include "models/language.h"
#include "support/near.h"
#include "whence/core/error.h"

using namespace whence;
using namespace whence::test;

namespace {

const std::vector<std::string> kCausal = {"gpt2",
                                          "gpt-neox",
                                          "gpt-neox-sequential",
                                          "llama",
                                          "qwen2",
                                          "mistral",
                                          "llama-gqa-tied",
                                          "llama-rope-llama3",
                                          "opt",
                                          "bloom",
                                          "qwen3",
                                          "olmo2",
                                          "phi3",
                                          "gemma2",
                                          "gemma3",
                                          "mixtral"};

at::Tensor places(std::initializer_list<std::int64_t> values) { return at::tensor(values, at::kLong); }

/// One row of tokens from its start: states of `layers` and next-token logits at every place.
ContinuationOutput whole(const LanguageCase& c, const at::Tensor& tokens, const std::vector<std::int64_t>& layers) {
  const auto every = at::arange(tokens.size(0), at::kLong);
  return c.language->go_on(c.theta, {.tokens = tokens.unsqueeze(0),
                                     .layers = layers,
                                     .states_at = every,
                                     .predict_at = every,
                                     .attention_at = every,
                                     .keep = true});
}

}  // namespace

TEST_SUITE("models") {
  TEST_CASE("a continuation's numbers are those of the text whole, from any place on") {
    for (const auto& name : kCausal) {
      CAPTURE(name);
      const LanguageCase c(name, Predicts::kEverywhere);
      const auto text =
          c.data.texts().tokens.narrow(0, 0, c.data.texts().lengths[0].item<std::int64_t>()).to(at::kLong);
      const std::vector<std::int64_t> layers{0, c.language->blocks()};
      const auto all = whole(c, text, layers);
      CHECK(relative_error(all.logits, c.model->output(c.theta, c.data.batch(0, 1))) < Tolerance::kDense);
      const auto hidden = c.language->hidden_states(c.theta, c.data.batch(0, 1), layers);
      CHECK(relative_error(all.states[1], hidden[1]) < Tolerance::kDense);
      CHECK(relative_error(all.attention.sum(2), at::ones_like(all.attention.sum(2))) < Tolerance::kSameAlgebra);
      CHECK(all.attention[0].triu(1).abs().max().item<double>() == 0);
      const auto length = text.size(0);
      for (const std::int64_t cut : {std::int64_t{1}, length / 2, length - 1}) {
        const auto beginning = all.cache.first(cut);
        CHECK(beginning.size() == cut);
        const auto rest = length - cut;
        const auto part = c.language->go_on(c.theta, {.tokens = text.slice(0, cut).unsqueeze(0),
                                                      .beginning = &beginning,
                                                      .layers = layers,
                                                      .states_at = at::arange(rest, at::kLong),
                                                      .predict_at = at::arange(rest, at::kLong),
                                                      .attention_at = at::arange(rest, at::kLong),
                                                      .keep = true});
        CHECK(relative_error(part.logits, all.logits.slice(0, cut)) < Tolerance::kDense);
        CHECK(relative_error(part.states, all.states.slice(1, cut)) < Tolerance::kDense);
        CHECK(relative_error(part.attention, all.attention.slice(1, cut)) < Tolerance::kDense);
        CHECK(relative_error(part.cache.keys.back(), all.cache.keys.back()) < Tolerance::kDense);
        CHECK(relative_error(part.cache.values.front(), all.cache.values.front()) < Tolerance::kDense);
      }
    }
  }

  TEST_CASE("rows of any length and branches see their own trunk and nothing else") {
    for (const auto& name : kCausal) {
      CAPTURE(name);
      const LanguageCase c(name, Predicts::kEverywhere);
      const auto beginning_tokens = places({5, 9, 3, 7}), first = places({11, 4}), second = places({6});
      const auto after = [&](std::initializer_list<at::Tensor> parts) {
        return whole(c, at::cat(TensorList(parts)), {c.language->blocks()}).logits[-1];
      };
      const auto cache = whole(c, beginning_tokens, {}).cache;
      // row 0: trunk 11 4, branches 8 2 and 1; row 1: trunk 6, branch 2 2, then padding
      const auto tokens = at::tensor({11, 4, 8, 2, 1, 6, 2, 2, 0, 0}, at::kLong).view({2, 5});
      const auto branches = at::tensor({0, 0, 1, 1, 2, 0, 1, 1, -1, -1}, at::kLong).view({2, 5});
      const auto found = c.language->go_on(
          c.theta,
          {.tokens = tokens, .beginning = &cache, .branches = branches, .predict_at = places({1, 3, 4, 5, 7})});
      CHECK(relative_error(found.logits[0], after({beginning_tokens, first})) < Tolerance::kDense);
      CHECK(relative_error(found.logits[1], after({beginning_tokens, first, places({8, 2})})) < Tolerance::kDense);
      CHECK(relative_error(found.logits[2], after({beginning_tokens, first, places({1})})) < Tolerance::kDense);
      CHECK(relative_error(found.logits[3], after({beginning_tokens, second})) < Tolerance::kDense);
      CHECK(relative_error(found.logits[4], after({beginning_tokens, second, places({2, 2})})) < Tolerance::kDense);
      const auto alone = c.language->go_on(
          c.theta, {.tokens = tokens, .branches = branches, .predict_at = places({3}), .attention_at = places({3})});
      CHECK(relative_error(alone.logits[0], after({first, places({8, 2})})) < Tolerance::kDense);
      CHECK(alone.attention.select(2, 4).abs().max().item<double>() == 0);  // another branch
    }
  }

  TEST_CASE("what cannot go on is said in a line") {
    const LanguageCase gpt("gpt2"), bert("bert-masked");
    const auto tokens = at::zeros({1, 13}, at::kLong);
    CHECK_THROWS_WITH_AS(gpt.language->go_on(gpt.theta, {.tokens = tokens}),
                         "transformer: a text of 13 tokens, expected at most 12", InvalidArgument);
    const auto cache = whole(gpt, places({1, 2, 3}), {}).cache;
    CHECK_THROWS_WITH_AS(gpt.language->go_on(gpt.theta, {.tokens = tokens.slice(1, 0, 10), .beginning = &cache}),
                         "transformer: a text of 13 tokens, expected at most 12", InvalidArgument);
    CHECK_THROWS_WITH_AS(gpt.language->go_on(gpt.theta, {.tokens = tokens.slice(1, 0, 3), .layers = {3}}),
                         "layer 3, expected one of 0 to 2", InvalidArgument);
    CHECK_THROWS_WITH_AS(bert.language->go_on(bert.theta, {.tokens = tokens.slice(1, 0, 3)}),
                         "transformer: a bert model looks both ways, expected a causal one to go on", InvalidArgument);
  }
}
