// One transformer for every family: A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017. What GPT-2, GPT-NeoX,
// Llama, Mistral, Qwen2, BERT and RoBERTa do differently is in the description that models/detail/transformer_config.h
// makes of their config.json. Activations are rows, one a token: [R T, width]; only attention sees the batch's shape.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/described.h"
#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/models/addition.h"
#include "whence/models/detail/attention.h"
#include "whence/models/detail/hugging_face.h"
#include "whence/models/detail/model_folder.h"
#include "whence/models/detail/prompted.h"
#include "whence/models/detail/transformer_config.h"
#include "whence/models/detail/transformer_parameters.h"
#include "whence/models/ensemble.h"
#include "whence/models/language_model.h"
#include "whence/models/model.h"
#include "whence/models/ops.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

struct TransformerOptions {
  std::string directory;
  std::string adapter = "refuse";

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("directory", self.directory, AnyText{},
          "holds config.json; weights there are where training starts, else it starts at random");
    field("adapter", self.adapter, OneOf{"refuse|ignore"}, "what to do where an adapter lies beside the weights");
  }
};

using detail::FusedOrder;

/// What a pass is to keep of what it computes, and what it goes on from.
struct Watch {
  std::vector<std::int64_t> layers = {};
  bool to_the_end = false;                        // else the pass stops after the last of these layers
  std::map<std::int64_t, at::Tensor> after = {};  // the residual stream after them: [R T, width]
  const Continuation* continuation = nullptr;
  TensorList attention = {};  // of each block [A, S]
  KeyValueCache cache = {};
};

class Transformer : public Model, public LanguageModel, public Described {
 public:
  explicit Transformer(TransformerOptions options) : directory_(options.directory) {
    if (options.directory.empty()) {
      throw InvalidArgument("transformer: option directory is missing, expected a folder with a config.json");
    }
    config_ = detail::read_transformer_config(directory_);
    notes_ = config_.notes;
    if (options.adapter == "refuse") {
      detail::check_no_adapter(directory_);
    } else if (detail::has_adapter(directory_)) {
      notes_.push_back(fmt::format("{}: the adapter there is ignored", directory_.string()));
    }
    files_ = detail::weight_files(directory_);
    if (config_.tied && detail::has_own_head(files_, config_)) {
      config_.tied = false;
      notes_.push_back(
          fmt::format("{}: config.json ties the head to the embedding, but {}.weight there is another: it is used, as "
                      "transformers 5 does (4 ties them)",
                      directory_.string(), config_.names.head));
    }
  }

  bool takes_texts() const override { return true; }
  /// What config.json says, wherever the folder lies, and whether the head is the embedding.
  std::string description() const override { return fmt::format("{} {}", json_text(config_.json), config_.tied); }
  std::int64_t vocabulary() const override { return config_.vocabulary; }
  std::int64_t context() const override { return config_.context; }
  std::int64_t blocks() const override { return config_.layers; }
  bool causal() const override { return config_.causal; }
  const fs::path& directory() const override { return directory_; }

  ParameterSet initial(at::IntArrayRef input_shape, std::int64_t outputs, Random& random) const override {
    if (!input_shape.empty()) {
      throw InvalidArgument("transformer: expected texts, got inputs that are numbers");
    }
    const auto declared = detail::declared_parameters(config_, outputs);
    const auto stored = detail::read_weights(files_, config_, declared, detail::Heads::kThatFit);
    ParameterSet theta;
    for (const auto& parameter : declared) {
      const auto found = stored.find(parameter.name);
      if (found != stored.end()) {
        theta.add(parameter.name, found->second);
      } else if (files_.empty() || head().holds(parameter.name)) {
        theta.add(parameter.name, detail::fresh_parameter(parameter, config_, random));
      } else {
        throw_missing(directory_, parameter.name);
      }
    }
    return theta;
  }

