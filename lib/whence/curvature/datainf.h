#pragma once
#include "whence/curvature/curvature.h"

namespace whence {

/// The mean over examples of each one's inverse, in place of the inverse of the mean, layer by layer:
///   x -> (1/N) sum_i (g_i g_i' + damping_l I)^-1 x,   g_i the gradient of example i in layer l.
/// Y. Kwon et al., "DataInf: Efficiently Estimating Data Influence in LoRA-tuned LLMs and Diffusion Models", ICLR 2024,
/// eq. 5. damping_l is `damping` with the penalty's or, where that is 0, the paper's 0.1 times the mean square of the
/// layer's gradients. Exact where the gradients of a layer are parallel to each other.
///
/// Cost: one pass over the data, kept where it takes at most `kept_bytes`; a product is a pass over that. Throws
/// InvalidArgument where what the stage trains is not made of layers.
OperatorPtr datainf_inverse(const CurvaturePoint& point, double damping, double kept_bytes);

}  // namespace whence
