#pragma once
#include <ATen/core/function_schema.h>
#include <ATen/core/ivalue.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "whence/core/json.h"

namespace whence::detail {

/// In what a program runs: its tensors' type and place need not be those it was exported with.
struct Setting {
  at::ScalarType exported = at::kFloat;  ///< The type of the file's parameters,
  at::ScalarType wanted = at::kFloat;    ///< and theta's, which takes its place.
  at::Device device = at::kCPU;

  /// What stands for a dtype of the file: parameters' type becomes theta's, another floating one widens with it.
  at::ScalarType type(at::ScalarType type) const;
  at::Tensor tensor(const at::Tensor& x) const;
};

/// The values of a program that runs, by slot.
using Slots = std::vector<c10::IValue>;

/// The slots of a graph's names.
class SlotNames {
 public:
  /// Throws DataError for a name that is no value of the graph so far.
  int at(const JsonView& name) const;
  int add(const std::string& name);
  int count() const { return count_; }

 private:
  std::map<std::string, int> slots_;
  int count_ = 0;
};

/// One argument of an operator: a value of the file, the value of a slot, or a list of such.
class Operand {
 public:
  /// `json` is an Argument of the export schema. Throws DataError for one of a kind that is not run.
  static Operand of(const JsonView& json, const SlotNames& slots);
  static Operand fixed(c10::IValue value);
  static Operand of_slot(int slot);

  /// As an operator wants its argument; null: as it is.
  c10::IValue value(const Slots& slots, const Setting& setting, const c10::Argument* wanted) const;
  /// The slot, where it is one; else -1.
  int slot() const { return slot_; }
  /// Every slot that it reads.
  std::vector<int> reads() const;
  /// The file's value where it is none of a slot.
  const c10::IValue& constant() const { return fixed_; }

 private:
  enum class Kind { kFixed, kSlot, kList, kType, kDevice };

  Kind kind_ = Kind::kFixed;
  c10::IValue fixed_;
  int slot_ = -1;
  std::vector<Operand> parts_;
};

/// A value as an argument of `wanted` takes it: a number as a tensor that promotes like a number, an int as a double,
/// one number for each of n, lists of their element's type.
c10::IValue coerced(const c10::IValue& value, const c10::Argument& wanted);

/// A double of the export's JSON, where what is not finite is a word.
double read_double(const JsonView& json);

}  // namespace whence::detail
