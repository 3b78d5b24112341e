// `whence init`: a pipeline file to begin with, from a look at what the user has.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <set>

#include "cli.h"
#include "say.h"
#include "sniff.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/json.h"
#include "whence/core/quoted.h"
#include "whence/core/text.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace po = boost::program_options;
namespace {

std::string in_lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

/// The first of `names` that is a column; empty where none is.
template <class Names>
std::string first_column(const Source& table, const Names& names) {
  for (const char* name : names) {
    for (const auto& column : table.columns) {
      if (in_lower_case(column) == name) {
        return column;
      }
    }
  }
  return "";
}

/// What the columns of a table are taken for.
struct Columns {
  std::string text, pair, answer, label;
  bool values = false;  ///< Labels are numbers to be compared with, not classes.
  std::vector<std::string> ignored;
  std::vector<std::string> constant;  ///< Of the ignored ones: the same in every row.
  bool fills = false;                 ///< Cells of numbers are missing.
};

constexpr std::array kLabelNames{"label", "labels", "class", "target", "y", "category", "sentiment", "intent"};
constexpr std::array kLabelWordsNames{"label_name", "label_text"};

/// Whether a column that is called as labels are is the label once more, or a finer one that tells it.
bool tells_label(const Source& table, const std::map<std::string, ColumnFacts>& facts, const std::string& column,
                 const std::string& label) {
  const auto lower = in_lower_case(column);
  const auto is_one_of = [&](const auto& names) { return std::find(names.begin(), names.end(), lower) != names.end(); };
  if (!is_one_of(kLabelNames) && !is_one_of(kLabelWordsNames)) {
    return false;
  }
  const auto place = [&](const std::string& name) {
    return static_cast<std::size_t>(std::find(table.columns.begin(), table.columns.end(), name) -
                                    table.columns.begin());
  };
  const auto from = place(column), to = place(label);
  std::map<std::string, std::string> known;
  bool identical = true;
  for (const auto& row : table.rows) {
    identical = identical && row[from] == row[to];
    if (known.try_emplace(row[from], row[to]).first->second != row[to]) {
      return false;
    }
  }
  // numbers that hardly ever repeat tell anything
  const auto& fact = facts.at(column);
  return identical || fact.distinct * 2 <= fact.filled ||
         (fact.distinct == facts.at(label).distinct && fact.distinct < fact.filled);
}

std::string guess_label(const Source& table, const std::map<std::string, ColumnFacts>& facts, const std::string& text) {
  auto found = first_column(table, kLabelNames);
  const auto named = first_column(table, kLabelWordsNames);
  if (!named.empty() && (found.empty() || facts.at(named).distinct == facts.at(found).distinct)) {
    return named;  // the same classes, in words
  }
  if (found.empty() && table.columns.size() > 1 && text.empty()) {
    found = table.columns.back();  // where most tables have it
  } else if (found.empty() && !text.empty()) {
    for (const auto& column : table.columns) {
      const auto& fact = facts.at(column);
      if (column != text && !fact.is_text() && fact.distinct >= 2 && fact.distinct <= 100 &&
          fact.distinct * 2 <= fact.filled) {
        found = column;
      }
    }
  }
  return found;
}

/// A column that only numbers the rows: whole, each number once, and called so.
bool numbers_rows(const std::string& name, const ColumnFacts& fact) {
  return fact.whole > 2 && fact.whole == fact.filled && fact.distinct == fact.filled &&
         (name == "id" || name == "ID" || name == "index" || name.ends_with("_id") || name.ends_with("Id"));
}

Columns guess_columns(const Source& table, bool for_texts) {
  constexpr std::int64_t kFewValues = 20, kMostLevels = 256;
  const auto facts = facts_of(table);
  Columns out;
  if (for_texts) {
    const std::pair<const char*, const char*> answers[] = {
        {"prompt", "completion"}, {"instruction", "output"}, {"instruction", "response"}, {"question", "answer"}};
    for (const auto& [asked, answer] : answers) {
      if (facts.contains(asked) && facts.contains(answer)) {
        out.text = asked;
        out.answer = fmt::format("{{{}}}", answer);
        return out;
      }
    }
    const std::pair<const char*, const char*> pairs[] = {
        {"sentence1", "sentence2"}, {"premise", "hypothesis"}, {"question1", "question2"}, {"text1", "text2"}};
    for (const auto& [one, two] : pairs) {
      if (facts.contains(one) && facts.contains(two)) {
        out.text = one;
        out.pair = two;
      }
    }
    if (out.text.empty()) {
      static constexpr std::array kNames{"text",    "sentence", "content",   "review", "message",
                                         "comment", "body",     "utterance", "story",  "document"};
      out.text = first_column(table, kNames);
    }
    if (out.text.empty()) {
      double most = 0;
      for (const auto& [name, fact] : facts) {
        if (!fact.is_number() && fact.words > most) {
          most = fact.words;
          out.text = name;
        }
      }
    }
    if (out.text.empty()) {
      throw DataError(
          fmt::format("{}: no column of texts among {}", table.path.string(), fmt::join(table.columns, ", ")));
    }
    out.label = guess_label(table, facts, out.text);
    return out;
  }
  out.label = guess_label(table, facts, "");
  if (out.label.empty()) {
    throw DataError(table.columns.empty() ? fmt::format("{}: no columns", table.path.string())
                                          : fmt::format("{}: one column, {}, is no table of inputs and labels",
                                                        table.path.string(), table.columns.front()));
  }
  const auto& labels = facts.at(out.label);
  out.values = labels.is_number() && (labels.whole < labels.numbers || labels.distinct > kFewValues);
  std::size_t inputs = 0, texts = 0;
  out.ignored.assign(table.structured.begin(), table.structured.end());
  for (const auto& column : table.columns) {
    const auto& fact = facts.at(column);
    if (column == out.label) {
      continue;
    }
    const bool constant = table.rows.size() > 1 && fact.distinct <= 1 &&
                          (fact.filled == 0 || fact.filled == static_cast<std::int64_t>(table.rows.size()));
    if (constant || tells_label(table, facts, column, out.label) || numbers_rows(column, fact) ||
        (!fact.is_number() && fact.distinct > kMostLevels)) {
      out.ignored.push_back(column);
      if (constant) {
        out.constant.push_back(column);
      }
      texts += fact.is_text() ? 1 : 0;
      continue;
    }
    ++inputs;
    out.fills = out.fills || (fact.is_number() && fact.filled < static_cast<std::int64_t>(table.rows.size()));
  }
  if (inputs == 0) {
    std::vector<std::string> reasons;
    if (!out.constant.empty()) {
      reasons.push_back(fmt::format(": {} the same in every row", fmt::join(out.constant, ", ")));
    }
    if (!table.structured.empty()) {
      reasons.push_back(fmt::format(": {} holds lists or objects", fmt::join(table.structured, ", ")));
    }
    throw DataError(texts > 0 ? fmt::format("{}: the columns besides {} are texts, which a model of texts reads: "
                                            "whence init MODEL_DIR {}",
                                            table.path.string(), out.label, shell_word(table.path.string()))
                              : fmt::format("{}: no column besides {} can be an input{}", table.path.string(),
                                            out.label, fmt::join(reasons, "")));
  }
  return out;
}

/// A pipeline file in the making.
class Draft {
 public:
  Draft(std::vector<Source> sources, fs::path out) : out_(std::move(out)) {
    for (auto& source : sources) {
      if (source.kind == SourceKind::kModelFolder || source.kind == SourceKind::kCheckpoint) {
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

  std::string text() {
    if (model_ && model_->kind == SourceKind::kModelFolder) {
      texts();
    } else {
      numbers();
    }
    queries();
    return fmt::format(
        "# A start, written by `whence init`: change what is wrong. docs/pipelines.md tells every key.\n"
        "seed = 0\n\n[model]\n{}{}{}",
        model_text_, stages_text_, queries_text_);
  }
  const std::vector<std::string>& assumed() const { return assumed_; }

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
      const auto columns = source.kind == SourceKind::kTable ? guess_columns(source, true) : Columns{};
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
                        "here: \"run/fit\"\n",
                        toml_text(relative(model_->path))));
      assumed_.push_back(fmt::format("the weights of {} as they are, trained on {}", model_->path.string(),
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
              as_is ? fmt::format("checkpoint = {}  # a classifier already\n", toml_text(relative(model_->path)))
                    : fmt::format("weight-decay = 1e-3\noptimizer = \"adam:learning-rate=1e-4,epochs=2,"
                                  "batch-size=16\"\ncheckpoint = \"run/{}\"\n",
                                  name)));
      assumed_.push_back(fmt::format("{}column {} of {} is classified into {}", as_is ? "as it is, " : "", columns.text,
                                     source->path.filename().string(), columns.label));
      columns_ = columns;
    }
  }

