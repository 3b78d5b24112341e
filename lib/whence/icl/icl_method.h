#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "whence/core/registry.h"

namespace whence {

struct Advice;
struct RidgeOptions;

/// The n demonstrations of a prompt and q queries asked after them, as a model sees them. Methods ask for the tensors
/// they need; the labels are always there. Any floating type and device; the algebra is float64 on the CPU.
struct IclTask {
  at::Tensor labels = {};            ///< [n] int64, 0 .. classes - 1.
  std::int64_t classes = 0;          ///< C.
  at::Tensor query_labels = {};      ///< [q] int64; -1 where the right answer is not known.
  at::Tensor targets = {};           ///< [n, C]: in place of one-hot labels, where outputs are no classes.
  at::Tensor query_targets = {};     ///< [q, C]; NaN where the right answer is not known.
  at::Tensor states = {};            ///< [L, n, d]: the demonstrations' hidden states in L layers.
  at::Tensor query_states = {};      ///< [L, q, d].
  at::Tensor embeddings = {};        ///< [n, e]: of the demonstrations' texts, by any embedding model.
  at::Tensor query_embeddings = {};  ///< [q, e].
  at::Tensor attention =
      {};  ///< [..., q, n]: weights from a query's position to a demonstration's, any heads and layers.

  at::Tensor surprisal = {};  ///< [n]: minus the log-probability of each output after other demonstrations.

  std::int64_t demonstrations() const { return labels.size(0); }
  std::int64_t queries() const { return query_labels.size(0); }
};

/// Throws InvalidArgument unless both labels have their shape, type and range, with at least one demonstration.
void check_labels(const IclTask& task);

/// What a method says of the demonstrations: float64 on the CPU, undefined where the method has no such score.
struct IclScores {
  at::Tensor test = {};           ///< [q, n]; positive: the demonstration helps the query.
  at::Tensor self = {};           ///< [n]; high: the others do not explain the demonstration, a suspect.
  at::Tensor leave_one_out = {};  ///< [q, n]; positive: without the demonstration the query's loss is higher.
  at::Tensor prediction = {};     ///< [q, C].
  at::Tensor foretold = {};       ///< [n, C]: the prediction for each demonstration by the others.
};

/// What a method reads of an IclTask besides labels and targets.
struct IclNeeds {
  bool states = false, embeddings = false, attention = false, surprisal = false;
};

/// A way to say which demonstrations of a prompt an answer comes from.
class IclMethod {
 public:
  virtual ~IclMethod() = default;
  virtual IclNeeds needs() const = 0;
  /// Throws InvalidArgument where the task lacks what the method needs or a shape is wrong, NumericalError where a
  /// number is not finite.
  virtual IclScores score(const IclTask& task) const = 0;

  /// Of a method whose scores are a ridge regression's on hidden states: its options; else null. Such have scores of
  /// each layer, can choose layers by a validation set, and can order and select demonstrations.
  virtual const RidgeOptions* regression() const { return nullptr; }
  /// What high self scores, which are suspects, rest on, in a word for people and icl.json; empty where they tell no
  /// wrong label.
  virtual std::string_view self_by() const { return {}; }
  /// Which demonstrations to take out by `scores`, which are this method's of the task; none where the method cannot
  /// say. `helpful` [n]: mean test scores over queries whose answer is known; undefined: not asked.
  virtual std::optional<Advice> advise(const IclTask& task, const IclScores& scores, const at::Tensor& helpful) const;
};

WHENCE_DECLARE_ROOM(IclMethod)

}  // namespace whence
