// Prefixes and prompts against models that hold them in other ways, and their derivatives against plain autograd.
#include "tuning/prefixed.h"
#include "whence/core/derivative_check.h"
#include "whence/core/error.h"
#include "whence/curvature/curvature.h"
#include "whence/models/ops.h"
#include "whence/models/per_sample.h"

using namespace whence;
using namespace whence::test;

namespace {

std::vector<AttentionSite> sites_of(const Roomy& roomy) {
  Tape tape;
  roomy.model->output(roomy.fresh, roomy.data.batch(0, 1), &tape);
  return tape.attention;
}

/// The prefix in theta as what tokens before every text have left in each block.
KeyValueCache cache_of(const Roomy& roomy, const ParameterSet& theta) {
  KeyValueCache out;
  for (const auto& site : sites_of(roomy)) {
    TensorList keys, values;
    for (std::int64_t g = 0; g < site.key_heads; ++g) {
      keys.push_back(theta.at(fmt::format("tuning.{}.prefix_key.{}", site.module, g)));
      values.push_back(theta.at(fmt::format("tuning.{}.prefix_value.{}", site.module, g)));
    }
    out.keys.push_back(at::stack(keys).unsqueeze(0));
    out.values.push_back(at::stack(values).unsqueeze(0));
  }
  return out;
}

const std::vector<std::string> kBefore = {"prefix:length=3", "prompt:length=3", "prefix-simplex:vertices=3,length=2"};

}  // namespace

