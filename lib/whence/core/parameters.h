#pragma once
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "whence/core/tensors.h"

namespace whence {

class Addition;  // models/addition.h
/// What tunings put at a model's layers, by the layer's module: its weight's name without ".weight".
using Additions = std::map<std::string, std::vector<std::shared_ptr<const Addition>>, std::less<>>;

/// Named tensors in a fixed order: everything a model is made of, or the part of it that a stage trains. Cheap to copy.
class ParameterSet {
 public:
  ParameterSet();
  ParameterSet(std::initializer_list<std::pair<std::string, at::Tensor>> values);
  /// Throws InvalidArgument on a repeated name.
  void add(std::string name, at::Tensor value);

  std::size_t size() const { return values_.size(); }
  bool empty() const { return values_.empty(); }
  const std::vector<std::string>& names() const { return index_->names; }
  const TensorList& values() const { return values_; }
  bool contains(std::string_view name) const;
  /// Throws InvalidArgument with the nearest known name.
  const at::Tensor& at(std::string_view name) const;

  /// The same names over other values, given in the same order.
  ParameterSet with(TensorList values) const;
  /// The same names over f(value).
  template <class Function>
  ParameterSet each(const Function& f) const {
    TensorList out;
    for (const auto& value : values_) {
      out.push_back(f(value));
    }
    return with(std::move(out));
  }
  /// Those whose name starts with `prefix`, in order; `without` gives the others.
  ParameterSet select(std::string_view prefix) const;
  ParameterSet without(std::string_view prefix) const;
  /// Those that `others` does not name.
  ParameterSet without(const ParameterSet& others) const;
  /// These and then `other`'s, additions too; names must not meet.
  ParameterSet join(const ParameterSet& other) const;

  /// What the operations do at layers besides multiplying with these weights; null: nothing. It goes with the set into
  /// with(), join() and to(), not into a part of it.
  const std::shared_ptr<const Additions>& additions() const { return additions_; }
  ParameterSet with_additions(std::shared_ptr<const Additions> additions) const;

  /// Copies of every tensor, detached, as `dtype` on `device`.
  ParameterSet to(at::ScalarType dtype, at::Device device) const;
  std::int64_t entries() const { return count_entries(values_); }

 private:
  template <class Wanted>
  ParameterSet filtered(const Wanted& wanted) const;

  struct Index {
    std::vector<std::string> names;
    std::unordered_map<std::string, std::size_t> position;
  };
  std::shared_ptr<const Index> index_;
  TensorList values_;
  std::shared_ptr<const Additions> additions_;
};

/// K vectors of a model's parameters, or of some of them, by name: [K, ...shape] each. What is absent is 0. They travel
/// between rooms so, because a stage mostly moves a part of a model.
using Directions = ParameterSet;

/// Of `count` directions of a parameter: [count, ...its shape].
std::vector<std::int64_t> direction_shape(std::int64_t count, const at::Tensor& parameter);
/// The block [K, P] as directions of the parameters of `layout`, P entries in all: views.
Directions directions_of(const at::Tensor& block, const ParameterSet& layout);
/// |v_k| over all parameters: [K] float64 on the CPU.
at::Tensor direction_norms(const Directions& v);

}  // namespace whence