  ParameterSet read_directory(const fs::path& path, const ParameterSet& expected) const override {
    const auto files = detail::weight_files(path);
    if (files.empty()) {
      throw DataError(fmt::format("{}: no weights, expected model.safetensors or its index", path.string()));
    }
    if (!fs::equivalent(path, directory_)) {
      detail::check_no_adapter(path);
      check_same(path, files);
    }
    const auto stored = detail::read_weights(files, config_, detail::declared_parameters(config_, classes_of(expected)),
                                             detail::Heads::kAll);
    TensorList values;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const auto found = stored.find(expected.names()[i]);
      if (found == stored.end()) {
        throw_missing(path, expected.names()[i]);
      }
      values.push_back(found->second.to(expected.values()[i].options()).clone());
    }
    return expected.with(std::move(values));
  }

  std::vector<std::string> class_names(const fs::path& folder) const override {
    const auto files = detail::weight_files(folder);
    const auto config = detail::read_transformer_config(folder);
    const auto outputs = detail::class_outputs(files, config);
    if (outputs > 0 && outputs != static_cast<std::int64_t>(config.classes.size())) {
      throw DataError(fmt::format("{}: id2label names {} classes, but the head in {} has {} outputs",
                                  (folder / "config.json").string(), config.classes.size(), folder.string(), outputs));
    }
    return outputs > 0 ? config.classes : std::vector<std::string>{};
  }
  const std::vector<std::string>& notes() const override { return notes_; }

  void write_directory(const fs::path& path, const ParameterSet& theta, const std::vector<std::string>& classes,
                       const std::map<std::string, std::string>& metadata) const override {
    detail::write_hugging_face(path, directory_, config_, theta, classes, metadata);
  }

  at::Tensor output(const ParameterSet& given, const Batch& batch, Tape* tape) const override {
    std::vector<at::Tensor> outputs;
    for (const auto& theta : predicting_models(given, batch)) {
      outputs.push_back(output_of_one(theta, batch, tape));
    }
    return mean_prediction(outputs, batch);
  }

  at::Tensor output_of_one(const ParameterSet& given, const Batch& batch, Tape* tape) const {
    const auto seen = behind_prompt(given, batch);
    const auto theta = in_batch(given, seen.batch);
    const auto x = residual_stream(theta, seen, tape, nullptr);
    const auto& text = *batch.text;
    at::Tensor out;
    if (classes_of(theta) > 0) {
      const auto places = answer_places(seen.batch);
      const auto& origins = seen.batch.text->tokens.origins;
      out = class_outputs(theta, x.index_select(0, places), tape,
                          one_row_each(origins.defined() ? origins.index_select(0, places) : places));
    } else if (text.asked.defined()) {
      out = vocabulary_outputs(theta, x.index_select(0, seen.now(text.asked)), tape, one_row_each(text.asked))
                .index_select(1, text.words);
    } else if (text.predicted.defined()) {
      out = vocabulary_outputs(theta, x.index_select(0, seen.now(text.predicted)), tape, text.predictions);
    } else {
      throw InvalidArgument("transformer: it has no head for classes, and the texts predict no tokens");
    }
    return out.scalar_type() == at::kDouble ? out : out.to(at::kFloat);
  }

  std::vector<at::Tensor> hidden_states(const ParameterSet& theta, const Batch& batch,
                                        const std::vector<std::int64_t>& layers) const override {
    check_layers(layers);
    Watch watch{.layers = layers};
    const auto seen = behind_prompt(theta, batch);
    residual_stream(in_batch(theta, seen.batch), seen, nullptr, &watch);
    std::vector<at::Tensor> out;
    for (const auto layer : layers) {
      const auto& states = watch.after.at(layer);
      out.push_back(seen.places.defined() ? states.index_select(0, seen.places) : states);
    }
    return out;
  }

  ContinuationOutput go_on(const ParameterSet& theta, const Continuation& continuation) const override {
    const at::NoGradGuard no_gradient;
    const DerivativeOrder first(1);
    if (!config_.causal) {
      throw InvalidArgument(
          fmt::format("transformer: a {} model looks both ways, expected a causal one to go on", config_.family));
    }
    check_layers(continuation.layers);
    if (prompt_length(theta) > 0) {
      throw InvalidArgument("transformer: it has a soft prompt, expected none where texts go on from a beginning");
    }
    if (continuation.attention_at.defined() && prefix_length(theta) > 0) {
      throw InvalidArgument("transformer: it has a prefix, expected none where attention to tokens is asked for");
    }
    const auto batch = batch_of(continuation, prefix_length(theta));
    Watch watch{
        .layers = continuation.layers,
        .to_the_end = continuation.predict_at.defined() || continuation.attention_at.defined() || continuation.keep,
        .continuation = &continuation};
    const auto x = residual_stream(theta, {batch, {}, {}, {}, {}}, nullptr, &watch);
    ContinuationOutput out;
    if (continuation.states_at.defined() && !continuation.layers.empty()) {
      TensorList states;
      for (const auto layer : continuation.layers) {
        states.push_back(watch.after.at(layer).index_select(0, continuation.states_at));
      }
      out.states = at::stack(states);
    }
    if (continuation.predict_at.defined()) {
      const auto& places = continuation.predict_at;
      out.logits = vocabulary_outputs(theta, x.index_select(0, places), nullptr, one_row_each(places));
      out.logits = out.logits.to(out.logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    }
    if (!watch.attention.empty()) {
      out.attention = at::stack(watch.attention);
    }
    out.cache = std::move(watch.cache);
    return out;
  }

 private:
  [[noreturn]] static void throw_missing(const fs::path& path, const std::string& name) {
    throw DataError(fmt::format("{}: tensor \"{}\" is missing", path.string(), name));
  }

  /// Weights of another folder are only right where its config.json describes the same computation.
  void check_same(const fs::path& path, const std::vector<fs::path>& files) const {
    if (!fs::exists(path / "config.json")) {
      return;
    }
    auto other = detail::read_transformer_config(path);
    other.tied = other.tied && !detail::has_own_head(files, other);
    if (const auto difference = detail::difference_of(config_, other); !difference.empty()) {
      throw DataError(fmt::format("{}: another model than in {}: {}", (path / "config.json").string(),
                                  directory_.string(), difference));
    }
  }

  void check_layers(const std::vector<std::int64_t>& layers) const {
    for (const auto layer : layers) {
      if (layer < 0 || layer > config_.layers) {
        throw InvalidArgument(fmt::format("layer {}, expected one of 0 to {}", layer, config_.layers));
      }
    }
  }

  std::string base(const std::string& name) const { return config_.names.base(name); }
  std::string block(std::int64_t layer, const std::string& name) const { return config_.names.in_block(layer, name); }
  std::string token_weight() const { return base(config_.names.tokens) + ".weight"; }
  std::string prompt() const { return prompt_name(base(config_.names.tokens)); }
  std::string classifier() const { return head().qualified(config_.names.classifier); }

  /// Outputs of the classification head in theta; 0 where it has none.
  std::int64_t classes_of(const ParameterSet& theta) const {
    const auto name = classifier() + ".weight";
    return theta.contains(name) ? theta.at(name).size(0) : 0;
  }

  at::Tensor norm(const ParameterSet& theta, const std::string& layer, const at::Tensor& x, Tape* tape) const {
    return config_.rms ? rms_norm(theta, layer, x, config_.epsilon, tape)
                       : layer_norm(theta, layer, x, config_.epsilon, tape);
  }

  /// A linear layer of a block; whether its output joins the residual stream.
  at::Tensor through(const ParameterSet& theta, const std::string& layer, const at::Tensor& x, Tape* tape,
                     bool joins = false) const {
    const auto bias = layer + ".bias";
    return linear(theta, {layer + ".weight", theta.contains(bias) ? bias : "", config_.transposed, joins}, x, tape);
  }

  std::int64_t prompt_length(const ParameterSet& theta) const {
    return theta.contains(prompt()) ? theta.at(prompt()).size(0) : 0;
  }

  /// The batch as blocks see it.
  detail::Prompted behind_prompt(const ParameterSet& theta, const Batch& batch) const {
    if (!batch.text) {
      throw InvalidArgument("transformer: expected a batch of texts");
    }
    return detail::prompted(batch, prompt_length(theta));
  }

  /// Throws where the last of so many tokens, some of them a tuning's, would have no place.
  void check_length(std::int64_t tokens, std::int64_t of_tuning) const {
    if (tokens > config_.context) {
      const auto before = of_tuning > 0 ? fmt::format(" behind {} of a prefix or prompt", of_tuning) : "";
      throw InvalidArgument(fmt::format("transformer: a text of {} tokens{}, expected at most {}", tokens - of_tuning,
                                        before, config_.context - of_tuning));
    }
  }

  /// The rows of a continuation as texts whose first token has the place after the beginning's last. `prefix` places
  /// come before all.
  Batch batch_of(const Continuation& continuation, std::int64_t prefix) const {
    const auto rows = continuation.tokens.size(0), length = continuation.tokens.size(1);
    const auto options = continuation.tokens.options();
    const auto before = continuation.beginning != nullptr ? continuation.beginning->size() : 0;
    auto positions = at::arange(before, before + length, options).expand({rows, length});
    if (continuation.branches.defined()) {  // each branch counts on from its row's trunk
      const auto& branches = continuation.branches;
      const auto same = branches.unsqueeze(2).eq(branches.unsqueeze(1));
      const auto earlier = at::ones({length, length}, options.dtype(at::kBool)).tril(-1);
      const auto trunk = branches.eq(0).sum(1, /*keepdim=*/true);
      positions = before + same.logical_and(earlier).sum(2) + trunk * branches.gt(0).to(at::kLong);
    }
    check_length(positions.max().item<std::int64_t>() + 1 + prefix, prefix);
    Batch batch;
    batch.inputs = continuation.tokens;
    TokenLayout layout;
    layout.tokens.plain = true;
    layout.examples = at::arange(rows, options).unsqueeze(1).expand({rows, length});
    layout.positions = positions;
    layout.lengths = at::full({rows}, length, options);
    batch.text = std::move(layout);
    return batch;
  }

  /// The embedded tokens, each text's behind the prompt: [R T', width].
  at::Tensor embed_tokens(const ParameterSet& theta, const detail::Prompted& seen, Tape* tape) const {
    const auto& batch = seen.batch;
    if (!seen.places.defined()) {
      return embedding(theta, token_weight(), batch.inputs.flatten(), tape);
    }
    const auto tokens = seen.prompts.places.size(1);
    const auto given = batch.inputs.flatten().index_select(0, seen.places).clamp_min(0);
    if (tape != nullptr) {
      tape->rows = seen.texts;
    }
    const auto x = embedding(theta, token_weight(), given, tape);
    if (tape != nullptr) {
      tape->rows = seen.prompts;
    }
    const auto ids = at::arange(tokens, given.options()).repeat({batch.size()});
    const auto prompts = embedding(theta, prompt(), ids, tape);
    if (tape != nullptr) {
      tape->rows = batch.text->tokens;
    }
    return at::cat({x, prompts, at::zeros({1, x.size(1)}, x.options().requires_grad(false))})
        .index_select(0, seen.sources);
  }

  at::Tensor embed(const ParameterSet& theta, const detail::Prompted& seen, Tape* tape) const {
    const auto& n = config_.names;
    const auto& batch = seen.batch;
    const auto& text = *batch.text;
    auto x = embed_tokens(theta, seen, tape);
    if (!n.positions.empty()) {
      const auto positions = text.positions.flatten() + config_.position_offset;
      x = x + embedding(theta, base(n.positions) + ".weight", positions, tape);
    }
    if (!n.types.empty()) {
      const auto types = text.types.defined() ? text.types.flatten() : at::zeros_like(batch.inputs).flatten();
      x = x + embedding(theta, base(n.types) + ".weight", types, tape);
    }
    return n.embedding_norm.empty() ? x : norm(theta, base(n.embedding_norm), x, tape);
  }

  at::Tensor attend(const ParameterSet& theta, std::int64_t layer, const at::Tensor& x, const Batch& batch,
                    const detail::Rotation& turn, const at::Tensor& mask, Tape* tape, Watch* watch) const {
    const auto& n = config_.names;
    const auto rows = batch.inputs.size(0), length = batch.inputs.size(1), width = config_.head_width;
    at::Tensor q, k, v;  // [R T, heads * width]
    switch (config_.fused) {
      case FusedOrder::kNone:
        q = through(theta, block(layer, n.query), x, tape);
        k = through(theta, block(layer, n.key), x, tape);
        v = through(theta, block(layer, n.value), x, tape);
        break;
      case FusedOrder::kBlocks: {
        const auto parts = through(theta, block(layer, n.query_key_value), x, tape).chunk(3, 1);
        q = parts[0], k = parts[1], v = parts[2];
        break;
      }
      case FusedOrder::kHeads: {
        const auto parts =
            through(theta, block(layer, n.query_key_value), x, tape).view({-1, config_.heads, 3, width}).unbind(2);
        q = parts[0], k = parts[1], v = parts[2];
        break;
      }
    }
    const auto by_head = [&](const at::Tensor& y) { return y.reshape({rows, length, -1, width}).transpose(1, 2); };
    q = by_head(q), k = by_head(k), v = by_head(v);
    if (turn.cosine.defined()) {
      q = detail::rotate(q, turn);
      k = detail::rotate(k, turn);
    }
    double scale = config_.scale_attention ? 1 / std::sqrt(static_cast<double>(width)) : 1;
    scale /= config_.scale_by_layer ? static_cast<double>(layer + 1) : 1;
    if (watch != nullptr && watch->continuation != nullptr) {
      detail::go_on_from(*watch->continuation, layer, k, v);
      if (watch->continuation->attention_at.defined()) {
        watch->attention.push_back(detail::attention_weights(q, k, mask, scale, watch->continuation->attention_at));
      }
      if (watch->continuation->keep) {
        watch->cache.keys.push_back(k);
        watch->cache.values.push_back(v);
      }
    }
    const auto& part = config_.fused == FusedOrder::kNone ? n.query : n.query_key_value;
    const auto module = block(layer, part.substr(0, part.rfind('.')));
    const auto seen = attention(theta, module, q, k, v, mask, config_.causal, scale, tape);
    return through(theta, block(layer, n.attention_out), seen.transpose(1, 2).reshape({rows * length, -1}), tape, true);
  }

  at::Tensor feed(const ParameterSet& theta, std::int64_t layer, const at::Tensor& x, Tape* tape) const {
    const auto& n = config_.names;
    auto inner = through(theta, block(layer, n.mlp_in), x, tape);
    if (n.mlp_gate.empty()) {
      inner = activation(config_.activation, inner);
    } else {
      inner = activation(config_.activation, through(theta, block(layer, n.mlp_gate), x, tape)) * inner;
    }
    return through(theta, block(layer, n.mlp_out), inner, tape, true);
  }

  /// What every token that blocks see carries after the last block that is needed, [R T', width].
  at::Tensor residual_stream(const ParameterSet& theta, detail::Prompted shown, Tape* tape, Watch* watch) const {
    const auto& n = config_.names;
    auto& batch = shown.batch;
    if (tape != nullptr) {
      tape->rows = batch.text->tokens;
    }
    const auto* continuation = watch != nullptr ? watch->continuation : nullptr;
    std::map<std::int64_t, at::Tensor> masks;
    for (const auto window : config_.windows) {
      if (masks.count(window) == 0) {
        masks[window] = continuation != nullptr ? detail::allowed_after(*continuation, *batch.text, window)
                                                : detail::allowed(*batch.text, config_.causal, window);
      }
    }
    const auto prefix = prefix_length(theta);
    if (prefix > 0) {  // takes the first places
      batch.text->positions = batch.text->positions + prefix;
      batch.text->lengths = batch.text->lengths + prefix;
    }
    if (config_.rotary.width == 0) {
      check_length(batch.text->positions.max().item<std::int64_t>() + 1, prefix + prompt_length(theta));
    }
    const auto options = theta.at(token_weight()).options().requires_grad(false);
    const auto turn = config_.rotary.width > 0 ? detail::rotation(config_.rotary, config_.context, *batch.text, options)
                                               : detail::Rotation{};
    const auto keep = [&](std::int64_t layer, const at::Tensor& x) {
      if (watch != nullptr && std::find(watch->layers.begin(), watch->layers.end(), layer) != watch->layers.end()) {
        watch->after[layer] = x;
      }
    };
    const bool whole = watch == nullptr || watch->to_the_end || watch->layers.empty();
    const auto last = whole ? config_.layers : *std::max_element(watch->layers.begin(), watch->layers.end());
    auto x = embed(theta, shown, tape);
    keep(0, x);
    for (std::int64_t l = 0; l < last; ++l) {
      const auto& mask = masks.at(config_.windows[static_cast<std::size_t>(l)]);
      const auto attention_norm = block(l, n.attention_norm), mlp_norm = block(l, n.mlp_norm);
      if (config_.post_norm) {
        x = norm(theta, attention_norm, x + attend(theta, l, x, batch, turn, mask, tape, watch), tape);
        x = norm(theta, mlp_norm, x + feed(theta, l, x, tape), tape);
      } else {
        const auto seen = attend(theta, l, norm(theta, attention_norm, x, tape), batch, turn, mask, tape, watch);
        const auto read = config_.parallel ? x : x + seen;
        const auto fed = feed(theta, l, norm(theta, mlp_norm, read, tape), tape);
        x = config_.parallel ? x + seen + fed : read + fed;
      }
      keep(l + 1, x);
    }
    return x;
  }

  /// Where a head of classes reads: the last token, but for those that are the padding's, or the first.
  at::Tensor answer_places(const Batch& batch) const {
    const auto& places = batch.text->tokens.places;  // [B, T], -1 behind a text's end
    if (!config_.causal) {
      return places.select(1, 0);
    }
    auto last = batch.text->lengths - 1;
    if (config_.pad_token >= 0) {
      const auto tokens = batch.inputs.flatten().index_select(0, places.clamp_min(0).flatten()).view_as(places);
      const auto counts = places.ge(0).logical_and(tokens.ne(config_.pad_token));
      last = (counts * at::arange(places.size(1), places.options())).amax(1);
    }
    return places.gather(1, last.unsqueeze(1)).squeeze(1);
  }

  /// Rows that are examples, each read at one place.
  static RowMap one_row_each(const at::Tensor& places) {
    RowMap map;
    map.origins = places;
    return map;
  }

  at::Tensor final_norm(const ParameterSet& theta, const at::Tensor& x, Tape* tape) const {
    return config_.names.final_norm.empty() ? x : norm(theta, base(config_.names.final_norm), x, tape);
  }

  /// One row an example: [B, classes].
  at::Tensor class_outputs(const ParameterSet& theta, at::Tensor x, Tape* tape, const RowMap& rows) const {
    if (tape != nullptr) {
      tape->rows = rows;
    }
    x = final_norm(theta, x, tape);
    if (!config_.names.class_dense.empty()) {
      x = at::tanh(linear(theta, head().qualified(config_.names.class_dense), x, tape));
    }
    return linear(theta, classifier(), x, tape);
  }

  /// [rows, vocabulary]
  at::Tensor vocabulary_outputs(const ParameterSet& theta, at::Tensor x, Tape* tape, const RowMap& rows) const {
    const auto& n = config_.names;
    if (tape != nullptr) {
      tape->rows = rows;
    }
    x = final_norm(theta, x, tape);
    if (!n.head_dense.empty()) {
      // RoBERTa's head has its own, whatever hidden_act says
      x = activation(config_.family == "roberta" ? "gelu" : config_.activation, linear(theta, n.head_dense, x, tape));
      x = layer_norm(theta, n.head_norm, x, config_.epsilon, tape);
    }
    return linear(theta, {config_.tied ? token_weight() : n.head + ".weight", n.head_bias}, x, tape);
  }

  fs::path directory_;
  detail::TransformerConfig config_;
  std::vector<fs::path> files_;  // that hold weights; empty: there are none
  std::vector<std::string> notes_;
};

}  // namespace

KeyValueCache KeyValueCache::first(std::int64_t tokens) const {
  KeyValueCache out;
  for (std::size_t l = 0; l < keys.size(); ++l) {
    out.keys.push_back(keys[l].narrow(2, 0, tokens));
    out.values.push_back(values[l].narrow(2, 0, tokens));
  }
  return out;
}

std::unique_ptr<Model> open_model_folder(const fs::path& directory, bool ignore_adapter, const std::string& otherwise) {
  if (!ignore_adapter && fs::exists(directory / "config.json")) {
    detail::check_no_adapter(directory, otherwise);
  }
  return std::make_unique<Transformer>(TransformerOptions{directory.string(), ignore_adapter ? "ignore" : "refuse"});
}

WHENCE_METHOD(Model, transformer, Transformer, TransformerOptions)

}  // namespace whence
