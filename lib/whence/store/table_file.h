#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

namespace whence {

/// One column of a table of results: numbers or texts, a row an entry.
struct OutputColumn {
  std::string name;
  at::Tensor numbers = {};              ///< [rows] int64, float32 or float64; undefined: texts.
  std::vector<std::string> texts = {};  ///< UTF-8.
};

/// Each writes a file that appears whole or not at all. Numbers are written so that they are read back to the bit. All
/// columns must have as many rows. Throws DataError with the system's reason, NumericalError on a number that is not
/// finite.

/// Comma separated with a header, quoted as RFC 4180 has it, lines ending in a line feed: as pandas.read_csv reads. A
/// text that begins with = + - @ and is no number gets an apostrophe before it, so that no spreadsheet computes it.
void write_csv(const std::filesystem::path& path, const std::vector<OutputColumn>& columns);
/// One object a row, the columns' names its keys: as pandas.read_json(lines=True) reads.
void write_jsonl(const std::filesystem::path& path, const std::vector<OutputColumn>& columns);
/// As numpy.load reads without pickle. Any shape.
void write_npy(const std::filesystem::path& path, const at::Tensor& numbers);
/// Texts as numpy's fixed-width unicode.
void write_npy(const std::filesystem::path& path, const std::vector<std::string>& texts);

}  // namespace whence
