#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/core/random.h"
#include "whence/core/registry.h"
#include "whence/data/batch.h"
#include "whence/tuning/tuning.h"

namespace whence {

/// How a stage is trained so that what a later stage adds to its body learns well: an inner loop, whose steps the
/// stage's objective contains, adapts few parameters to each task, the body standing still.
class Priming {
 public:
  virtual ~Priming() = default;
  /// The spec of the tuning whose parameters the inner loop trains, one that leaves the body as it is.
  virtual const std::string& inner() const = 0;
  /// The share of each task's examples that the inner loop sees.
  virtual double support() const = 0;
  virtual std::int64_t inner_steps() const = 0;
  /// Whether outer gradients go through the inner loop. Where not, what the outer loop follows is no objective's
  /// gradient.
  virtual bool is_exact() const = 0;
  /// Where the inner loop takes `start`: after inner_steps() steps down `loss`. With `graph` a differentiable function
  /// of `start` and of all that the loss is one of; else detached.
  virtual TensorList adapt(const TensorList& start, const std::function<at::Tensor(const TensorList&)>& loss,
                           bool graph) const = 0;
};

WHENCE_DECLARE_ROOM(Priming)

/// One task of a primed stage: rows of its data, [S] and [Q] int64 on the CPU, rising.
struct PrimingTask {
  std::string name;
  at::Tensor support;  ///< What the inner loop is trained on.
  at::Tensor query;    ///< What its result is judged by.
};

/// Tasks from the name of each example's, in the order in which the names come up. Of each, round(support n) examples,
/// one at least, are its support, drawn by `random` and the task's name, and the others its query. Throws
/// InvalidArgument for a task of a single example.
std::vector<PrimingTask> split_tasks(const std::vector<std::string>& names, double support, const Random& random);

/// What the objective of a primed stage contains.
class InnerStage {
 public:
  /// Every task starts at `start`, the parameters that the tuning trains (Tuning::trainable), additions too. Throws
  /// InvalidArgument without tasks.
  InnerStage(std::shared_ptr<const Priming> priming, std::shared_ptr<const Tuning> tuning, ParameterSet start,
             std::vector<PrimingTask> tasks);

  const Priming& priming() const { return *priming_; }
  const Tuning& tuning() const { return *tuning_; }
  const ParameterSet& start() const { return start_; }
  /// The same as `like`'s dtype on its device.
  ParameterSet start_like(const at::Tensor& like) const;
  const std::vector<PrimingTask>& tasks() const { return tasks_; }

  /// The rows of the tasks `which` ([M] int64), task by task, each one's support before its query.
  at::Tensor rows(const at::Tensor& which) const;
  /// The tasks that such rows are of: [M] int64. Throws InvalidArgument where they are no whole tasks in that order.
  at::Tensor tasks_of(const at::Tensor& rows) const;
  /// Of scores [Q, N] of examples those of the tasks' terms, [Q, T] float64 on the CPU: the sums over their query
  /// examples, all of whose weights a term's own would raise at once.
  at::Tensor of_tasks(const at::Tensor& scores) const;
  /// The same with some of the tasks.
  InnerStage over(const at::Tensor& which) const;

 private:
  std::shared_ptr<const Priming> priming_;
  std::shared_ptr<const Tuning> tuning_;
  ParameterSet start_;
  std::vector<PrimingTask> tasks_;
  std::map<std::int64_t, std::int64_t> by_first_row_;
};

}  // namespace whence
