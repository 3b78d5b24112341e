// The model's side of demonstration attribution: every number against prompts run whole, one at a time, in double.
#include <fmt/format.h>

#include "icl/made.h"
#include "models/language.h"
#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/parallel.h"
#include "whence/icl/prompt_reader.h"

using namespace whence;
using test::Paper;
using namespace whence::test;
namespace fs = std::filesystem;

namespace {

/// A random model with a real tokenizer's vocabulary.
struct Speaker {
  explicit Speaker(const std::string& family = "llama", const std::string& words = "llama3", int context = 400,
                   int vocabulary = 700)
      : tokenizer(fs::path(WHENCE_TESTS) / "text/tokenizers" / (words + ".json")) {
    nlohmann::json config{{"model_type", family}, {"vocab_size", vocabulary}};
    if (family == "gpt2") {
      config.update({{"n_embd", 16}, {"n_layer", 2}, {"n_head", 2}, {"n_positions", context}});
    } else {
      config.update({{"hidden_size", 16},
                     {"intermediate_size", 24},
                     {"num_hidden_layers", 3},
                     {"num_attention_heads", 4},
                     {"num_key_value_heads", 2},
                     {"rms_norm_eps", 1e-5},
                     {"hidden_act", "silu"},
                     {"max_position_embeddings", context}});
      if (family == "mistral") {
        config["sliding_window"] = 30;
      }
    }
    scratch.put("config.json", config.dump());
    model = create<Model>("transformer:directory=" + scratch.folder().string());
    language = std::dynamic_pointer_cast<const LanguageModel>(model);
    Random random(7);
    theta = model->initial({}, 0, random);
    TensorList louder;  // far from uniform answers
    for (const auto& value : theta.values()) {
      louder.push_back(value.dim() > 1 ? value * 12 : value);
    }
    theta = theta.with(louder);
  }

  ContinuationOutput whole(const std::vector<std::int64_t>& tokens, const std::vector<std::int64_t>& layers) const {
    const auto every = at::arange(static_cast<std::int64_t>(tokens.size()), at::kLong);
    return language->go_on(theta, {.tokens = at::tensor(tokens, at::kLong).unsqueeze(0),
                                   .layers = layers,
                                   .states_at = every,
                                   .predict_at = every,
                                   .attention_at = every});
  }
  double log_probability(std::vector<std::int64_t> prompt, const std::vector<std::int64_t>& answer) const {
    const auto start = static_cast<std::int64_t>(prompt.size());
    prompt.insert(prompt.end(), answer.begin(), answer.end());
    const auto logs = at::log_softmax(whole(prompt, {0}).logits, 1);
    double sum = 0;
    for (std::size_t t = 0; t < answer.size(); ++t) {
      sum += logs[start + static_cast<std::int64_t>(t) - 1][answer[t]].item<double>();
    }
    return sum;
  }

  Scratch scratch;
  Tokenizer tokenizer;
  std::shared_ptr<const Model> model;
  std::shared_ptr<const LanguageModel> language;
  ParameterSet theta;
};

PromptTask animals() {
  return {.name = "animals",
          .demonstrations = {{"a cat", "small"},
                             {"the whale in the sea", "very big"},
                             {"mouse", "small"},
                             {"an elephant", "very big"},
                             {"the ant", "very big"}},
          .queries = {{"a whale", "very big"}, {"one little bird here", "small"}, {"dog", {}}, {"fox", "medium"}}};
}

constexpr std::initializer_list<const char*> kFamilies = {"llama", "gpt2", "mistral"};

}  // namespace

TEST_SUITE_BEGIN("icl");