  /// Tables, images and tensors: a built-in model, or the weights of one.
  void numbers() {
    const auto& source = training_.front();
    if (training_.size() > 1) {
      throw UsageError(fmt::format("two training sets, {} and {}: call one test or dev, or name one",
                                   training_[0].path.string(), training_[1].path.string()));
    }
    if (source.kind == SourceKind::kPlainText || (source.kind == SourceKind::kTensors && source.inputs == 0)) {
      throw UsageError(fmt::format("{} holds texts: name the model's folder before it: whence init MODEL_DIR {}",
                                   source.path.string(), shell_word(source.path.string())));
    }
    if (source.kind == SourceKind::kTable) {
      columns_ = guess_columns(source, false);
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
      assumed_.push_back(fmt::format("label {}, {}", columns_.label, values ? "a number" : "a class"));
      if (!columns_.ignored.empty()) {
        assumed_.push_back(fmt::format("without the columns {}{}", fmt::join(columns_.ignored, ", "),
                                       columns_.constant.empty() ? ""
                                                                 : fmt::format(" ({} the same in every row)",
                                                                               fmt::join(columns_.constant, ", "))));
      }
      if (columns_.fills) {
        assumed_.push_back("missing numbers are their column's median");
      }
    }
    stage("fit", data_table(source, columns_), values ? "squared-error" : "cross-entropy",
          model_ ? fmt::format("checkpoint = {}  # trained elsewhere\n", toml_text(relative(model_->path)))
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
  std::vector<Source> training_, queries_;
  Columns columns_;  ///< Of the last stage's table, which the queries' has too.
  std::string model_text_, stages_text_, queries_text_;
  std::vector<std::string> assumed_;
};

/// Reads what was written, so that nothing is left that does not run. How many examples of what there are.
std::vector<std::string> check(const fs::path& path, const RunOptions& options) {
  const Pipeline pipeline(path, options);
  std::vector<std::string> out;
  bool trained = true;
  for (std::size_t k = 0; k < pipeline.stages().size(); ++k) {
    const auto& data = pipeline.training_data(k);
    constexpr std::size_t kShown = 5;
    const auto& classes = data.classes();
    const std::vector<std::string> shown(
        classes.begin(), classes.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, classes.size())));
    out.push_back(fmt::format(
        "{} examples{}", data.size(),
        classes.empty()
            ? ""
            : fmt::format(
                  " of {}{}", fmt::join(shown, ", "),
                  classes.size() > kShown ? fmt::format(" and {} more classes", classes.size() - kShown) : "")));
    trained = trained && pipeline.is_trained(k);
  }
  for (const auto& split : pipeline.query_splits()) {
    pipeline.queries(split, 1);
  }
  if (trained) {
    pipeline.load();
  }
  return out;
}

}  // namespace

