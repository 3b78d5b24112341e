#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "whence/core/error.h"
#include "whence/data/batch.h"
#include "whence/data/table_encoding.h"

namespace whence {

/// What a loss compares outputs with: class numbers (or a share for each class), values as they are, values from 0 to 1
/// that are the probabilities of events, or, of texts, the token after each place or the tokens that were hidden. Of
/// data, values of any kind are kValues.
enum class TargetKind { kClasses, kValues, kNextTokens, kMaskedTokens, kProbabilities };
inline bool are_tokens(TargetKind kind) { return kind == TargetKind::kNextTokens || kind == TargetKind::kMaskedTokens; }

class Tokenizer;

/// The tokens of N texts, end to end.
struct TokenSequences {
  at::Tensor tokens;           ///< [S] int32: what the model is given.
  at::Tensor types;            ///< [S] uint8 token types; undefined: all 0.
  at::Tensor targets;          ///< [S] int32: the token to be predicted at each place, -1 for none. Undefined: classes.
  at::Tensor begins, lengths;  ///< [N] int64: where each text lies.
  at::Tensor asked;            ///< [N] int64: the place in each text where a word is asked for. Undefined: none is.
  at::Tensor words;            ///< [C] int64: the tokens of the words that stand for the classes.
  std::int64_t vocabulary = 0;
  std::int64_t cut = 0;                        ///< Texts that were longer than the longest allowed, and lost their end.
  std::shared_ptr<const Tokenizer> tokenizer;  ///< Null where the tokens came without one.
};

/// A file whose rows are examples.
struct Origin {
  std::int64_t first_id = 0;  ///< Of the file's first row.
  std::filesystem::path file;
  bool blocks = false;  ///< Rows are blocks of one long text, or of texts that were split.
};

/// Examples in memory or in a mapped file, with ids that survive every filter. Immutable and cheap to copy.
class Dataset {
 public:
  struct Contents {
    at::Tensor inputs;  ///< [N, ...] any real dtype; kept as it is stored until a batch is asked for. Undefined: texts.
    /// [N] int64 class numbers, or [N, k] floating values, k = 0: none. Undefined: tokens are predicted.
    at::Tensor targets;
    at::Tensor ids;    ///< [N] int64.
    double scale = 1;  ///< Multiplies the inputs of every batch: 1/255 for stored bytes.
    at::Tensor mean = {},
               deviation = {};         ///< [1, C, 1, …] double: then subtracted, and divided by. Undefined: neither.
    std::vector<std::string> classes;  ///< Name of each class number; empty for values.
    std::vector<std::filesystem::path> files;        ///< Where it came from.
    std::vector<Origin> origins = {};                ///< Where its rows came from, ids rising.
    TokenSequences texts = {};                       ///< In place of inputs.
    TargetKind predicted = TargetKind::kNextTokens;  ///< Which tokens texts.targets are.
    std::shared_ptr<const TableEncoding> table =
        {};                               ///< What made `inputs` of a table's cells; null: they are no table.
    std::vector<std::string> notes = {};  ///< What the reader decided, a line each, for people.
  };
  Dataset() = default;
  /// Throws InvalidArgument unless the shapes agree, every class number has a name and every value is finite.
  explicit Dataset(Contents contents);

  std::int64_t size() const;
  const at::Tensor& ids() const { return contents_.ids; }
  const at::Tensor& targets() const { return contents_.targets; }
  TargetKind target_kind() const;
  bool is_text() const { return contents_.texts.tokens.defined(); }
  const TokenSequences& texts() const { return contents_.texts; }
  const std::vector<std::string>& classes() const { return contents_.classes; }
  const std::vector<std::filesystem::path>& files() const { return contents_.files; }
  const std::vector<std::string>& notes() const { return contents_.notes; }
  /// What is subtracted from the channels of every batch and what they are divided by, [1, C, 1, …] double; undefined:
  /// neither.
  const at::Tensor& mean() const { return contents_.mean; }
  const at::Tensor& deviation() const { return contents_.deviation; }
  /// How a table's columns became inputs; null where the examples are no table.
  const std::shared_ptr<const TableEncoding>& table() const { return contents_.table; }
  /// What each input of a table is called ("age", "workclass=Private"); empty where the examples are no table.
  std::vector<std::string> columns() const;
  /// The columns of the example in `row` as its file has them: ("age", "39"), ("workclass", "Private"). Empty where the
  /// examples are no table.
  std::vector<std::pair<std::string, std::string>> cells(std::int64_t row) const;
  /// Width of a prediction: the number of classes, or of values an example, or of the vocabulary.
  std::int64_t outputs() const;
  /// Outputs that a model needs a head for: none where it predicts tokens or words.
  std::int64_t head_outputs() const;
  /// Shape of one example's input; empty for texts.
  std::vector<std::int64_t> input_shape() const;
  /// What is predicted, examples or, of texts, places: the bound of TokenLayout::serials.
  std::int64_t predictions() const;
  /// Tokens of all texts, and of the longest.
  std::int64_t tokens() const;
  std::int64_t longest() const;

