#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "whence/data/detail/keys.h"
#include "whence/data/detail/texts.h"
#include "whence/data/format.h"

namespace whence::detail {

/// The keys of csv and tsv.
struct TableKeys {
  std::string file;
  std::string label = "label";
  std::vector<std::string> input;
  bool header = true;
  TextKeys texts;
  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("file", self.file, kRequiredPath, "the table");
    field("label", self.label, Takes{"a column name"}, "column of the labels, or of the values a loss asks for");
    field("input", self.input, Takes{"a list of column names", "all but the label"},
          "columns of the inputs where they are numbers");
    field("header", self.header, Takes{"true or false"},
          "whether line 1 names the columns; otherwise they are 0, 1, …");
    TextKeys::fields(self.texts, field);
  }
};

/// What is left of a text, and the line (from 1) that it starts at.
struct TextCursor {
  std::string_view rest;
  std::int64_t line = 1;
};

/// Takes one row off the cursor, whose rest is not empty, with its line's end.
using TakeRow = void (*)(const std::filesystem::path& path, TextCursor& cursor, std::vector<std::string>& cells);

/// Examples of a table, one a row; blank lines are skipped.
SourceExamples read_table(const nlohmann::json& table, std::string_view format, const std::filesystem::path& folder,
                          TargetKind wanted, TakeRow take_row);

}  // namespace whence::detail
