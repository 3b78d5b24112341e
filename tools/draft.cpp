#include "draft.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <set>

#include "cli.h"
#include "guess_columns.h"
#include "trainings.h"
#include "whence/core/error.h"
#include "whence/core/printable.h"
#include "whence/core/quoted.h"
#include "whence/core/text.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace {

/// Of a stage that was trained elsewhere.
std::string how_trained() {
  return fmt::format("# optimizer = \"{}\"  # how it was trained, by which rankings are checked\n", kOptimizerExample);
}

/// A pipeline file in the making.
class Writer {
 public:
  Writer(std::vector<Source> sources, fs::path out, ListedClasses classes)
      : out_(std::move(out)), classes_(std::move(classes)) {
    const bool exported = std::any_of(sources.begin(), sources.end(),
                                      [](const Source& source) { return source.kind == SourceKind::kExported; });
    for (auto& source : sources) {
      const bool reads = source.kind == SourceKind::kTokenizer || (exported && source.kind == SourceKind::kModelFolder);
      if (reads && exported) {
        tokenizer_ = std::move(source.path);
      } else if (reads) {
        throw UsageError(fmt::format("{} is a tokenizer alone: name the model whose it is, MODEL_DIR or MODEL.pt2",
                                     source.path.string()));
      } else if (source.is_model()) {
        if (model_) {
          throw UsageError(fmt::format("two models, {} and {}: name one", model_->path.string(), source.path.string()));
        }
        model_ = std::move(source);
      } else {
        (source.is_queries() ? queries_ : training_).push_back(std::move(source));
      }
    }
    if (training_.empty() && !queries_.empty()) {
      training_.push_back(queries_.front());
      queries_.erase(queries_.begin());
    }
    if (training_.empty()) {
      throw UsageError(fmt::format("the training data is missing: whence init {} DATA",
                                   model_ ? shell_word(model_->path.string()) : "[MODEL_DIR]"));
    }
  }

  Draft draft() {
    if (model_ && model_->kind == SourceKind::kModelFolder) {
      texts();
    } else if (model_ && model_->kind == SourceKind::kExported) {
      program();
    } else {
      numbers();
    }
    queries();
    return {
        fmt::format("# A start, written by `whence init`: change what is wrong. docs/pipelines.md tells every key.\n"
                    "seed = 0\n\n[model]\n{}{}{}",
                    model_text_, stages_text_, queries_text_),
        assumed_};
  }

 private:
  std::string relative(const fs::path& path) const {
    const auto folder = fs::absolute(out_).parent_path();
    const auto whole = fs::absolute(path).lexically_normal();
    const auto near = whole.lexically_proximate(folder.lexically_normal()).string();
    const auto out = near.starts_with("../../") ? whole.string() : near;  // another place altogether
    try {
      utf8_text(out, path);
    } catch (const DataError&) {
      throw InvalidArgument(fmt::format("{}: its name is no UTF-8, which a pipeline file must be: rename it", out));
    }
    return out;
  }

  /// The inline table of one source, with `more` keys. `columns`: of a table.
  std::string data_table(const Source& source, const Columns& columns, const std::string& more = "") const {
    std::string keys = fmt::format("format = {}", toml_text(source.format));
    const auto add = [&](const char* key, const std::string& value) {
      keys += value.empty() ? "" : fmt::format(", {} = {}", key, toml_text(value));
    };
    if (source.kind == SourceKind::kIdx) {
      add("images", relative(source.path));
      add("labels", relative(source.labels));
    } else if (source.files.size() > 1) {
      std::vector<std::string> files;
      for (const auto& file : source.files) {
        files.push_back(relative(file));
      }
      keys += fmt::format(", files = {}", toml_text(files));
    } else {
      add("file", relative(source.path));
      keys += source.has_targets ? "" : ", targets = \"none\"";
    }
    if (source.kind == SourceKind::kTable) {
      add("text", columns.text);
      add("pair", columns.pair);
      add("answer", columns.answer);
      add("label", columns.label);
      keys += columns.ignored.empty() ? "" : fmt::format(", ignore = {}", toml_text(columns.ignored));
      keys += columns.fills ? ", missing = \"median\"" : "";
    }
    return fmt::format("{{ {}{} }}", keys, more);
  }

  /// That of the data that a model of examples was trained on, its classes in the outputs' order where that was asked.
  std::string trained_table(const Source& source, std::string more = "") const {
    if (classes_.names.empty()) {
      return data_table(source, columns_, more);
    }
    more += fmt::format(", classes = {}", toml_text(classes_.names));
    return fmt::format("{}  # {}", data_table(source, columns_, more), classes_.why);
  }

