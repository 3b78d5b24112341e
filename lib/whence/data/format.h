#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "whence/core/registry.h"
#include "whence/data/dataset.h"

namespace whence {

/// Rows of a source of texts: cells by column.
struct SourceRecords {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
  std::vector<std::int64_t> lines;  ///< Where each row starts in its file, from 1.
  bool blocks = false;              ///< One long text, to be cut into examples.
};

namespace detail {
class CellTable;
}

/// Examples as their source holds them, before classes are numbered and any example is dropped.
struct SourceExamples {
  at::Tensor inputs;                         ///< [N, ...] any real dtype; undefined for
  std::shared_ptr<detail::CellTable> table;  ///< the cells of a table, to be encoded, and texts, which have:
  SourceRecords records;                     ///< texts as they are written, or
  TokenSequences tokens;                     ///< as tokens, without a tokenizer.
  double scale = 1;                          ///< Multiplies the inputs: 1/255 for bytes.

  /// One of these three holds the targets, or none where the loss asks for none.
  at::Tensor labels;                            ///< [N] int64.
  std::vector<std::string> label_cells;         ///< As they are written; an empty one is missing.
  at::Tensor values;                            ///< [N, k] floating.
  bool labels_are_names = false;                ///< The format says that labels are classes, whatever the loss.
  std::string label_column;                     ///< As messages name it; empty: targets have no column.
  std::vector<std::string> value_columns = {};  ///< That `values` come from, where several columns of a table do.
  std::vector<InputShape> arguments = {};       ///< Of a model that takes several: what lies end to end in `inputs`.

  std::vector<std::filesystem::path> files;
  std::vector<Origin> origins = {};       ///< Where rows come from; empty: all from inputs_from.
  std::string inputs_from, targets_from;  ///< The files of each, as messages name them.
};

/// One way in which examples are stored.
class DataFormat {
 public:
  virtual ~DataFormat() = default;
  /// Every key that a table of this format may hold besides `format`: name, default, what it takes, help.
  virtual std::vector<OptionInfo> keys() const = 0;
  /// Reads what `table` names, relative to `folder`. Throws InvalidArgument naming the key, DataError naming the file
  /// and the place in it.
  virtual SourceExamples read(const nlohmann::json& table, const std::filesystem::path& folder,
                              TargetKind wanted) const = 0;

  /// Whether a source is rows of cells under columns that have names, one of which holds the labels.
  virtual bool has_columns() const { return false; }
  /// Whether a row may hold anything beside the columns asked for, which are then the only ones read.
  virtual bool has_loose_rows() const { return false; }
  /// Whether its texts may be tokens already, for which no tokenizer is needed.
  virtual bool may_hold_tokens() const { return false; }
};

WHENCE_DECLARE_ROOM(DataFormat)

}  // namespace whence

/// Ends the file of a format: defines the function that the room's registry names. What other methods have for options
/// are keys here.
#define WHENCE_FORMAT(id, Type)                                     \
  std::unique_ptr<DataFormat> make_##id(std::string_view options) { \
    parse<NoOptions>(options, detail::method_name(#id));            \
    return std::make_unique<Type>();                                \
  }