TEST_SUITE("tuning") {
  TEST_CASE("a prefix is keys and values before every text, packed, padded or alone, by either kernel") {
    for (const auto& family : kRoomyTransformers) {
      CAPTURE(family.name);
      const Roomy roomy(family);
      const auto theta = roomy.tuned("prefix:length=3");
      const auto packed = roomy.data.batch(0, 4), padded = roomy.data.without_packing().batch(0, 4);
      REQUIRE(packed.inputs.size(0) == 3);
      const auto found = roomy.model->output(theta, packed);
      CHECK(relative_error(found, roomy.model->output(roomy.fresh, packed)) > 1e-3);
      CHECK(relative_error(found, roomy.model->output(theta, padded)) < Tolerance::kSameAlgebra);
      {
        const DerivativeOrder first(1);
        CHECK(relative_error(found, roomy.model->output(theta, packed)) < Tolerance::kSameAlgebra);
        CHECK(relative_error(found, roomy.model->output(theta, padded)) < Tolerance::kSameAlgebra);
      }
      Tape tape;
      CHECK(relative_error(found, roomy.model->output(theta, packed, &tape)) < Tolerance::kSameAlgebra);
      TensorList alone;
      for (std::int64_t i = 0; i < 4; ++i) {
        alone.push_back(roomy.model->output(theta, roomy.data.batch(i, i + 1)));
      }
      CHECK(relative_error(found, at::cat(alone)) < Tolerance::kSameAlgebra);
    }
  }

  TEST_CASE("a causal model with a prefix is the model going on from the prefix as its beginning") {
    for (const auto& family : {kRoomyTransformers[0], kRoomyTransformers[1]}) {
      CAPTURE(family.name);
      const Roomy roomy(family);
      const auto theta = roomy.tuned("prefix:length=3");
      const auto cache = cache_of(roomy, theta);
      const auto* language = dynamic_cast<const LanguageModel*>(roomy.model.get());
      TensorList expected, of_prefix;
      for (std::int64_t i = 0; i < 4; ++i) {
        const auto one = roomy.data.batch(i, i + 1);
        expected.push_back(
            language
                ->go_on(roomy.parent, {.tokens = one.inputs, .beginning = &cache, .predict_at = one.text->predicted})
                .logits);
        of_prefix.push_back(language->go_on(theta, {.tokens = one.inputs, .predict_at = one.text->predicted}).logits);
      }
      const auto found = roomy.model->output(theta, roomy.data.batch(0, 4));
      CHECK(relative_error(found, at::cat(expected)) < Tolerance::kSameAlgebra);
      CHECK(relative_error(found, at::cat(of_prefix)) < Tolerance::kSameAlgebra);
    }
  }

  TEST_CASE("attention with a prefix is attention to the keys and values joined, of models that look both ways too") {
    const Roomy roomy(kRoomyTransformers[3]);
    const auto theta = roomy.tuned("prefix:length=3");
    const auto site = sites_of(roomy).front();
    const auto cache = cache_of(roomy, theta);
    Random random(4);
    const auto q = random.normal({2, 2, 4, 2}), k = random.normal({2, 2, 4, 2}), v = random.normal({2, 2, 4, 2});
    const auto mask = at::tensor({1, 1, 1, 0, 1, 1, 0, 0}, at::kLong).view({2, 1, 1, 4}).expand({2, 1, 4, 4}).eq(1);
    const auto joined = [](const at::Tensor& before, const at::Tensor& x) {
      return at::cat({before.expand({2, -1, -1, -1}), x}, 2);
    };
    const auto seen = at::cat({at::ones({2, 1, 4, 3}, at::kBool), mask}, 3);
    const auto expected = attention(q, joined(cache.keys[0], k), joined(cache.values[0], v), seen, false, 0.7);
    CHECK(relative_error(attention(theta, site.module, q, k, v, mask, false, 0.7, nullptr), expected) <
          Tolerance::kSameAlgebra);
    const auto all = attention(q, joined(cache.keys[0], k), joined(cache.values[0], v), {}, false, 0.7);
    CHECK(relative_error(attention(theta, site.module, q, k, v, {}, false, 0.7, nullptr), all) <
          Tolerance::kSameAlgebra);
    AttentionLogits own(0.7);  // places behind the prefix's, and a cap
    own.softcap = 1.5;
    own.slopes = at::tensor({0.5, 0.25}, at::kDouble);
    auto of_all = own;
    of_all.key_places = at::arange(7, at::kLong).unsqueeze(0);
    own.key_places = of_all.key_places.narrow(1, 3, 4);
    const auto sloped = attention(q, joined(cache.keys[0], k), joined(cache.values[0], v), seen, false, of_all);
    CHECK(relative_error(sloped, expected) > 1e-3);
    CHECK(relative_error(attention(theta, site.module, q, k, v, mask, false, own, nullptr), sloped) <
          Tolerance::kSameAlgebra);
    const DerivativeOrder first(1);
    CHECK(relative_error(attention(theta, site.module, q, k, v, mask, false, 0.7, nullptr), expected) <
          Tolerance::kSameAlgebra);
    CHECK(relative_error(attention(theta, site.module, q, k, v, mask, false, own, nullptr), sloped) <
          Tolerance::kSameAlgebra);
  }

  TEST_CASE("a prompt is tokens of its own before every text, of a larger vocabulary") {
    constexpr std::int64_t kLength = 3;
    auto families = kRoomyTransformers;
    families.push_back({"gemma2: tokens, not a prompt's vectors, are embedded twice as large", "next-token",
                        R"({{"model_type": "gemma2", "vocab_size": {0}, "max_position_embeddings": 9, "hidden_size": 4,
                             "num_hidden_layers": {1}, "num_attention_heads": 2, "num_key_value_heads": 1,
                             "head_dim": 2, "intermediate_size": 3, "sliding_window": 3}})"});
    for (const auto& family : families) {
      CAPTURE(family.name);
      const Roomy roomy(family), larger(family, false, 2, 5 + kLength);
      const auto theta = roomy.tuned(fmt::format("prompt:length={}", kLength));
      const double scale = family.name.starts_with("gemma2") ? 2 : 1;
      TensorList values;
      for (const auto& name : larger.fresh.names()) {
        const auto& value = roomy.fresh.at(name);
        if (value.size(0) == larger.fresh.at(name).size(0)) {
          values.push_back(value);
          continue;
        }
        const auto prompt = "tuning." + name.substr(0, name.rfind('.')) + ".prompt";
        auto shape = value.sizes().vec();
        shape[0] = kLength;
        values.push_back(
            at::cat({value, theta.contains(prompt) ? theta.at(prompt) / scale : at::zeros(shape, value.options())}));
      }
      const auto wide = larger.fresh.with(values);
      const auto expected = larger.model->output(wide, larger.data.without_packing().batch(0, 4)).narrow(1, 0, 5);
      for (const auto& data : {roomy.data, roomy.data.without_packing()}) {
        CHECK(relative_error(roomy.model->output(theta, data.batch(0, 4)), expected) < Tolerance::kSameAlgebra);
      }
      const auto* language = dynamic_cast<const LanguageModel*>(roomy.model.get());
      const auto* of_larger = dynamic_cast<const LanguageModel*>(larger.model.get());
      const auto one = roomy.data.batch(1, 2), long_one = larger.data.batch(1, 2);
      const auto states = language->hidden_states(theta, one, {0, 2});
      const auto long_states = of_larger->hidden_states(wide, long_one, {0, 2});
      for (const std::size_t k : {0U, 1U}) {
        CHECK(relative_error(states[k], long_states[k].slice(0, kLength)) < Tolerance::kSameAlgebra);
      }
    }
  }

  TEST_CASE("a head of classes reads the last token behind a prompt, or its first vector") {
    for (const auto& family : {kRoomyTransformers[0], kRoomyTransformers[3]}) {
      CAPTURE(family.name);
      const Roomy roomy(family, /*classes=*/true), larger(family, true, 2, 5 + 2);
      const auto theta = roomy.tuned("prompt:length=2,start=vocabulary");
      const auto prompt = theta.select("tuning.").values().front();
      const auto vocabulary = roomy.parent.values().front();
      for (const std::int64_t p : {0, 1}) {  // each vector is a token's
        CHECK((vocabulary - prompt[p]).abs().sum(1).min().item<double>() == 0);
      }
      auto values = roomy.fresh.values();
      values.front() = at::cat({vocabulary, prompt});
      const auto expected = larger.model->output(larger.fresh.with(values), larger.data.batch(0, 4));
      CHECK(relative_error(roomy.model->output(theta, roomy.data.batch(0, 4)), expected) < Tolerance::kSameAlgebra);
    }
  }

  TEST_CASE("of length 0 they are the parent's body with a new head, to the bit") {
    const Roomy roomy(kRoomyTransformers[0], /*classes=*/true);
    const auto batch = roomy.data.batch(0, 4);
    const auto expected = roomy.model->output(roomy.fresh, batch);
    for (const char* spec : {"prefix:length=0", "prompt:length=0"}) {
      CAPTURE(spec);
      const auto theta = roomy.tuned(spec);
      CHECK(theta.names() == roomy.fresh.names());
      CHECK(at::equal(roomy.model->output(theta, batch), expected));
    }
    CHECK_THROWS_WITH_AS(Roomy(kRoomyTransformers[0]).tuned("prefix:length=0"),
                         doctest::Contains("there is nothing to train"), InvalidArgument);
  }

  TEST_CASE("outputs pass the derivative check in what is tuned and in the body, to the second order and mixed") {
    for (const auto& family : {kRoomyTransformers[1], kRoomyTransformers[3]}) {
      for (const auto& spec : {kBefore[0], kBefore[1], kBefore[2], std::string("prefix:length=2,mlp=3")}) {
        CAPTURE(family.name);
        CAPTURE(spec);
        const Roomy roomy(family, /*classes=*/true, 1);
        const auto tuning = create<Tuning>(spec);
        const auto tuned = roomy.start(*tuning);
        const auto along = [](const ParameterSet& of, std::int64_t count) {
          return directions_of(Random(3).normal({count, of.entries()}), of);
        };
        const auto along_tuned = along(tuned, 4), along_parent = along(roomy.parent, 3);
        const auto moved = [](const ParameterSet& from, const Directions& directions, const at::Tensor& steps) {
          TensorList values;
          for (std::size_t i = 0; i < from.size(); ++i) {
            values.push_back(from.values()[i] + at::tensordot(0.05 * steps, directions.values()[i], {0}, {0}));
          }
          return from.with(std::move(values));
        };
        const auto batch = roomy.data.as_sampled().batch(0, 4);
        const auto errors = check_derivatives(
            [&](const TensorList& x, const TensorList& y) {
              const auto theta =
                  tuning->merge(moved(roomy.parent, along_parent, y[0]), moved(tuned, along_tuned, x[0]));
              return roomy.loss->per_example(roomy.model->output(theta, batch), batch).sum();
            },
            {at::zeros({4}, at::kDouble)}, {at::zeros({3}, at::kDouble)});
        CHECK(errors.gradient < Tolerance::kDifferences);
        CHECK(errors.hessian_product < Tolerance::kDifferences);
        CHECK(errors.mixed_product < Tolerance::kDifferences);
      }
    }
  }

  TEST_CASE("per-sample and per-token products and norms are the loop's, in all parameters") {
    for (const auto& family : kRoomyTransformers) {
      for (const auto& spec : kBefore) {
        CAPTURE(family.name);
        CAPTURE(spec);
        const Roomy roomy(family);
        const auto theta = roomy.tuned(spec);
        for (const auto& data : {roomy.data.as_sampled(), roomy.data, roomy.data.as_sampled().without_packing()}) {
          const auto batch = data.batch(0, 4);
          const auto rows = example_gradients(roomy, theta, batch);
          for (const std::int64_t count : {1, 3, 40}) {
            const auto block = Random(3).normal({count, theta.entries()});
            const auto directions = directions_of(block, theta);
            const auto products = per_sample_products(*roomy.model, *roomy.loss, theta, batch, directions);
            CHECK(relative_error(products, at::mm(block, rows.t())) < Tolerance::kDense);
            if (count == 1) {
              const auto by_token = per_token_products(*roomy.model, *roomy.loss, theta, batch, directions);
              CHECK(relative_error(sum_rows(batch.text->tokens, by_token), products[0]) < Tolerance::kDense);
            }
          }
          const auto norms = per_sample_squared_norms(*roomy.model, *roomy.loss, theta, batch, theta.names());
          CHECK(relative_error(norms, rows.square().sum(1)) < Tolerance::kDense);
        }
      }
    }
  }

  TEST_CASE("only what is trained is trained, and layers cover a prefix") {
    for (const auto& spec : kBefore) {
      CAPTURE(spec);
      const Roomy roomy(kRoomyTransformers[1], /*classes=*/true);
      const std::shared_ptr<const Tuning> tuning = create<Tuning>(spec);
      const auto tuned = roomy.start(*tuning);
      for (const auto& name : tuned.names()) {
        CHECK((name.starts_with("tuning.") || name.starts_with("head.")));
      }
      const auto expected = 0.5 * 0.3 * flatten(tuned.values()).square().sum();
      CHECK(relative_error(tuning->penalty(roomy.parent, tuned, 0.3), expected) < Tolerance::kSameAlgebra);
      const std::shared_ptr<const Model> model =
          create<Model>("transformer:directory=" + roomy.folder.folder().string());
      const std::shared_ptr<const Loss> loss = create<Loss>("cross-entropy");
      const Objective objective(model, loss, tuning, roomy.data, 0.3, tuned, roomy.parent, 2);
      CHECK(covered_by_layers({objective, tuned.values(), roomy.parent.values()}) == spec.starts_with("prefix"));
    }
  }

  TEST_CASE("a prefix that a network makes is what PEFT's layout reads off it, and is handed on as keys and values") {
    const Roomy roomy(kRoomyTransformers[1], /*classes=*/true);
    const auto tuning = create<Tuning>("prefix:length=3,mlp=5");
    const auto tuned = roomy.start(*tuning);
    const auto merged = tuning->merge(roomy.parent, tuned);
    const auto hidden =
        at::tanh(at::mm(tuned.at("tuning.prefix.embedding"), tuned.at("tuning.prefix.down.weight").t()) +
                 tuned.at("tuning.prefix.down.bias"));
    const auto made = at::mm(hidden, tuned.at("tuning.prefix.up.weight").t()) + tuned.at("tuning.prefix.up.bias");
    const auto sites = sites_of(roomy);
    const auto parts =
        made.view({3, 2 * static_cast<std::int64_t>(sites.size()), sites[0].key_heads, sites[0].head_width});
    for (std::int64_t l = 0; l < static_cast<std::int64_t>(sites.size()); ++l) {
      for (std::int64_t g = 0; g < sites[0].key_heads; ++g) {
        const auto& module = sites[static_cast<std::size_t>(l)].module;
        CHECK(relative_error(merged.at(fmt::format("tuning.{}.prefix_key.{}", module, g)),
                             parts.select(1, 2 * l).select(1, g)) < Tolerance::kSameAlgebra);
        CHECK(relative_error(merged.at(fmt::format("tuning.{}.prefix_value.{}", module, g)),
                             parts.select(1, 2 * l + 1).select(1, g)) < Tolerance::kSameAlgebra);
      }
    }
    const auto body = tuning->hand_on(roomy.model->head(), roomy.parent, tuned);
    CHECK_FALSE(body.contains("tuning.prefix.embedding"));
    const auto batch = roomy.data.batch(0, 4);
    CHECK(at::equal(roomy.model->output(body.join(roomy.model->head().of(roomy.fresh)), batch),
                    roomy.model->output(merged, batch)));
  }

  TEST_CASE("of more than ten blocks what is handed on is in their order, which is not their names'") {
    const Roomy roomy(kRoomyTransformers[0], /*classes=*/true, 11);
    for (const char* spec : {"prefix:length=1", "prefix:length=1,mlp=2", "prefix-simplex:vertices=2,length=1"}) {
      CAPTURE(spec);
      const auto tuning = create<Tuning>(spec);
      const auto body = tuning->hand_on(roomy.model->head(), roomy.parent, roomy.start(*tuning));
      std::vector<std::string> found, expected;
      for (const auto& name : body.names()) {
        if (name.ends_with(".prefix_key.0")) {
          found.push_back(name);
        }
      }
      for (const auto& site : sites_of(roomy)) {
        expected.push_back(fmt::format("tuning.{}.prefix_key.0", site.module));
      }
      CHECK(found == expected);
    }
  }

  TEST_CASE("what does not fit is refused in one line") {
    const Roomy roomy(kRoomyTransformers[0]);
    const auto prefix = create<Tuning>("prefix:length=3");
    CHECK_THROWS_WITH_AS(roomy.start(*prefix, {}), doctest::Contains("prefix: it stands before the texts of a body"),
                         InvalidArgument);
    const auto mlp = create<Model>("mlp:widths=4");
    Random random(1);
    const auto theta = mlp->initial({5}, 2, random);
    for (const auto& [spec, message] : {std::pair{"prefix", "prefix: no attention in the model"},
                                        {"prefix-simplex", "prefix-simplex: no attention in the model"},
                                        {"prompt", "prompt: no embedding of tokens in the model"}}) {
      CHECK_THROWS_WITH_AS(
          create<Tuning>(spec)->trainable({theta, mlp->head().body(theta), mlp->head(), [] { return Tape(); }}, random),
          doctest::Contains(message), InvalidArgument);
    }
    const auto body = prefix->hand_on(roomy.model->head(), roomy.parent, roomy.start(*prefix));
    CHECK_THROWS_WITH_AS(roomy.start(*prefix, body), doctest::Contains("a stage before has put a prefix at"),
                         InvalidArgument);
    CHECK_THROWS_WITH_AS(roomy.model->output(roomy.tuned("prefix:length=6"), roomy.data.batch(0, 4)),
                         "transformer: a text of 4 tokens behind 6 of a prefix or prompt, expected at most 3",
                         InvalidArgument);
    const auto* language = dynamic_cast<const LanguageModel*>(roomy.model.get());
    const auto tokens = at::tensor({3, 1}, at::kLong).view({1, 2}), first = at::zeros({1}, at::kLong);
    CHECK_THROWS_WITH_AS(language->go_on(roomy.tuned("prompt:length=2"), {.tokens = tokens, .predict_at = first}),
                         doctest::Contains("it has a soft prompt"), InvalidArgument);
    CHECK_THROWS_WITH_AS(language->go_on(roomy.tuned("prefix:length=2"), {.tokens = tokens, .attention_at = first}),
                         doctest::Contains("it has a prefix"), InvalidArgument);
  }
}
