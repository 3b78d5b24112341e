#pragma once
#include "whence/kernels/detail/taped_block.h"

namespace whence::detail {

/// The products of two blocks' gradients, summed over all parameters: [B, C, B', C'] float64 on the blocks' device.
/// `columns` may be `rows` itself.
at::Tensor block_products(const TangentKernel& kernel, const TapedBlock& rows, const TapedBlock& columns);

/// One parameter's part of it: `ghost` by products of positions, else by gradients that are formed a part at a time.
/// Both are the same for a plain kernel; a parameter that is no matrix is formed as it is. Of a layer's positions l, m
/// <input_l, input'_m> is the same for every output: products go by signal_l and the sum over m of that times
/// signal'_m, C T T' + C^2 T products of signals a pair of examples, or by all pairs of signals, C^2 T T', whichever
/// takes less.
at::Tensor parameter_products(const TangentKernel& kernel, const ParameterGradients& rows,
                              const ParameterGradients& columns, bool ghost);

/// Multiplications of either way, weighted by what they take: a sum over pairs of positions counts as 16, products with
/// few outputs as 4. Where `columns` is `rows` itself half of some suffices.
double ghost_cost(const ParameterGradients& rows, const ParameterGradients& columns);
double formed_cost(const ParameterGradients& rows, const ParameterGradients& columns);

/// The products <a_l, b_m> of one side's rows of two uses: [B, Ca, L, B', Cb, L'], Ca and Cb being C or 1.
at::Tensor side_products_of(const Side& a, const Side& b);
/// sum over l, m of first * second, both as side_products_of() gives them: [B, C, B', C'] float64.
at::Tensor sum_of_positions(const at::Tensor& first, const at::Tensor& second);
/// Calls body(begin, length) over the rows' examples, so that products of positions with `columns` examples stay within
/// 256 MiB.
void for_each_part(const MatrixUse& rows, const MatrixUse& columns,
                   const std::function<void(std::int64_t begin, std::int64_t length)>& body);
/// Some of a use's examples.
MatrixUse part_of(const MatrixUse& use, std::int64_t begin, std::int64_t length);

/// What products take at most at a time, in bytes.
inline constexpr double kProductScratch = 3.0 * (1 << 28);

}  // namespace whence::detail
