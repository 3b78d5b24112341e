#pragma once
#include <string>
#include <vector>

#include "sniff.h"

namespace whence::cli {

/// What the columns of a table are taken for.
struct Columns {
  std::string text, pair, answer, label;
  bool values = false;  ///< Labels are numbers to be compared with, not classes.
  std::vector<std::string> ignored;
  std::vector<std::string> constant;  ///< Of the ignored ones: the same in every row.
  bool fills = false;                 ///< Cells of numbers are missing.
};

/// For a model of texts: the columns that it reads, and the label or the answer. Told by their names, and where those
/// do not tell by what is in them. Throws DataError where no column holds texts.
Columns columns_of_texts(const Source& table);
/// For a model of numbers: the label, and which of the other columns are no inputs. Throws DataError where there is no
/// label or no input.
Columns columns_of_inputs(const Source& table);

}  // namespace whence::cli
