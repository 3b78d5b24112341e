#pragma once
#include <memory>
#include <vector>

#include "whence/models/addition.h"

namespace whence {

/// What an addition also is that spans many models: each draw of a fixed bank takes one of them.
class ManyModels {
 public:
  virtual ~ManyModels() = default;
  /// The addition as draw `number`, from 0, has it, for every example alike.
  virtual std::shared_ptr<const Addition> drawn(std::int64_t number) const = 0;
  /// Draws whose mean prediction counts where examples are no stage's own; 0: they are computed with one model.
  virtual std::int64_t ensemble() const = 0;
};

/// Theta with the additions of the first `draws` draws, one each. Throws InvalidArgument where nothing in it is drawn.
std::vector<ParameterSet> drawn_models(const ParameterSet& theta, std::int64_t draws);

/// Draws whose mean prediction counts with theta; 0 where predictions are those of one model.
std::int64_t ensemble_of(const ParameterSet& theta);

/// The models whose mean predicts a batch: theta alone, or the draws of its ensemble where the batch is not sampled.
std::vector<ParameterSet> predicting_models(const ParameterSet& theta, const Batch& batch);

/// The mean prediction of models that give `outputs`, each [rows, C]: where targets are values the mean, and of classes
/// the logarithm of the mean of the probabilities, whose softmax are these. Of one model its output as it is.
at::Tensor mean_prediction(const std::vector<at::Tensor>& outputs, const Batch& batch);

}  // namespace whence