  void stage(const std::string& name, const std::string& train, const std::string& loss, const std::string& rest) {
    stages_text_ +=
        fmt::format("\n[[stage]]\nname = {}\ntrain = {}\nloss = {}\n{}", toml_text(name), train, toml_text(loss), rest);
  }

  /// A folder of a language model, on texts: those without labels first, then the labelled ones.
  void texts() {
    model_text_ =
        fmt::format("checkpoint = {}  # config.json, weights and tokenizer.json\n", toml_text(relative(model_->path)));
    std::vector<std::pair<const Source*, Columns>> plain, labelled;
    for (const auto& source : training_) {
      if (source.kind != SourceKind::kTable && source.kind != SourceKind::kPlainText) {
        throw DataError(fmt::format("{}: {} is a model of texts, and this holds none", source.path.string(),
                                    model_->path.string()));
      }
      const auto columns = source.kind == SourceKind::kTable ? columns_of_texts(source) : Columns{};
      (columns.label.empty() ? plain : labelled).emplace_back(&source, columns);
    }
    if (labelled.size() > 1) {
      throw UsageError(fmt::format("two labelled files, {} and {}: call one test or dev, or name one",
                                   labelled[0].first->path.string(), labelled[1].first->path.string()));
    }
    const char* loss = model_->masked ? "masked-token" : "next-token";
    if (!plain.empty()) {
      std::vector<std::string> tables;
      for (const auto& [source, columns] : plain) {
        const char* length = source->kind == SourceKind::kPlainText ? ", length = 128" : "";
        tables.push_back(data_table(*source, columns, length));
      }
      stage(labelled.empty() ? "fit" : "pretrain",
            tables.size() == 1 ? tables[0] : fmt::format("[{}]", fmt::join(tables, ", ")), loss,
            fmt::format("checkpoint = {}  # the model as it is; to train it on these texts first, name a new folder "
                        "here: \"run/fit\"\n{}",
                        toml_text(relative(model_->path)), how_trained()));
      assumed_.push_back(fmt::format("the weights of {} as they are, as if trained on {}", model_->path.string(),
                                     plain.size() == 1 ? plain[0].first->path.filename().string()
                                                       : fmt::format("{} files of texts", plain.size())));
      columns_ = plain[0].second;
    }
    if (!labelled.empty()) {
      const auto& [source, columns] = labelled[0];
      const bool as_is = plain.empty() && model_->classifies;
      const char* name = plain.empty() ? "fit" : "finetune";
      stage(
          name, data_table(*source, columns), "cross-entropy",
          fmt::format(
              "{}{}",
              plain.empty() ? "tuning = \"full\"\n"
                            : "tuning = \"full:proximity=0.1\"  # how far from the stage before: more pull, less far\n",
              as_is ? fmt::format("checkpoint = {}  # a classifier already\n{}", toml_text(relative(model_->path)),
                                  how_trained())
                    : fmt::format("weight-decay = 1e-3\noptimizer = \"adam:learning-rate=1e-4,epochs=2,"
                                  "batch-size=16\"  # of full; lora: 2e-3, hut or a prefix: 1e-2\ncheckpoint = {}\n",
                                  toml_text("run/" + out_.stem().string()))));
      assumed_.push_back(fmt::format("{}column {} of {} is classified into {}", as_is ? "as it is, " : "", columns.text,
                                     source->path.filename().string(), columns.label));
      columns_ = columns;
    }
  }

  const Source& only_training() const {
    if (training_.size() > 1) {
      throw UsageError(fmt::format("two training sets, {} and {}: call one test or dev, or name one",
                                   training_[0].path.string(), training_[1].path.string()));
    }
    return training_.front();
  }

  /// What the columns of a table of numbers are taken for.
  void assume_columns() {
    assumed_.push_back(fmt::format("label {}, {}", columns_.label, columns_.values ? "a number" : "a class"));
    if (!columns_.ignored.empty()) {
      assumed_.push_back(fmt::format(
          "without the columns {}{}", fmt::join(columns_.ignored, ", "),
          columns_.constant.empty() ? ""
                                    : fmt::format(" ({} the same in every row)", fmt::join(columns_.constant, ", "))));
    }
    if (columns_.fills) {
      assumed_.push_back("missing numbers are their column's median");
    }
  }

