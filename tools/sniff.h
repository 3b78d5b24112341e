#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "whence/models/exported/exported_model.h"
#include "whence/models/model.h"

namespace whence::cli {

/// What a path that a user names seems to hold.
enum class SourceKind {
  kModelFolder,  ///< A Hugging Face directory.
  kCheckpoint,   ///< A safetensors file of weights.
  kExported,     ///< What torch.export.save wrote (.pt2).
  kTokenizer,    ///< A tokenizer.json, or a folder with one and no model.
  kTable,        ///< csv, tsv or jsonl: columns.
  kPlainText,
  kIdx,  ///< Images, with `labels` beside them.
  kCifar,
  kTensors,  ///< A safetensors file of examples.
};

struct Source {
  SourceKind kind = SourceKind::kTable;
  std::filesystem::path path = {};
  std::string format = {};  ///< As in a data table.

  std::vector<std::string> columns = {};            ///< kTable, kTensors: names; kTable: the first rows' cells.
  std::vector<std::vector<std::string>> rows = {};  ///< An absent cell is empty.
  std::set<std::string> structured = {};          ///< kTable: other columns, which hold a list or an object somewhere.
  std::filesystem::path labels = {};              ///< kIdx.
  std::vector<std::filesystem::path> files = {};  ///< kCifar.
  std::vector<std::int64_t> widths = {};          ///< kCheckpoint: inputs, units of each layer, outputs.
  bool classifies = false;                        ///< kModelFolder: whether its weights have a classification head,
  bool masked = false;                            ///< whether it predicts hidden tokens rather than next ones.
  std::int64_t inputs = 0;                        ///< kTensors: numbers of an example; 0: texts as tokens.
  bool has_targets = true;                        ///< kTensors: else they are a model's arguments alone,
  bool has_values = false;                        ///< whether targets are floating,
  bool has_marks = false;                         ///< and each several of 0 or 1: of a class that an example is or not;
  bool has_bits = false;                          ///< kTensors: each of 0 or 1, several or one.
  ExportedFacts program = {};                     ///< kExported.
  bool is_queries() const;                        ///< By its name: test, dev, valid, …
  /// Whether it is a model, and not data.
  bool is_model() const {
    return kind == SourceKind::kModelFolder || kind == SourceKind::kCheckpoint || kind == SourceKind::kExported;
  }
};

/// Looks into a file or folder; a folder of data files gives several. `program` is the exported model that is there
/// too: tensors of its arguments' names are examples. Throws DataError, with what is expected, where nothing is
/// recognised.
std::vector<Source> sniff(const std::filesystem::path& path, const ExportedFacts& program = {});

/// An exported model, none of its modules a head. Throws DataError for what is none.
std::unique_ptr<Model> open_exported(const std::filesystem::path& path);

/// What a column of a table holds.
struct ColumnFacts {
  std::int64_t filled = 0, numbers = 0, whole = 0, distinct = 0;
  std::int64_t bits = 0;  ///< Numbers that are 0 or 1.
  double words = 0;       ///< The mean of a cell's.
  bool is_number() const { return filled > 0 && numbers == filled; }
  bool is_text() const { return !is_number() && words >= 3; }
};
std::map<std::string, ColumnFacts> facts_of(const Source& table);

}  // namespace whence::cli