TEST_CASE("a reading's states, attention and answers are those of each prompt run whole") {
  for (const char* family : kFamilies) {
    CAPTURE(family);
    const Speaker s(family, std::string(family) == "gpt2" ? "gpt2" : "llama3");
    const auto task = animals();
    for (const auto position : {ReadingPosition::kColumn, ReadingPosition::kLabel, ReadingPosition::kMean}) {
      PromptReader reader({s.language, s.theta, s.tokenizer}, task,
                          {.layers = {0, 2}, .position = position, .attention = true, .surprisal = true});
      const auto reading = reader.read();
      CHECK(reading.closed);
      CHECK(reading.outputs == std::vector<std::string>{"small", "very big"});
      CHECK(at::equal(reading.task.labels, at::tensor({0, 1, 0, 1, 1}, at::kLong)));
      for (std::size_t j = 0; j < task.queries.size(); ++j) {
        const auto row = static_cast<std::int64_t>(j);
        const auto prompt = reader.writer().tokenize({0, 1, 2, 3, 4}, task.queries[j]);
        const auto whole = s.whole(prompt.tokens, {0, 2});
        const auto mean = [&](std::int64_t begin, std::int64_t end) {
          return whole.states.slice(1, begin, end).sum(1) / (end - begin);
        };
        const bool all = position == ReadingPosition::kMean;
        const auto length = static_cast<std::int64_t>(prompt.tokens.size());
        CHECK(relative_error(reading.task.query_states.select(1, row), mean(all ? prompt.query : length - 1, length)) <
              Tolerance::kDense);
        for (std::size_t i = 0; i < 5; ++i) {
          const auto [begin, end] = prompt.demonstrations[i];
          const auto column = prompt.columns[i], label = prompt.labels[i];
          CHECK(relative_error(reading.task.states.select(1, static_cast<std::int64_t>(i)),
                               position == ReadingPosition::kLabel
                                   ? mean(label, label + 1)
                                   : mean(all ? std::max<std::int64_t>(begin, 1) : column, column + 1)) <
                Tolerance::kDense);
          CHECK(relative_error(reading.task.attention.select(1, row).select(1, static_cast<std::int64_t>(i)),
                               whole.attention.select(1, -1).slice(1, begin, end).sum(1)) < Tolerance::kDense);
        }
        std::vector<double> answers;
        for (const auto& output : reading.outputs) {
          answers.push_back(s.log_probability(prompt.tokens, reader.writer().answer(task.queries[j], output)));
          CHECK(reading.log_probabilities[row][static_cast<std::int64_t>(answers.size()) - 1].item<double>() ==
                doctest::Approx(answers.back()).epsilon(1e-10));
        }
        CHECK(reading.predictions[j] == reading.outputs[answers[1] > answers[0] ? 1 : 0]);
        CHECK(reading.predicted_log_probability[row].item<double>() ==
              doctest::Approx(std::max(answers[0], answers[1])).epsilon(1e-10));
      }
      for (std::size_t i = 0; i < 5; ++i) {  // each stands behind two others at least
        const auto prompt = reader.writer().tokenize(
            i < 2 ? std::vector<std::int64_t>{2, 3, 4, 0, 1} : std::vector<std::int64_t>{0, 1, 2, 3, 4},
            task.queries[0]);
        const auto [begin, end] = prompt.outputs[i < 2 ? i + 3 : i];
        const auto at = [&](std::int64_t t) { return prompt.tokens.begin() + t; };
        CHECK(reading.task.surprisal[static_cast<std::int64_t>(i)].item<double>() ==
              doctest::Approx(-s.log_probability({at(0), at(begin)}, {at(begin), at(end)})).epsilon(1e-10));
      }
      // a query without an output is explained by what is answered, one with another output by that
      CHECK(reading.explained[2] == reading.predictions[2]);
      CHECK(reading.task.query_labels[2].item<std::int64_t>() >= 0);
      CHECK(reading.task.query_labels[3].item<std::int64_t>() == -1);
      const auto last = reader.writer().tokenize({0, 1, 2, 3, 4}, task.queries[3]).tokens;
      CHECK(reading.explained_log_probability[3].item<double>() ==
            doctest::Approx(s.log_probability(last, reader.writer().answer(task.queries[3], "medium"))).epsilon(1e-10));
    }
  }
}

TEST_CASE("removals are the prompts without a demonstration, run whole") {
  for (const char* family : kFamilies) {
    CAPTURE(family);
    const Speaker s(family, std::string(family) == "gpt2" ? "gpt2" : "llama3");
    const auto task = animals();
    PromptReader reader({s.language, s.theta, s.tokenizer}, task, {.layers = {1}});
    const auto reading = reader.read();
    const auto removals = reader.remove_each(reading, {});
    for (std::int64_t i = 0; i < 5; ++i) {
      std::vector<std::int64_t> rest;
      for (std::int64_t k = 0; k < 5; ++k) {
        if (k != i) {
          rest.push_back(k);
        }
      }
      for (std::size_t j = 0; j < task.queries.size(); ++j) {
        const auto row = static_cast<std::int64_t>(j);
        const auto& query = task.queries[j];
        const auto tokens = reader.writer().tokenize(rest, query).tokens;
        const auto of = [&](const std::string& output) {
          return s.log_probability(tokens, reader.writer().answer(query, output));
        };
        const double before = reading.explained_log_probability[row].item<double>();
        CHECK(removals.log_probability[row][i].item<double>() ==
              doctest::Approx(before - of(reading.explained[j])).epsilon(1e-9));
        const auto among = removals.among_outputs[row][i].item<double>();
        const auto label = reading.task.query_labels[row].item<std::int64_t>();
        if (label < 0) {
          CHECK(std::isnan(among));
          continue;
        }
        const auto share = [&](double own, double other) { return own - std::log(std::exp(own) + std::exp(other)); };
        const auto& full = reading.log_probabilities[row];
        CHECK(among == doctest::Approx(share(full[label].item<double>(), full[1 - label].item<double>()) -
                                       share(of(reading.outputs[static_cast<std::size_t>(label)]),
                                             of(reading.outputs[static_cast<std::size_t>(1 - label)])))
                           .epsilon(1e-9));
      }
    }
  }
}

