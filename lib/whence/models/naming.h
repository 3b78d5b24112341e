#pragma once
#include <map>
#include <string>

#include "whence/core/parameters.h"

namespace whence {

/// What a checkpoint of another program calls a tensor, or a layer ("fc1": its weight and bias), and its name here.
using Renaming = std::map<std::string, std::string>;

/// Tensors under other names.
struct NamedTensors {
  ParameterSet tensors;
  std::string note;  ///< Which names went where, in one line; empty where none had to change.
};

/// `found`, tensors of a checkpoint that another program may have written, under the names of `expected`: as `rename`
/// says, then without a prefix that all share ("module."), then, where `by_shape`, layer by layer in order and by
/// shape: the layers of one shape in the order of the numbers in their names (nn.Sequential's 0, 2, 4, or fc1, fc2). As
/// they are where some names are expected ones and nothing is renamed. Throws DataError that begins with `where` and
/// ends with what to type: where a renamed tensor is not there, nothing has the name it is to get, no layer has the
/// shape of one, or several may be one.
NamedTensors with_expected_names(const ParameterSet& expected, const ParameterSet& found, const Renaming& rename,
                                 bool by_shape, const std::string& where);

}  // namespace whence
