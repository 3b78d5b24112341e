#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/training/objective.h"

namespace whence {

/// What parameters are, for filters to go by.
struct FilteredParameter {
  std::string name;
  bool embedding = false;  ///< A table that tokens, places or types are looked up in; also where it is the head too.
  bool head = false;       ///< Of the stage's own head, or of what makes a language model's logits, tied or not.
  bool bias = false;       ///< Added to what a layer gives: a bias, a norm's, or what a bias tuning adds.
  bool tuning = false;     ///< Added by a tuning, not of the model.
};
using ParameterFilter = std::function<bool(const FilteredParameter&)>;

/// The ready-made filters, joined by "+" where several are to hold at once ("no-embeddings+no-head"):
///   all             every parameter that the stage trains
///   no-embeddings   without embeddings
///   no-head         without the head; of a language model whose head is its embedding, without that too
///   biases          biases alone
///   tuning          what the tuning added alone
///   body            what the tuning did not add, and no head
/// Throws InvalidArgument with the known words.
ParameterFilter parse_parameter_filter(std::string_view words);

/// What the stage trains, each told apart by how one example's pass uses it. Cost: a forward pass of an example.
std::vector<FilteredParameter> kernel_parameters(const Objective& objective, const TensorList& theta,
                                                 const TensorList& parent);
/// The names that a filter keeps. Throws InvalidArgument, with `words` and what the stage trains, where none is left.
std::vector<std::string> filtered_parameters(const Objective& objective, const TensorList& theta,
                                             const TensorList& parent, std::string_view words = "all");

}  // namespace whence