TEST_CASE("nothing depends on the batch size, the threads or which queries are asked together") {
  const Speaker s;
  auto task = animals();
  const auto read = [&](std::int64_t batch_size) {
    return PromptReader({s.language, s.theta, s.tokenizer}, task, {.layers = {1, 3}, .batch_size = batch_size}).read();
  };
  const auto together = read(64), single = read(1);
  CHECK(relative_error(together.task.query_states, single.task.query_states) < Tolerance::kDense);
  CHECK(relative_error(together.log_probabilities, single.log_probabilities) < Tolerance::kDense);
  const auto scores = ridge_scores(together.task, Paper{});
  const auto before = threads();
  set_threads(before == 1 ? 2 : 1);
  CHECK(relative_error(ridge_scores(read(2).task, Paper{}).test.narrow(0, 0, 3), scores.test.narrow(0, 0, 3)) <
        Tolerance::kDense);
  set_threads(before);
  task.queries = {task.queries[1]};
  CHECK(relative_error(ridge_scores(read(64).task, Paper{}).test[0], scores.test[1]) < Tolerance::kDense);
}

TEST_CASE("open tasks: the model writes its answer, and targets are the outputs' embeddings") {
  const Speaker s;
  PromptTask task{.name = "pairs",
                  .demonstrations = {{"go", "went"}, {"take", "took"}, {"see", "saw"}},
                  .queries = {{"come", "came"}, {"give", {}}}};
  PromptReader reader({s.language, s.theta, s.tokenizer}, task, {.layers = {2}});
  const auto reading = reader.read();
  CHECK(!reading.closed);
  CHECK(!reading.log_probabilities.defined());
  for (std::size_t j = 0; j < 2; ++j) {
    auto tokens = reader.writer().tokenize({0, 1, 2}, task.queries[j]).tokens;
    std::vector<std::int32_t> written;
    std::string text;
    for (int step = 0; step < 6; ++step) {
      written.push_back(static_cast<std::int32_t>(s.whole(tokens, {0}).logits[-1].argmax().item<std::int64_t>()));
      tokens.push_back(written.back());
      text = reader.writer().output_of(s.tokenizer.decode(written));
    }
    CHECK(text.starts_with(reading.predictions[j]));
    CHECK(!reading.predictions[j].empty());
    const auto prompt = reader.writer().tokenize({0, 1, 2}, task.queries[j]).tokens;
    CHECK(reading.predicted_log_probability[static_cast<std::int64_t>(j)].item<double>() ==
          doctest::Approx(s.log_probability(prompt, reader.writer().answer(task.queries[j], reading.predictions[j])))
              .epsilon(1e-10));
  }
  CHECK(reading.explained_log_probability[1].item<double>() == reading.predicted_log_probability[1].item<double>());
  CHECK(reading.explained[0] == "came");
  CHECK(reading.explained[1] == reading.predictions[1]);
  const auto& targets = reading.task.targets;
  CHECK(targets.size(0) == 3);
  CHECK(relative_error(targets.square().sum(1), at::ones({3}, at::kDouble)) < Tolerance::kSameAlgebra);
  // by hand: the embedding of each answer's tokens, less the mean, of length 1
  TensorList rows;
  for (const auto& demonstration : task.demonstrations) {
    rows.push_back(
        s.theta.at("model.embed_tokens.weight")
            .index_select(0, at::tensor(reader.writer().answer(demonstration, *demonstration.output), at::kLong))
            .mean(0));
  }
  const auto centred = at::stack(rows) - at::stack(rows).mean(0);
  CHECK(relative_error(targets, centred / centred.norm(2, {1}, true)) < Tolerance::kDense);
  CHECK(ridge_scores(reading.task, Paper{}).test.isfinite().all().item<bool>());
  const auto one_hot =
      PromptReader({s.language, s.theta, s.tokenizer}, task, {.layers = {2}, .targets = TargetView::kOneHot}).read();
  CHECK(!one_hot.task.targets.defined());
  CHECK(one_hot.task.query_labels[0].item<std::int64_t>() == -1);
}

TEST_CASE("a task is closed where its outputs repeat, or are all that its queries answer") {
  const Speaker s;
  const auto closed = [&](const PromptTask& task) {
    return PromptReader({s.language, s.theta, s.tokenizer}, task, {.layers = {1}}).read().closed;
  };
  PromptTask task{.name = "t", .demonstrations = {{"a", "x"}, {"b", "y"}, {"c", "x"}}, .queries = {{"d", "y"}}};
  CHECK(closed(task));
  task.queries = {{"d", {}}};
  CHECK_FALSE(closed(task));
  task.queries = {{"d", "y"}, {"e", "z"}};
  CHECK_FALSE(closed(task));
  task.demonstrations.push_back({"f", "y"});
  CHECK(closed(task));
}

