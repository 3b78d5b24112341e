#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "whence/kernels/tangent_kernel.h"
#include "whence/models/taped_pass.h"

namespace whence::detail {

/// One factor of the gradients of a use of a matrix: at each position l of an example, its row along one of the
/// matrix's two sides.
struct Side {
  at::Tensor values;  ///< [B, C or 1, L, n]: C where it is the signal, which every output has its own of.
  at::Tensor picks;   ///< [B, L] int64 in place of values: one-hot rows, what an embedding saw; -1: a row of zeros.
  bool is_picks() const { return picks.defined(); }
  std::int64_t outputs() const;    ///< C or 1.
  std::int64_t positions() const;  ///< L
};
/// One use: gradients are the sums over l of first_l second_l', [B, C, height, width].
struct MatrixUse {
  Side first, second;
  bool input_first = false;  ///< Which of the two is what the layer saw, the other being the signal.
  const Side& input() const { return input_first ? first : second; }
  const Side& signal() const { return input_first ? second : first; }
};

/// Gradients of the outputs in one parameter, of a block's examples: sums over uses.
struct ParameterGradients {
  std::string name;
  std::int64_t height = 0, width = 0;  ///< Of a matrix, `first` being along its height.
  at::Tensor places;  ///< [A] int64, rising: the rows of the height that `first` is given at, all others being 0
                      ///< for the whole block; undefined: all.
  std::vector<MatrixUse> uses;  ///< Of a matrix.
  at::Tensor formed;            ///< [B, C, entries]: of any other parameter, in place of uses.
  /// What `first` has for its n: A, or the height.
  std::int64_t active() const { return places.defined() ? places.numel() : height; }
};

/// What a forward pass and one backward pass an output leave of a block of examples: all that products of their
/// gradients with others' need.
class TapedBlock {
 public:
  /// Examples begin .. end-1, at most `pass` of them going through the model at a time. `merged` is the point's model,
  /// `taped` taped_names() of it.
  TapedBlock(const KernelPoint& point, const ParameterSet& merged, const std::vector<std::string>& taped,
             const Dataset& data, std::int64_t begin, std::int64_t end, std::int64_t pass);

  std::int64_t examples() const { return examples_; }
  std::int64_t outputs() const { return outputs_; }
  const std::vector<ParameterGradients>& parameters() const { return parameters_; }  ///< In the order of point.names.
  double bytes() const;                                                              ///< Held now.
  double pass_bytes() const { return pass_bytes_; }  ///< What a pass held at most, estimated.

 private:
  /// What one pass leaves.
  std::vector<ParameterGradients> passed(const KernelPoint& point, const ParameterSet& merged,
                                         const std::vector<std::string>& taped, const Dataset& data, std::int64_t begin,
                                         std::int64_t end);
  void form_by_autograd(const KernelPoint& point, const Dataset& data, std::int64_t begin,
                        const std::vector<std::string>& names);

  std::int64_t examples_, outputs_ = 0;
  std::vector<ParameterGradients> parameters_;
  double pass_bytes_ = 0;
};

/// Which of a point's names a recorded layer owns and uses as they are; the others go by autograd.
std::vector<std::string> taped_names(const KernelPoint& point, const ParameterSet& merged, const Dataset& data);

}  // namespace whence::detail
