#pragma once
#include <optional>
#include <string>
#include <vector>

#include "whence/curvature/curvature.h"

namespace whence::detail {

/// Where the weights and biases of the model's layers lie in a flat vector: the trained parameters, or the parent. A
/// layer's entries are a matrix [outputs, columns]: its weight, flattened, and its bias as the last column (the
/// homogeneous coordinate), where they are there.
class LayerLayout {
 public:
  struct Layer {
    std::string name;  ///< Of its weight; each group of a convolution is a layer, with its number behind the name.
    std::string weight_name;
    std::int64_t group = 0;
    std::int64_t weight = -1, bias = -1;  ///< Offsets; -1 where not in the vector.
    std::int64_t outputs = 0;
    std::int64_t inputs = 0;  ///< Columns of the weight; 0 where it is not in the vector.
    bool transposed = false;  ///< The weight is stored as [inputs, outputs].
    std::int64_t columns() const { return inputs + (bias >= 0 ? 1 : 0); }
    std::int64_t entries() const { return outputs * columns(); }
  };

  /// What is covered beside the layers, as others().
  enum class Beside {
    kNothing,
    kRows,  ///< What an example's gradient is had of without forming a matrix: parameters of norms, of embeddings that
            ///< are no head, biases of nothing else, and what a tuning makes a weight of.
    kDiagonal  ///< Those, heads tied to an embedding, and layers of which a side is longer than `widest`.
  };

  /// A parameter that is no part of a layer's matrix here, by where it lies.
  struct Other {
    std::string name;
    std::int64_t offset = 0, entries = 0;
  };

  /// Null when an entry of `names` is no weight or bias of a layer that the model's tape records, or is not used as it
  /// is: `values`, the tensors behind the names, must be what `merged` holds.
  static std::optional<LayerLayout> of(const Objective& objective, const ParameterSet& merged,
                                       const std::vector<std::string>& names, const TensorList& values,
                                       Beside beside = Beside::kNothing, std::int64_t widest = 0);

  Beside beside() const { return beside_; }
  const std::vector<Layer>& layers() const { return layers_; }
  const std::vector<Other>& others() const { return others_; }
  std::int64_t entries() const { return entries_; }
  /// [K, P] to [K, outputs, columns].
  static at::Tensor gather(const Layer& layer, const at::Tensor& x);
  /// out [K, P] += part [K, outputs, columns] at the layer's places.
  static void add(const Layer& layer, const at::Tensor& part, at::Tensor& out);

 private:
  std::vector<Layer> layers_;
  std::vector<Other> others_;
  Beside beside_ = Beside::kNothing;
  std::int64_t entries_ = 0;
};

/// The layout of what the point trains, or null (see LayerLayout::of).
std::optional<LayerLayout> trained_layout(const CurvaturePoint& point,
                                          LayerLayout::Beside beside = LayerLayout::Beside::kNothing,
                                          std::int64_t widest = 0);
/// Why that is null, for whoever asked: the first parameter outside, or that the stage is primed.
std::string outside_layers(const CurvaturePoint& point, LayerLayout::Beside beside = LayerLayout::Beside::kNothing,
                           std::int64_t widest = 0);
/// Of the rows of J.
std::optional<LayerLayout> parent_layout(const CurvaturePoint& point);

}  // namespace whence::detail
