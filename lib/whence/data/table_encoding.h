#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace whence {

/// One column of a table, and what it becomes.
struct TableColumn {
  std::string name;
  std::vector<std::string> levels = {};  ///< Of a category, which has one input a level. Empty: a number.
  double shift = 0, scale = 1;           ///< The input of a number is (cell - shift) / scale.
  std::string fill = {};                 ///< What is read in place of a missing cell; empty: missing cells are refused.
};

/// How the cells of a table become inputs. Fitted once, on the training data of the first stage that is a table; the
/// tables of later stages and of queries are read by it, their columns found by name. docs/tables.md.
struct TableEncoding {
  std::vector<TableColumn> columns;      ///< Numbers first, then categories.
  std::string label;                     ///< The column of the labels.
  std::string missing;                   ///< The key `missing`.
  bool standardize = false;              ///< Whether numbers have mean 0 and deviation 1 over the data of the fit.
  std::vector<std::string> labels = {};  ///< The columns of the values, where there are several; `label` is the first.

  /// Inputs of an example.
  std::int64_t width() const;
  /// What each input is called: "age", "workclass=Private".
  std::vector<std::string> names() const;
  /// The columns of one example, as its file has them, from its inputs [width]: ("age", "39"), ("workclass",
  /// "Private"). A level that the fit has not seen is "other".
  std::vector<std::pair<std::string, std::string>> cells(const at::Tensor& inputs) const;
};

}  // namespace whence