TEST_CASE("one demonstration, duplicates, and another order") {
  const Speaker s;
  auto task = animals();
  PromptReader reader({s.language, s.theta, s.tokenizer}, task, {.layers = {3}});
  const auto moved = reader.states_in_order({3, 1, 4, 0, 2});
  const auto prompt = reader.writer().tokenize({3, 1, 4, 0, 2}, task.queries[0]);
  const auto states = s.whole(prompt.tokens, {3}).states[0];
  CHECK(relative_error(moved[0][3], states[prompt.columns[0]]) < Tolerance::kDense);
  CHECK(relative_error(moved[0][2], states[prompt.columns[4]]) < Tolerance::kDense);
  task.demonstrations = {task.demonstrations[0]};
  PromptReader lonely({s.language, s.theta, s.tokenizer}, task, {.layers = {3}});
  const auto reading = lonely.read();
  CHECK(!reading.closed);  // one output of one demonstration says nothing of what answers are like
  const auto removals = lonely.remove_each(reading, {});
  CHECK(removals.log_probability.size(1) == 1);
  const auto bare = lonely.writer().tokenize({}, task.queries[0]).tokens;
  CHECK(removals.log_probability[0][0].item<double>() ==
        doctest::Approx(reading.explained_log_probability[0].item<double>() -
                        s.log_probability(bare, lonely.writer().answer(task.queries[0], "very big")))
            .epsilon(1e-9));
}

TEST_CASE("what a model cannot read is one line that names it") {
  const auto task = animals();
  const auto fails = [&](const Speaker& s, const PromptTask& bad, const char* part) {
    CHECK_THROWS_WITH_AS(PromptReader({s.language, s.theta, s.tokenizer}, bad, {.layers = {1}}).read(),
                         doctest::Contains(part), Error);
  };
  const Speaker s;
  fails(Speaker("llama", "llama3", 40), task, "task animals: the prompt of query 1 has");
  fails(Speaker("llama", "llama3", 400, 200), task, "it is another model's tokenizer");
  auto none = task;
  none.demonstrations.clear();
  fails(s, none, "task animals: no demonstrations, expected at least one");
  auto merged = task;
  merged.pattern = "{input}={output}";
  merged.separator = "";
  merged.demonstrations.back().output = "t";
  merged.queries = {{"he", {}}, {"oo", {}}};  // "the", "too"
  CHECK_THROWS_WITH_AS(
      PromptReader({s.language, s.theta, s.tokenizer}, merged, {.layers = {1}, .position = ReadingPosition::kLabel})
          .read(),
      doctest::Contains("the last demonstration's tokens depend on the query"), DataError);
  const std::shared_ptr<const Model> model =
      create<Model>("transformer:directory=" + checkpoint("bert-masked").string());
  const auto bert = std::dynamic_pointer_cast<const LanguageModel>(model);
  CHECK_THROWS_WITH_AS(PromptReader({bert, s.theta, s.tokenizer}, task, {}),
                       doctest::Contains("expected a causal one, which writes answers to prompts"), InvalidArgument);
}

TEST_CASE("on a real model: the dual form is the paper's formulas, one d x d system for each demonstration") {
  const fs::path folder = fs::path(WHENCE_SHARED) / "models/stories260k";
  if (!fs::exists(folder / "model.safetensors")) {
    MESSAGE("skipped: no ../shared/models/stories260k");
    return;
  }
  PromptTask task{
      .name = "stories", .demonstrations = {}, .queries = {{"The dog ran home.", "dog"}, {"A cat sat.", "cat"}}};
  for (const char* act : {"ran", "sat", "slept", "played", "ate", "sang"}) {
    for (const char* animal : {"cat", "dog"}) {
      task.demonstrations.push_back({fmt::format("The {} {}.", animal, act), animal});
    }
  }
  const auto reading = PromptReader(read_text_model(folder), task, {.layers = {0, 1, 2, 3, 4, 5}}).read();
  for (const bool regulariser : {true, false}) {
    const RidgeOptions options = Paper{.lambda = 1, .self_lambda = 0.5, .regulariser = regulariser};
    const auto layers = ridge_scores_by_layer(reading.task, options);
    REQUIRE(layers.size() == 6);
    for (std::int64_t l = 0; l < 6; ++l) {
      CAPTURE(l);
      CHECK(relative_error(layers[static_cast<std::size_t>(l)], by_definition(reading.task, l, options)) < 1e-6);
    }
  }
}

TEST_SUITE_END();
