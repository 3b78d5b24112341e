#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "whence/core/progress.h"
#include "whence/kernels/tangent_kernel.h"
#include "whence/store/score_sink.h"

namespace whence {

/// What a kernel's blocks may take.
struct KernelLimits {
  double bytes = 8e9;            ///< Beside the model, its data and the kernel itself,
  double at_most = 0;            ///< or this where one example alone takes more.
  std::int64_t block = 0;        ///< Examples a block; 0: as many as the bytes allow.
  std::int64_t most_block = 64;  ///< At most so many where `block` is 0.
};

/// How a kernel is made, and what that costs. The same model, data and limits give the same plan, so that a run that
/// was interrupted goes on with the same blocks, and ends with the same bits.
struct KernelPlan {
  std::int64_t rows = 0, columns = 0, outputs = 0;  ///< Examples on each side, and C.
  bool halved = false;                              ///< Rows are the columns, of a symmetric kernel: blocks below the
                                                    ///< diagonal are made, those above mirrored.
  std::int64_t block = 0;                           ///< Examples a block, on both sides,
  std::int64_t pass = 1;                            ///< and examples that go through the model at a time.
  double block_bytes = 0;      ///< What the pass of a block holds, with the block that it is to meet.
  double scratch_bytes = 0;    ///< For products, at most, of two blocks whose passes are over.
  double matrix_bytes = 0;     ///< Of the kernel, rows x C x columns x C float64: where it lies is the sink's affair.
  double forward_passes = 0;   ///< Of one example.
  double backward_passes = 0;  ///< Of one example and output, without gradients of weights.
  double pass_bytes = 0;       ///< What a forward pass of the longest example and its backward ones hold,
  double pass_seconds = 0;     ///< and take.
  double seconds = 0;          ///< All, on a quiet machine of two cores, in float32, by counted operations.
  double peak_bytes() const { return std::max(block_bytes, scratch_bytes); }
  /// "64 x 64 examples, 2 outputs, blocks of 32: 10.4 GB beside the model, kernel 0.1 MB, 96 forward and 192 backward
  /// passes of an example, about 60.3 s".
  std::string text() const;
};

/// The plan for `rows` against `columns`; null: against themselves, the training kernel. Cost: the passes of the
/// longest example, twice. Throws InvalidArgument with the sizes where a block of one example does not fit the limit,
/// where names are empty or not trained, or where one side is empty.
KernelPlan plan_kernel(const TangentKernel& kernel, const KernelPoint& point, const Dataset& rows,
                       const Dataset* columns, const KernelLimits& limits = {});

/// Where memory is limited: a third of what is left, and all of it for an example that takes more (core/memory.h).
KernelLimits kernel_limits();

/// Makes the kernel block by block. The sink's rows and columns are (example, output) pairs, example * C + output: a
/// ScoreStore of rows C by columns C cells in float64 resumes after a kill (store/score_store.h), and a KernelMatrix
/// below keeps all in memory. Blocks that the sink has are not made again. Progress is told in blocks.
///
/// A linear layer's, convolution's or embedding's part is the sum over pairs of positions of <input, input'> <signal,
/// signal'>, one side after the other or both at once, or the product of gradients that are formed a part at a time,
/// whichever takes fewer multiplications: "ghost" products, I. Goodfellow 2015. Of a parameter that is used several
/// times (a tied one, a layer used twice) or is the source of a pulled weight, gradients are summed over the uses
/// first. A kernel that is not plain has them formed, a part of a parameter at a time, never all. Parameters that no
/// recorded layer owns (what makes a prefix) go by autograd, an example and output at a time. Products are in
/// algebra_type() of the model's dtype, and so are sums over one layer's positions where they go one side after the
/// other; all other sums are in float64: a sign kernel's are whole numbers.
///
/// Throws NumericalError where an entry is not finite.
void make_kernel(const TangentKernel& kernel, const KernelPoint& point, const Dataset& rows, const Dataset* columns,
                 const KernelPlan& plan, ScoreSink& sink, const Progress& progress = {});

/// Keeps a kernel in memory.
class KernelMatrix : public ScoreSink {
 public:
  /// Throws InvalidArgument, with the sizes, where it does not fit a memory limit (core/memory.h).
  explicit KernelMatrix(const KernelPlan& plan);
  bool has(std::int64_t first_row, std::int64_t rows, std::int64_t first_column, std::int64_t columns) const override;
  void block(std::int64_t first_row, std::int64_t first_column, const at::Tensor& values) override;
  /// [rows, C, columns, C] float64.
  at::Tensor tensor() const;

 private:
  at::Tensor values_, made_;
  std::int64_t rows_, columns_, outputs_;
};

/// plan_kernel(), make_kernel() and KernelMatrix in one: [rows, C, columns, C] float64 on the CPU.
at::Tensor kernel_of(const TangentKernel& kernel, const KernelPoint& point, const Dataset& rows,
                     const Dataset* columns = nullptr, const KernelLimits& limits = {}, const Progress& progress = {});

}  // namespace whence
