// One transformer for every family: A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017. What GPT-2, Llama,
// BERT and the others do differently is in the description that models/detail/transformer_config.h makes of their
// config.json; what is computed is in models/transformer_pass.cpp. Here: such a model, from its folder.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/described.h"
#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/models/addition.h"
#include "whence/models/detail/hugging_face.h"
#include "whence/models/detail/model_folder.h"
#include "whence/models/detail/transformer_config.h"
#include "whence/models/detail/transformer_parameters.h"
#include "whence/models/detail/transformer_pass.h"
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
  std::vector<fs::path> files() const override {
    auto out = files_;
    out.push_back(directory_ / "config.json");
    return out;
  }
  bool is_trained() const override { return !files_.empty(); }
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
    const auto seen = pass().behind_prompt(given, batch);
    const auto theta = in_batch(given, seen.batch);
    const auto x = pass().residual_stream(theta, seen, tape, nullptr);
    const auto& text = *batch.text;
    at::Tensor out;
    if (classes_of(theta) > 0) {
      out = pass().class_outputs(theta, x, answer_places(seen.batch), seen.batch.text->tokens, tape);
    } else if (text.asked.defined()) {
      out = pass()
                .vocabulary_outputs(theta, x.index_select(0, seen.now(text.asked)), tape, one_row_each(text.asked))
                .index_select(1, text.words);
    } else if (text.predicted.defined()) {
      out = pass().vocabulary_outputs(theta, x.index_select(0, seen.now(text.predicted)), tape, text.predictions);
    } else {
      throw InvalidArgument("transformer: it has no head for classes, and the texts predict no tokens");
    }
    return out.scalar_type() == at::kDouble ? out : out.to(at::kFloat);
  }

  std::vector<at::Tensor> hidden_states(const ParameterSet& theta, const Batch& batch,
                                        const std::vector<std::int64_t>& layers) const override {
    check_layers(layers);
    detail::Watch watch{.layers = layers};
    const auto seen = pass().behind_prompt(theta, batch);
    pass().residual_stream(in_batch(theta, seen.batch), seen, nullptr, &watch);
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
    if (pass().prompt_length(theta) > 0) {
      throw InvalidArgument("transformer: it has a soft prompt, expected none where texts go on from a beginning");
    }
    if (continuation.attention_at.defined() && prefix_length(theta) > 0) {
      throw InvalidArgument("transformer: it has a prefix, expected none where attention to tokens is asked for");
    }
    const auto batch = batch_of(continuation, prefix_length(theta));
    detail::Watch watch{
        .layers = continuation.layers,
        .to_the_end = continuation.predict_at.defined() || continuation.attention_at.defined() || continuation.keep,
        .continuation = &continuation};
    const auto x = pass().residual_stream(theta, {batch, {}, {}, {}, {}}, nullptr, &watch);
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
      out.logits = pass().vocabulary_outputs(theta, x.index_select(0, places), nullptr, one_row_each(places));
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

  /// Outputs of the classification head in theta; 0 where it has none.
  std::int64_t classes_of(const ParameterSet& theta) const {
    const auto name = pass().classifier() + ".weight";
    return theta.contains(name) ? theta.at(name).size(0) : 0;
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
    pass().check_length(positions.max().item<std::int64_t>() + 1 + prefix, prefix);
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

  detail::TransformerPass pass() const { return {config_, head()}; }

  fs::path directory_;
  detail::TransformerConfig config_;
  std::vector<fs::path> files_;  // that hold weights; empty: there are none
  std::vector<std::string> notes_;
};

}  // namespace

std::unique_ptr<Model> open_model_folder(const fs::path& directory, bool ignore_adapter, const std::string& otherwise) {
  if (!ignore_adapter && fs::exists(directory / "config.json")) {
    detail::check_no_adapter(directory, otherwise);
  }
  return std::make_unique<Transformer>(TransformerOptions{directory.string(), ignore_adapter ? "ignore" : "refuse"});
}

WHENCE_METHOD(Model, transformer, Transformer, TransformerOptions)

}  // namespace whence
