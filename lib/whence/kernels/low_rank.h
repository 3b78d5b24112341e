#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "whence/core/progress.h"
#include "whence/core/random.h"
#include "whence/kernels/kernel_blocks.h"

namespace whence {

/// Of one rank r: the eNTK of LoRA where it starts, beside that of the whole weights.
struct LowRankKernel {
  std::int64_t rank = 0;
  at::Tensor kernel;   ///< [N, C, N, C]: sum over layers and positions of <g, g'> <A a, A a'>, A [r, inputs] of normal
                       ///< numbers of variance 1 / r. B = 0, so that A's gradients are 0 and B's are g (A a)'.
  double epsilon = 0;  ///< The bound: |kernel - whole| <= epsilon envelope for all pairs at once, with confidence().
  double worst = 0;    ///< The largest |kernel - whole| / envelope that was measured.
  double mean = 0;     ///< |kernel - whole| / |whole|, Frobenius.
};
struct LowRankKernels {
  at::Tensor whole;     ///< [N, C, N, C]: the eNTK of the same layers' weights.
  at::Tensor envelope;  ///< [N, C, N, C]: sum over layers and pairs of positions of |<g, g'>| |a| |a'|.
  double pairs = 0;     ///< Of inputs that the bound is of: over layers, m (m + 1) / 2 for m inputs.
  double confidence = 0.95;
  std::vector<LowRankKernel> ranks;
};

/// By random projections of what linear layers and convolutions see: why subspace tuning works, in Malladi et al. 2023,
/// section 6. Of `point.names` the weights of such layers count, used as they are; others, embeddings and matrices tied
/// to one, are left out. All in memory: blocks of `limits`, and 2 + ranks kernels. Throws InvalidArgument where no
/// weight counts.
///
/// The bound is that of Johnson and Lindenstrauss in the form of Laurent and Massart, "Adaptive Estimation of a
/// Quadratic Functional", 2000, lemma 1: for unit vectors u, v, |<A u, A v> - <u, v>| <= 2 sqrt(x / r) + 2 x / r but
/// for a probability of 4 exp(-x), here with x = ln(4 pairs / (1 - confidence)), so that it holds for all pairs at
/// once, at any rank. The form of the paper, whose epsilon must stay below 1, says nothing of ranks below some
/// hundreds.
LowRankKernels low_rank_kernels(const KernelPoint& point, const Dataset& data, const std::vector<std::int64_t>& ranks,
                                const Random& random, double confidence = 0.95, const KernelLimits& limits = {},
                                const Progress& progress = {});

/// 2 sqrt(x / r) + 2 x / r, x = ln(4 pairs / (1 - confidence)).
double projection_bound(double pairs, std::int64_t rank, double confidence);

/// The eNTK of training in a random subspace, theta = theta_0 + P z, z of `dimensions` numbers, P normal of variance 1
/// / dimensions: C. Li et al., "Measuring the Intrinsic Dimension of Objective Landscapes", ICLR 2018. Drawn from its
/// exact distribution given the kernel [N, C, N, C], which is symmetric: L Z Z' L', L L' = K, Z [N C, dimensions]
/// normal of that variance. No P is made.
at::Tensor subspace_kernel(const at::Tensor& kernel, std::int64_t dimensions, const Random& random);

}  // namespace whence