  /// The loss of a model that gives one number an example: of 0 and 1 it is the logit. Throws DataError for words.
  std::string loss_of_one(const Source& source, const std::string& model) const {
    bool bits = source.has_bits;
    if (source.kind == SourceKind::kTable) {
      const auto labels = facts_of(source).at(columns_.label);
      if (!labels.is_number()) {
        throw DataError(
            fmt::format("{}: the labels in column {} are words, and {} gives one number: write them as 0 "
                        "and 1, 1 for the class whose logit that is",
                        source.path.string(), columns_.label, model));
      }
      bits = labels.bits == labels.filled;
    }
    return bits ? "binary-cross-entropy" : "squared-error";
  }

  /// A model that was exported, with its weights as they are, on whatever it takes.
  void program() {
    const auto& source = only_training();
    const auto& facts = model_->program;
    const auto file = model_->path.filename().string();
    const bool holds_texts =
        source.kind == SourceKind::kPlainText || (source.kind == SourceKind::kTensors && source.inputs == 0);
    const bool takes_texts = std::any_of(facts.inputs.begin(), facts.inputs.end(),
                                         [](const auto& input) { return input.name == "input_ids"; });
    const bool gives_one = facts.dimensions == 1 || (facts.dimensions == 2 && facts.width == 1);
    std::vector<std::string> inputs, outputs;
    for (const auto& input : facts.inputs) {
      inputs.push_back(fmt::format("{} {}", input.name, input.shape));
    }
    for (const auto& output : facts.outputs) {
      outputs.push_back(output.name);
    }
    model_text_ = fmt::format("exported = {}  # takes {}\n", toml_text(relative(model_->path)),
                              printable(fmt::format("{}", fmt::join(inputs, ", "))));
    if (outputs.size() > 1) {
      model_text_ += fmt::format("output = {}  # of {}\n", toml_text(outputs[facts.chosen]),
                                 printable(fmt::format("{}", fmt::join(outputs, ", "))));
    }
    if (!facts.last_module.empty()) {
      model_text_ += fmt::format("# head = {}  # the module of one stage alone, where a later one has other classes\n",
                                 toml_text(facts.last_module));
    }
    if (takes_texts && source.kind != SourceKind::kTensors) {
      if (source.kind != SourceKind::kTable && source.kind != SourceKind::kPlainText) {
        throw DataError(fmt::format("{}: {} is a model of texts, and this holds none", source.path.string(), file));
      }
      if (tokenizer_.empty()) {
        throw UsageError(
            fmt::format("{} takes texts: name the folder of its tokenizer.json too: whence init {} TOKENIZER_DIR {}",
                        file, shell_word(model_->path.string()), shell_word(source.path.string())));
      }
      columns_ = source.kind == SourceKind::kTable ? columns_of_texts(source) : Columns{};
    } else if (!takes_texts && holds_texts) {
      throw DataError(
          fmt::format("{}: {} takes {}, and this holds texts", source.path.string(), file, fmt::join(inputs, ", ")));
    } else if (source.kind == SourceKind::kTable) {
      columns_ = columns_of_inputs(source);
      columns_.values = columns_.values || (gives_one && loss_of_one(source, file) == "squared-error");
      assume_columns();
    } else if (!source.has_targets && facts.dimensions != 1) {
      throw DataError(fmt::format("{}: no tensor \"targets\" among {}, and {} gives {}, not its examples' loss [B]",
                                  source.path.string(), fmt::join(source.columns, ", "), file,
                                  facts.outputs.at(facts.chosen).shape));
    }
    if (!tokenizer_.empty()) {
      model_text_ += fmt::format("tokenizer = {}\n", toml_text(relative(tokenizer_)));
    }
    const bool of_tokens = takes_texts && facts.dimensions == 3;
    const bool of_one = gives_one && (source.kind == SourceKind::kTensors || !columns_.label.empty());
    const std::string loss = !source.has_targets                    ? "exported"
                             : of_tokens                            ? "next-token"
                             : of_one                               ? loss_of_one(source, file)
                             : source.has_marks                     ? "binary-cross-entropy"
                             : source.has_values || columns_.values ? "squared-error"
                                                                    : "cross-entropy";
    const char* length = source.kind == SourceKind::kPlainText ? ", length = 128" : "";
    stage("fit", trained_table(source, length), loss,
          fmt::format(
              "{}# weight-decay = 1e-4  # if it was trained with one\ncheckpoint = {}  # its weights as they are; "
              "to train it here, name a new file: \"run/fit.safetensors\"\n{}",
              of_tokens ? "# or masked-token, of a model that sees the tokens after each\n" : "",
              toml_text(relative(model_->path)), how_trained()));
    assumed_.push_back(fmt::format("the weights of {} as they are, as if trained on {} by {}, without weight decay",
                                   file, source.path.filename().string(),
                                   source.has_targets ? loss : "the loss that it gives"));
  }