  /// Examples begin .. end-1 with scaled inputs in the dataset's floating type (float64 until to() is called); values
  /// are in that type too. Inputs and targets are on the dataset's device, ids and rows on the CPU. Views of the
  /// dataset where nothing is to be converted: not to be changed in place. Texts are laid out in rows as long as the
  /// batch's longest, as many to a row as fit, unless packing is off.
  Batch batch(std::int64_t begin, std::int64_t end) const;
  /// The examples of `rows` ([B] int64 on the CPU), in that order.
  Batch batch(const at::Tensor& rows) const;
  /// The same examples with batches as `dtype` on `device`, converted from what is stored, whatever this dataset's
  /// type. Converts once and keeps the result when that takes at most 1 GiB.
  Dataset to(at::ScalarType dtype, at::Device device) const;
  /// What batches come in: to(), or float64 on the CPU.
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }
  /// The input of the example in `row` before `mean` and `deviation`: an image's pixels, in 0 to 1 where they are
  /// bytes.
  at::Tensor picture(std::int64_t row) const;
  /// The text of each token of the text in `row`, which together are the text; the numbers of tokens that came without
  /// a tokenizer.
  std::vector<std::string> token_texts(std::int64_t row) const;
  /// Files that rows come from, their ids rising; empty where none is known.
  const std::vector<Origin>& origins() const { return contents_.origins; }
  /// Where the example in `row` comes from: "row 17 of train.tsv", counted from 0, a header apart; "row 17" where no
  /// file is known.
  std::string origin(std::int64_t row) const;
  /// The same texts with one a row.
  Dataset without_packing() const;
  /// The same examples as those of a stage: what a tuning draws for each example it draws for them (Batch::sampled).
  Dataset as_sampled() const;
  /// The examples of `rows` ([B] int64 on the CPU), with their ids.
  Dataset take(const at::Tensor& rows) const;

 private:
  friend std::string dataset_digest(const Dataset& data);
  /// What `make` says of these examples, once for them and their copies.
  const std::string& digest(const std::function<std::string()>& make) const;
  struct Once {
    std::once_flag made;
    std::string text;
  };
  Batch make_batch(at::Tensor inputs, at::Tensor targets, const at::Tensor& rows) const;
  Batch text_batch(const at::Tensor& rows) const;
  void check_rows(const at::Tensor& rows) const;
  void check_reach(at::ScalarType dtype) const;

  Contents contents_;
  at::Tensor ready_inputs_;  // scaled, in dtype_ on device_; undefined where each batch is converted on its own
  at::ScalarType dtype_ = at::kDouble;
  at::Device device_ = at::kCPU;
  std::shared_ptr<Once> digest_ = std::make_shared<Once>();
  bool packed_ = true;
  bool sampled_ = false;
};

/// What a model of texts asks of the data.
struct TextReading {
  std::shared_ptr<const Tokenizer> tokenizer;  ///< Null: tokens must come as such.
  std::int64_t vocabulary = 0;                 ///< Tokens that the model knows.
  std::int64_t context = 0;                    ///< The most tokens of an example.
};

/// What a checkpoint that is there knows of its outputs.
struct HeadClasses {
  std::int64_t outputs = 0;             ///< 0: nothing is known, as where no checkpoint is there.
  std::vector<std::string> names = {};  ///< The class of each output; empty: the checkpoint does not say.
  bool sorted = false;                  ///< Whether words that are not listed are in order: so whence numbered them.
  std::string from = {};                ///< The checkpoint, as messages name it.

  /// Whether labels are the numbers of its outputs, all or some of them.
  bool are_places(const std::vector<std::string>& labels) const;
};

/// Thrown where nothing says which class each output of a checkpoint is: the key `classes` must.
class ClassesNeeded : public InvalidArgument {
 public:
  ClassesNeeded(const std::string& text, std::vector<std::string> of_examples, std::int64_t of_head)
      : InvalidArgument(text), labels(std::move(of_examples)), outputs(of_head) {}
  std::vector<std::string> labels;  ///< Those that the examples have, in order.
  std::int64_t outputs;
};

/// What one input of an example is.
struct InputShape {
  std::string name;  ///< Of several, which lie end to end in Dataset::inputs; of one alone "".
  std::vector<std::int64_t> sizes;
};

/// What examples are read for.
struct DataReading {
  TargetKind wanted = TargetKind::kClasses;
  /// The classes of the stage that the examples are for, where another table settled them. They then fix the numbering,
  /// and a label outside them is an error.
  std::vector<std::string> known_classes = {};
  HeadClasses head = {};  ///< Settles the classes where nothing else does.
  /// What another program calls its outputs 0, 1, …: labels that are whole numbers and none of these names are those
  /// outputs, wherever the classes are called by these names.
  std::vector<std::string> number_names = {};
  /// Throws where inputs of these shapes, read from that file, do not fit the model; it is asked before labels are
  /// settled. Empty: any shape goes.
  std::function<void(const std::vector<InputShape>& shapes, const std::string& from)> check_shapes = {};
  const TextReading* texts = nullptr;                    ///< Not null: texts are wanted.
  std::shared_ptr<const TableEncoding> table = nullptr;  ///< Of the chain; null: fitted here.
  bool standardize = false;                              ///< Of tables that do not say, where it is fitted here.
};

/// Reads the dataset that a pipeline's data table describes: {"format": "idx", "images": PATH, "labels": PATH,
/// "classes": [5, 6], "limit": 500}; interface.md lists the formats and `whence methods data` their keys. Paths are
/// relative to `folder`; any file may be gzipped (.gz). `classes` keeps only those labels and numbers them in the order
/// given, then `limit` keeps the first so many. A list
/// of tables is their texts one after the other, with ids that go on from table to table. Throws DataError naming the
/// file and the place, InvalidArgument naming the key.
Dataset read_dataset(const nlohmann::json& table, const std::filesystem::path& folder, const DataReading& reading);
/// Throws the InvalidArgument of read_dataset() for a table that names no format or a key that its format does not
/// know. Reads nothing.
void check_data_keys(const nlohmann::json& table);
Dataset read_dataset(const nlohmann::json& table, const std::filesystem::path& folder, TargetKind wanted,
                     const std::vector<std::string>& known_classes = {}, const TextReading* texts = nullptr);

}  // namespace whence
