#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "whence/data/dataset.h"
#include "whence/training/optimizer.h"

namespace whence {

/// What a training is judged by as it goes on: examples from which it learns nothing.
struct Validation {
  /// Reads them; called as a training begins, and never for what is only loaded.
  std::function<Dataset()> data = {};
  std::int64_t patience = 5;  ///< Training ends when so many measurements in a row were no better; 0: never for that.
  std::int64_t every = 0;     ///< Iterations from one measurement to the next; 0: an epoch.
  std::int64_t draws = 0;    ///< Models of a tuning's fixed bank (ManyModels) that compute each example; 0: as a query.
  bool by_accuracy = false;  ///< Better is a higher accuracy, of equal ones a lower loss; else a lower loss.
};

/// Throws InvalidArgument where a validation asks for what there is not: draws of a tuning that has none, or an
/// accuracy of what are no classes.
void check_validation(const Validation& validation, const Dataset& data, const Objective& objective,
                      const TensorList& theta, const TensorList& parent);

/// What a validation says of parameters: the mean over its examples, and over the draws, of their loss in the stage's
/// measure and of whether the highest output is the example's class. Between batches it reports "validate" events.
/// Throws what check_validation() throws, and NumericalError where the loss is not finite. Cost: max(1, draws) forward
/// passes over its examples.
ValidationResult validate(const Validation& validation, const Dataset& data, const Objective& objective,
                          const TensorList& theta, const TensorList& parent, std::int64_t iteration,
                          const Progress& progress);

/// The place of the best of some results, the first of equal ones. Throws std::logic_error without any.
std::size_t best_of(const std::vector<ValidationResult>& results, bool by_accuracy);

/// An optimizer whose training is measured by a validation, ends when patience does, and leaves the parameters that
/// were best when measured. Its summary says what was measured, and is converged where the parameters are those that
/// the optimizer itself converged at. Interrupted, it goes on to the same bits. L. Prechelt, "Early Stopping - But
/// When?", 1998. Where training begins is not measured: the first measurement is after `every` iterations. What
/// check_validation() throws is thrown before the first iteration.
std::shared_ptr<const Optimizer> stopping_early(std::shared_ptr<const Optimizer> optimizer, Validation validation);

}  // namespace whence