int init(const std::vector<std::string>& arguments) {
  CommandLine line("init", "[MODEL_DIR] DATA... [--out FILE.toml]",
                   "Looks at a model's folder or checkpoint and at data files, and writes a pipeline that runs. A name "
                   "with test, dev or valid makes queries of a file.");
  line.positionals("PATHS",
                   "a Hugging Face folder or a .safetensors of weights, if there is a model; then csv, tsv, "
                   "jsonl, txt, idx, CIFAR or safetensors data");
  line.add()("out", po::value<std::string>(), "the pipeline file; default: the data's name, here");
  if (!line.parse(arguments)) {
    return kDone;
  }
  std::vector<Source> sources;
  for (const auto& path : line.get<std::vector<std::string>>("PATHS")) {
    auto found = sniff(path);
    std::move(found.begin(), found.end(), std::back_inserter(sources));
  }
  const auto named = std::find_if(sources.begin(), sources.end(), [](const Source& source) {
    return source.kind != SourceKind::kModelFolder && source.kind != SourceKind::kCheckpoint;
  });
  auto stem = named == sources.end() ? std::string("pipeline") : named->path.filename().string();
  stem = stem.substr(0, std::min(stem.find('.'), stem.size()));
  stem = stem.empty() ? "pipeline" : stem;
  const fs::path out = line.has("out") ? fs::path(line.text("out")) : fs::path(stem + ".toml");
  Draft draft(std::move(sources), out);
  const auto text = draft.text();
  if (fs::exists(out)) {
    throw InvalidArgument(
        fmt::format("{} is there already and stays as it is: --out OTHER.toml, or remove it", out.string()));
  }
  write_text(out, text);
  std::vector<std::string> told;
  try {
    told = check(out, line.run_options());
  } catch (...) {
    std::error_code ignored;
    fs::remove(out, ignored);
    throw;
  }
  const auto& assumed = draft.assumed();
  told.insert(told.end(), assumed.begin(), assumed.end());
  const Pipeline pipeline(out, line.run_options());
  bool trained = true;
  for (std::size_t k = 0; k < pipeline.stages().size(); ++k) {
    trained = trained && pipeline.is_trained(k);
  }
  const auto stage = pipeline.stages().size() == 1 ? "" : " --stage all";
  const auto word = shell_word(out.string());
  const auto next = trained ? fmt::format("whence rank {}{}", word, stage)
                            : fmt::format("whence train {} && whence rank {}{}", word, word, stage);
  if (line.flag("json")) {
    say("{}\n",
        Ready{json_text(nlohmann::ordered_json{{"pipeline", out.string()}, {"assumed", told}, {"next", next}}, 2)});
  } else {
    say("{}: {}\nnext: {}\n", out.string(), fmt::format("{}", fmt::join(told, "; ")), next);
  }
  return kDone;
}

}  // namespace whence::cli
