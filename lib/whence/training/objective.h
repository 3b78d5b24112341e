#pragma once
#include <functional>
#include <memory>
#include <optional>

#include "whence/data/dataset.h"
#include "whence/models/loss.h"
#include "whence/models/model.h"
#include "whence/tuning/tuning.h"

namespace whence {

class InnerStage;  // training/priming.h
struct PrimingTask;

/// What a stage minimises over theta, the parameters that it trains, given the body `parent` that the stage before
/// handed on:
///
///   Phi(theta; parent) = (1/N) sum_i w_i loss_i(theta; parent) + penalty(theta; parent),   w_i = 1 unless set.
///
/// The penalty is the tuning's, and where it has one its coupling (tuning.h). Batches are of the stage's own examples:
/// what a tuning draws it draws for them (Batch::sampled).
///
/// With an inner stage the data is of tasks, and Phi the mean over tasks t instead, S_t and Q_t being its examples:
///
///   Phi(theta; parent) = (1/T) sum_t mean_{i in Q_t} w_i loss_i(theta, light_t) + penalty(theta; parent),
///
/// where light_t is what inner training on mean_{i in S_t} w_i loss_i makes of the light parameters, whose start is
/// the same for every task.
///
/// Theta and parent are lists in the order of trained().names() and parent_layout().names(). Sums over the data go
/// batch by batch, so memory is that of one batch's graph; the batch size changes no result beyond rounding.
class Objective {
 public:
  Objective(std::shared_ptr<const Model> model, std::shared_ptr<const Loss> loss, std::shared_ptr<const Tuning> tuning,
            Dataset data, double weight_decay, ParameterSet trained, ParameterSet parent, std::int64_t batch_size);

  const Dataset& data() const { return data_; }
  const Loss& loss() const { return *loss_; }
  const Model& model() const { return *model_; }
  const Tuning& tuning() const { return *tuning_; }
  /// Names and shapes (the values are those given to the constructor).
  const ParameterSet& trained() const { return trained_; }
  const ParameterSet& parent_layout() const { return parent_; }
  double weight_decay() const { return weight_decay_; }
  std::int64_t batch_size() const { return batch_size_; }

  /// The same of tasks, each of them adapted to by an inner stage, whose start is light parameters for the body that
  /// this stage hands on.
  Objective with_inner(std::shared_ptr<const InnerStage> inner) const;
  /// Null: it has none.
  const InnerStage* inner() const { return inner_.get(); }
  /// Whether there is a Gauss-Newton matrix of it: its loss is of outputs, and no inner stage comes between. Else the
  /// Hessian is its only curvature with mixed products.
  bool has_gauss_newton() const { return !inner_ && loss_->is_of_output(); }

  /// What Phi is the mean of, penalty apart: examples, or where there is an inner stage tasks.
  std::int64_t terms() const;
  /// The examples of the terms `which` ([M] int64 on the CPU), in that order.
  Batch terms_batch(const at::Tensor& which) const;
  /// The terms of a batch of whole ones: [M] int64 on the CPU. Throws InvalidArgument for one that holds part of a
  /// task.
  at::Tensor terms_in(const Batch& batch) const;
  /// Terms that go through the model at a time.
  std::int64_t terms_at_once() const { return inner_ ? 1 : batch_size_; }
  /// Forward passes that the loss of a term takes, in those of its examples: 1 without an inner stage.
  double passes_a_term() const;

  /// The same objective with example weights w [N]; undefined means ones.
  Objective with_weights(at::Tensor weights) const;
  Objective with_batch_size(std::int64_t batch_size) const;
  /// The same with the model's passes in another dtype, the parameters being cast on their way: mixed precision.
  Objective with_compute_type(at::ScalarType dtype) const;
  /// The same, with theta and parent as the values of trained() and parent_layout(): one copy in memory, not two.
  Objective at(const TensorList& theta, const TensorList& parent) const;
  /// The same with parameters and batches in another dtype, the data from what is stored: what rounding did to the
  /// inputs is undone where the dtype is wider. Theta and parent are then to be given in it.
  Objective to(at::ScalarType dtype) const;
  /// The same over some of its terms, whose mean it then is: `which` [M] int64 on the CPU.
  Objective over(const at::Tensor& which) const;