  /// Tables, images and tensors: a built-in model, or the weights of one.
  void numbers() {
    const auto& source = only_training();
    if (source.kind == SourceKind::kPlainText || (source.kind == SourceKind::kTensors && source.inputs == 0)) {
      throw UsageError(fmt::format("{} holds texts: name the model's folder before it: whence init MODEL_DIR {}",
                                   source.path.string(), shell_word(source.path.string())));
    }
    if (source.kind == SourceKind::kTable) {
      columns_ = columns_of_inputs(source);
    }
    const bool values = source.kind == SourceKind::kTensors ? source.has_values : columns_.values;
    std::string spec, optimizer = "adam:learning-rate=1e-3,epochs=5,batch-size=64", decay = "1e-3";
    if (model_) {
      const std::vector<std::int64_t> hidden(model_->widths.begin() + 1, model_->widths.end() - 1);
      spec = hidden.empty() ? "linear" : fmt::format("mlp:widths={},activation=relu", fmt::join(hidden, "/"));
      model_text_ = fmt::format("spec = {}  # widths of {}{}\n", toml_text(spec), toml_text(relative(model_->path)),
                                hidden.empty() ? "" : "; files do not tell activations: relu, or tanh, gelu?");
      assumed_.push_back(hidden.empty() ? "a linear model" : "relu after every hidden layer");
    } else {
      const std::string what = source.kind == SourceKind::kTable
                                   ? "convex: it trains to the minimum, and every score is exact"
                               : source.kind == SourceKind::kCifar ? "or mlp:widths=64"
                                                                   : "or linear, convnet:channels=16/32";
      spec = source.kind == SourceKind::kTable   ? "linear"
             : source.kind == SourceKind::kCifar ? "convnet:channels=16/32,pool=avg"
                                                 : "mlp:widths=64,activation=tanh";
      model_text_ = fmt::format("spec = {}  # {}\n", toml_text(spec), what);
      assumed_.push_back(fmt::format("model {}", spec));
    }
    if (source.kind == SourceKind::kTable) {
      optimizer = "lbfgs:max-iterations=500,tolerance=1e-5";
      assume_columns();
    }
    stage("fit", trained_table(source), values ? "squared-error" : "cross-entropy",
          model_ ? fmt::format("checkpoint = {}  # trained elsewhere\n{}", toml_text(relative(model_->path)),
                               how_trained())
                 : fmt::format("weight-decay = {}\noptimizer = {}\ncheckpoint = {}\n", decay, toml_text(optimizer),
                               toml_text(fmt::format("run/{}.safetensors", out_.stem().string()))));
  }

  void queries() {
    if (queries_.empty()) {
      const auto& source = training_.back();
      queries_text_ = fmt::format(
          "\n[queries.sample]  # no test data was named: the first training examples; name what you want explained\n"
          "data = {}\n",
          data_table(source, columns_,
                     source.kind == SourceKind::kPlainText ? ", length = 128, limit = 5" : ", limit = 5"));
      assumed_.push_back("the first 5 examples are the queries");
      return;
    }
    std::set<std::string> names;
    for (const auto& source : queries_) {
      std::string name = queries_.size() == 1 ? "test" : fs::path(source.path.stem()).stem().string();
      std::replace_if(
          name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '-');
      while (!names.insert(name).second) {
        name += "-2";
      }
      queries_text_ +=
          fmt::format("\n[queries.{}]  # what is to be explained; rows = [3, 17] takes some\ndata = {}\n", name,
                      data_table(source, columns_, source.kind == SourceKind::kPlainText ? ", length = 128" : ""));
    }
  }

  fs::path out_;
  std::optional<Source> model_;
  fs::path tokenizer_;  ///< For an exported model.
  ListedClasses classes_;
  std::vector<Source> training_, queries_;
  Columns columns_;  ///< Of the last stage's table, which the queries' has too.
  std::string model_text_, stages_text_, queries_text_;
  std::vector<std::string> assumed_;
};

}  // namespace

Draft draft_pipeline(std::vector<Source> sources, const fs::path& out, const ListedClasses& classes) {
  return Writer(std::move(sources), out, classes).draft();
}

}  // namespace whence::cli
