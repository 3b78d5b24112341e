#pragma once
#include <functional>

#include "whence/curvature/curvature.h"
#include "whence/curvature/spectral_operator.h"

namespace whence {

/// Lengths of examples' gradients as a function of the curvature measures them: for a batch of the point's data,
/// sqrt(g_i' f(A) g_i) with A the ekfac matrix fitted at the point, [B] float64. With f = 1 / (h + damping) it is the
/// length that relatif divides by: how far an example alone moves the stage. E. Barshan, M. Brunet and G. Dziugaite,
/// "RelatIF: Identifying Explanatory Training Samples via Relative Influence", AISTATS 2020, with the factors' inverse
/// for the exact one.
///
/// Cost: a fit of the factors, once; a batch, one forward and backward pass. Throws InvalidArgument where what the
/// stage trains is not made of layers.
std::function<at::Tensor(const Batch&)> ekfac_example_norms(const CurvaturePoint& point, SpectralFunction f);

/// Whether kfac and ekfac can be fitted: as covered_by_layers(), norms and embeddings being theirs too.
bool factored_by_layers(const CurvaturePoint& point);

/// g_i' f(A) g_i for the examples of a batch, [B] float64, A being kfac's or ekfac's operator at the point; null where
/// `factors` is neither. has_exact_forms() says where they are approximate.
std::function<at::Tensor(const Batch&)> kronecker_forms(const CurvaturePoint& point,
                                                        std::shared_ptr<const SpectralOperator> factors,
                                                        SpectralFunction f);

/// Whether kronecker_forms() are exact: all but those of texts that use a matrix of which only a diagonal is kept, too
/// wide or a head tied to an embedding. An example's places are then taken for independent, their squares added up
/// rather than the square of their sum.
bool has_exact_forms(const CurvaturePoint& point);

}  // namespace whence
