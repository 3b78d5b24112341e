#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "whence/data/detail/cells.h"
#include "whence/data/detail/keys.h"
#include "whence/data/detail/texts.h"
#include "whence/data/format.h"
#include "whence/data/table_encoding.h"

namespace whence::detail {

/// The keys that say how the columns of a table become inputs.
struct EncodingKeys {
  std::vector<std::string> input, ignore, categorical;
  bool standardize = false;
  std::string missing = "auto";
  std::string unknown = "refuse";
  std::int64_t levels = 256;
  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("input", self.input, Takes{"a list of column names", "all but the label"},
          "columns of the inputs, where they are no texts");
    field("ignore", self.ignore, Takes{"a list of column names", "none"}, "columns that are no inputs");
    field("categorical", self.categorical, Takes{"a list of column names", "those that hold words"},
          "columns whose numbers are names: one input for each level in the training data");
    field("standardize", self.standardize, Takes{"true or false", "true, false for a checkpoint made elsewhere"},
          "numbers get mean 0 and deviation 1 over the training data of the first stage");
    field("missing", self.missing, Takes{"auto, refuse, mean, median or mode"},
          "empty cells, ?, NA, NaN, null. auto: a level of its own in a category, refused as a number; refuse: always; "
          "else what a number gets, and a category its own level but for mode");
    field("unknown", self.unknown, Takes{"refuse or zeros"},
          "a level that the training data lacks: an error, or no level at all");
    field("levels", self.levels, Takes{">= 1", "", false, 1}, "the most levels of a category");
  }
};

inline constexpr std::string_view kLabelsHelp =
    "columns of numbers in place of label: one an output, of a loss that takes several (shares of classes, 0 or 1 of "
    "each event, values)";

/// The keys of csv and tsv.
struct TableKeys {
  std::string file;
  std::string label = "label";
  std::vector<std::string> labels;
  bool header = true;
  EncodingKeys encoding;
  TextKeys texts;
  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("file", self.file, kRequiredPath, "the table");
    field("label", self.label, Takes{"a column name"}, "column of the labels, or of the values a loss asks for");
    field("labels", self.labels, Takes{"a list of column names", "none"}, kLabelsHelp);
    field("header", self.header, Takes{"true or false"},
          "whether line 1 names the columns; otherwise they are 0, 1, …");
    EncodingKeys::fields(self.encoding, field);
    TextKeys::fields(self.texts, field);
  }
};

/// What is left of a text, and the line (from 1) that it starts at.
struct TextCursor {
  std::string_view rest;
  std::int64_t line = 1;
};

/// Takes one row off the cursor, whose rest is not empty, with its line's end.
using TakeRow =
    std::function<void(const std::filesystem::path& path, TextCursor& cursor, std::vector<std::string>& cells)>;

/// How the rows of a csv or tsv file that begins so are taken.
TakeRow csv_rows(std::string_view text);
TakeRow tsv_rows(std::string_view text);

/// Rows of a table, one a row of text; blank lines are skipped. `rows_of(text)` is how the rows of a file that begins
/// so are taken.
SourceExamples read_table(const nlohmann::json& table, std::string_view format, const std::filesystem::path& folder,
                          TargetKind wanted, const std::function<TakeRow(std::string_view text)>& rows_of);

/// Whether a table's columns `labels` hold the targets, rather than `label`. Throws InvalidArgument where both are
/// given, or a column is listed twice.
bool has_value_columns(const nlohmann::json& table, std::string_view format, const std::vector<std::string>& labels);
/// The number in the cell of a column `labels`. Throws DataError with the place where there is none.
double target_value(std::string_view cell, const std::filesystem::path& path, std::int64_t line,
                    const std::string& column);

/// The encoding that `rows` of a table ask for. `standardize` holds where the key does not say. Adds to `notes` what
/// was decided, in words. Throws DataError naming the line and column of a cell that does not do, with the key that
/// makes it do.
TableEncoding fit_encoding(const CellTable& cells, const std::vector<std::int64_t>& rows,
                           const std::vector<std::string>& labels, const nlohmann::json& table,
                           const std::string& format, bool standardize, std::vector<std::string>& notes);

/// `rows` of a table as inputs [rows, width] in float64. Throws as fit_encoding().
at::Tensor encode(const TableEncoding& encoding, const CellTable& cells, const std::vector<std::int64_t>& rows,
                  const nlohmann::json& table, const std::string& format);

}  // namespace whence::detail
