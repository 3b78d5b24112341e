#pragma once
#include "whence/core/registry.h"
#include "whence/curvature/linear_operator.h"
#include "whence/training/objective.h"

namespace whence {

/// Where curvature is taken: theta and parent in the order of the objective's trained() and parent_layout().
struct CurvaturePoint {
  Objective objective;
  TensorList theta;
  TensorList parent;
};

/// What a curvature is or approximates. A chain is the derivative of some objective where its stages keep to one
/// family.
enum class CurvatureFamily {
  kHessian,          ///< The second derivative itself, which may have negative eigenvalues.
  kGaussNewton,      ///< J' H J, and its mean over labels, the Fisher matrix: positive semidefinite for a convex loss.
  kEmpiricalFisher,  ///< The second moment of the examples' gradients.
};
/// What the family's own matrix is called among the methods: "hessian", "gauss-newton", "empirical-fisher".
std::string_view to_string(CurvatureFamily family);

/// A method for the second derivatives of a stage's objective. The operator and the mixed product come from one object
/// because a chain must use one family for both: a Gauss-Newton operator with an exact mixed product is the derivative
/// of no objective.
///
/// Both are means over the whole stage, whatever the batch size.
class Curvature {
 public:
  virtual ~Curvature() = default;
  /// d^2 Phi / d theta^2. The point is copied; products cost passes over its data.
  virtual OperatorPtr operator_at(const CurvaturePoint& point) const = 0;
  /// (d^2 Phi / d parent d theta) v for each row of v: [K, P] to [K, entries of parent]. formulas.md 9.4.
  virtual at::Tensor mixed_product(const CurvaturePoint& point, const at::Tensor& v) const = 0;
  virtual CurvatureFamily family() const { return CurvatureFamily::kGaussNewton; }
  /// No eigenvalue is negative, for a loss that is convex in the outputs.
  bool is_semidefinite() const { return family() != CurvatureFamily::kHessian; }
  /// What a residual of its operator is said to be of: "hessian", "ekfac", "hessian of 100 examples".
  virtual std::string name() const { return std::string(to_string(family())); }
  /// Whether the operator is the family's matrix of all the data, which then has its name.
  bool is_exact() const { return name() == to_string(family()); }
  /// Whether the operator is made of factors of its own, with eigenvectors (SpectralOperator), that approximate the
  /// family's matrix: a residual of the operator then says nothing of the matrix.
  virtual bool factored() const { return false; }
  /// Throws the InvalidArgument that operator_at(), or with `mixed` mixed_product(), would throw for what the stage
  /// trains or for how it uses its parent. Cost: a pass over one example, or two.
  virtual void check(const CurvaturePoint& /*point*/, bool /*mixed*/) const {}
};

/// Whether everything that the stage trains is the weight or bias of a layer on the model's tape, used as it is: what
/// Kronecker factors say all of.
bool covered_by_layers(const CurvaturePoint& point);
/// Whether curvatures by rows of J cover what the stage trains: beside layers, parameters of norms and of embeddings
/// that are no head, and what a tuning makes weights of.
bool has_rows(const CurvaturePoint& point);

WHENCE_DECLARE_ROOM(Curvature)

}  // namespace whence