  /// The model's parameters, and what the operations do besides (ParameterSet::additions). With an inner stage, as its
  /// training begins.
  ParameterSet merge(const TensorList& theta, const TensorList& parent) const;
  /// The body that the next stage receives.
  ParameterSet hand_on(const TensorList& theta, const TensorList& parent) const;
  at::Tensor output(const TensorList& theta, const TensorList& parent, const Batch& batch, Tape* tape = nullptr) const;
  /// [B], unweighted. Throws InvalidArgument where there is an inner stage: examples of a task have no losses apart.
  at::Tensor example_losses(const TensorList& theta, const TensorList& parent, const Batch& batch) const;
  /// Of the terms in a batch of whole ones: [M]. Those of examples are unweighted.
  at::Tensor term_losses(const TensorList& theta, const TensorList& parent, const Batch& batch) const;
  at::Tensor penalty(const TensorList& theta, const TensorList& parent) const;
  /// The two that it is the sum of; the coupling is undefined where there is none.
  at::Tensor quadratic_penalty(const TensorList& theta, const TensorList& parent) const;
  at::Tensor coupling(const TensorList& theta) const;
  /// (1/N) sum over the batch of w_i loss_i. Summed over a partition into batches it is Phi without the penalty.
  at::Tensor batch_loss(const TensorList& theta, const TensorList& parent, const Batch& batch) const;
  /// What batch_loss multiplies each example's loss by, w_i / N: [B]. Without an inner stage.
  at::Tensor batch_weights(const Batch& batch) const;
  /// Calls body(batch) over the whole dataset, in order, and check_interruption() before each.
  void for_each_batch(const std::function<void(const Batch&)>& body) const;

  /// How many forward passes over all the data, in float64, take a few seconds and a copy of 256 MiB at most, by what
  /// the tape records of one example: what is measured by the way is measured where that allows. A product with the
  /// Hessian or the Gauss-Newton matrix takes as long as about six.
  double affordable_passes(const TensorList& theta, const TensorList& parent) const;

  /// Phi, and its gradient in theta where `gradient` is not null, and where `losses` is not null those of the terms,
  /// [terms()] float64, unweighted. Cost: one pass over the data. Throws NumericalError on a value that is not finite.
  double value(const TensorList& theta, const TensorList& parent, TensorList* gradient,
               at::Tensor* losses = nullptr) const;

 private:
  void pass(const std::function<void(const Batch&)>& body) const;
  at::Tensor weighted_sum(const at::Tensor& losses, const Batch& batch) const;
  at::Tensor model_output(const ParameterSet& model, const Batch& batch, Tape* tape) const;
  at::Tensor task_loss(const TensorList& theta, const TensorList& parent, const PrimingTask& task) const;

  std::shared_ptr<const Model> model_;
  std::shared_ptr<const Loss> loss_;
  std::shared_ptr<const Tuning> tuning_;
  Dataset data_;
  double weight_decay_;
  ParameterSet trained_, parent_;
  std::int64_t batch_size_;
  at::Tensor weights_;
  std::optional<at::ScalarType> compute_type_;
  std::shared_ptr<const InnerStage> inner_;
};

/// How far a checkpoint is from a minimum of its objective.
struct Stationarity {
  double objective = 0;
  double gradient_norm = 0;           ///< |grad Phi|
  double data_gradient_norm = 0;      ///< root mean square over terms of |grad loss_i|, of more than 256 an estimate
  double relative_gradient_norm = 0;  ///< gradient_norm / data_gradient_norm
};

/// Cost: one pass over the data, forward and backward, and four backward over 256 terms at most: the 128 of the largest
/// losses, and of the others as many drawn at random. Where those take a few seconds at most they are made in float64,
/// so that rounding is not taken for a minimum, nor a minimum for rounding; where they take longer one backward pass
/// gives the lengths of the terms' gradients, of a model whose layers are known and parameters that are its own.
Stationarity stationarity(const Objective& objective, const TensorList& theta, const TensorList& parent);

}  // namespace whence
