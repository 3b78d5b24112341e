#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "whence/data/detail/keys.h"
#include "whence/data/format.h"

namespace whence::detail {

/// Which examples of a source are kept, and what a loss compares their outputs with.
struct Targets {
  std::vector<std::int64_t> rows;              ///< Of the source, in order.
  std::vector<std::int64_t> numbers;           ///< The class of each; empty for values and tokens.
  std::vector<std::string> classes;            ///< What the classes are called.
  std::map<std::string, std::int64_t> places;  ///< The class that each label of the data or of `classes` stands for.
  at::Tensor values;                           ///< [rows, k]; undefined for classes and tokens.
  std::string note = {};                       ///< What was decided, for people; empty: nothing to tell.
};

/// The targets of the first `limit` examples after `skip` of those that `classes` and `drop-labels` leave.
///
/// Where the labels are classes, their numbers are their places in `reading.known_classes`; else in what the checkpoint
/// knows (`reading.head`); else in the key `classes`; else among the source's distinct labels, numbers by value and
/// words by their bytes. Labels that are numbers may stand for names (`reading.number_names`). Throws DataError naming
/// the place of a label that is missing or unknown, InvalidArgument where it is the user who must say which class is
/// which.
Targets find_targets(const SourceExamples& source, const CommonKeys& keys, const std::string& format,
                     const DataReading& reading);

}  // namespace whence::detail
