#pragma once
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "whence/core/progress.h"
#include "whence/core/registry.h"
#include "whence/curvature/curvature.h"
#include "whence/curvature/spectral_operator.h"

namespace whence {

enum class Termination {
  kConverged,       ///< The tolerance was met.
  kIterationLimit,  ///< The products allowed were spent first, or rounding stopped the progress; x is the best so far.
  kIndefinite,      ///< A direction of non-positive curvature was met; x is the last good iterate.
  kDiverged,        ///< The residual grew past its start; x is zero.
  kApproximate,     ///< The solver's own approximation was applied, as asked; the residual says how far off it is.
};
std::string_view to_string(Termination termination);

/// What a solve did for one right-hand side. Failing to converge is an outcome, not an exception: the caller decides.
struct SolverSummary {
  Termination termination = Termination::kIterationLimit;
  std::int64_t iterations = 0;
  double relative_residual = -1;  ///< |b - A x| / |b|, recomputed at the end; -1 where not measured. What
                                  ///< `termination` goes by.
  double energy_growth = -1;   ///< Share of b'x that the last quarter of cg's iterations added: about what is missing
                               ///< of b' A^-1 b, the square of the relative error in the norm of A. `termination` goes
                               ///< by it too; -1 where not measured.
  double seconds = -1;         ///< Wall time of the block that the right-hand side was part of.
  double products = -1;        ///< Spent on the block, divided by its right-hand sides; -1 where not counted.
  double smallest_ritz = NAN;  ///< Rayleigh quotients that the solve met of the system it solved, damping included:
  double largest_ritz = NAN;   ///< bounds from within of its spectrum. NaN where the solver sees none.
  std::string message = "solve was not called";
  std::string residual_of = {};  ///< Whose A the residual is of: "hessian", "gauss-newton", "ekfac's own factors";
                                 ///< empty: the operator's that the solver was given, which Adjoint then names.
};

/// How the eigenvalues h of a curvature are inverted.
enum class Inversion {
  kDamped,    ///< 1 / (h + damping); needs h + damping > 0.
  kFiltered,  ///< h / (h^2 + damping^2): negative eigenvalues keep their sign, small ones are suppressed.
  kPseudo,    ///< 1 / h where h is not zero, 0 where it is.
  kSegment,   ///< (1 - r) / (h + damping), r as in kMemory: what gradient descent that stops early makes of 1 / h.
  kMemory,    ///< r = (1 - time / steps (h + damping))^steps: what gradient descent leaves of its start.
};

/// A function of a curvature's eigenvalues, in the place of 1 / h.
struct Filter {
  Inversion inversion = Inversion::kDamped;
  double damping = 0;
  double time = 0;         ///< kSegment and kMemory: the sum of the learning rates.
  std::int64_t steps = 0;  ///< kSegment and kMemory: how many; 0: infinitely many small ones, r = exp(-time h).

  /// f(h) for a tensor of eigenvalues; those of magnitude at most `zero` count as zero.
  at::Tensor operator()(const at::Tensor& h, double zero = 0) const;
  /// Whether there is an equation behind it, and so a residual: all but kSegment and kMemory.
  bool inverts() const { return inversion != Inversion::kSegment && inversion != Inversion::kMemory; }
};
/// The filter of one block's eigenvalues, of which those below 1e-12 of the block's largest are zeros.
SpectralFunction of_block(const Filter& filter);
std::string_view to_string(Inversion inversion);
/// "damped", "filtered" or "pseudo". Throws InvalidArgument with the known words.
Inversion parse_inversion(std::string_view word);
/// A curvature to invert, how, and where it was taken. Solvers that fit factors of their own need `point`; it may be
/// null, and they then throw InvalidArgument.
struct System {
  OperatorPtr a;
  Filter filter = {};
  std::shared_ptr<const CurvaturePoint> point = nullptr;
  bool semidefinite = false;  ///< Curvature::is_semidefinite().
};

/// What is known of a system before its operator is made.
struct SystemTraits {
  std::int64_t parameters = 0;
  bool eigenvectors = false;  ///< They come with the curvature (SpectralOperator).
  Inversion inversion = Inversion::kDamped;
  std::shared_ptr<const CurvaturePoint> point = nullptr;  ///< As System::point.
  bool semidefinite = false;                              ///< As System::semidefinite.
  /// Of a root J that the curvature can be inverted by in the dual; 0: none. Asked by who goes by them, since that may
  /// take a pass.
  std::function<std::int64_t()> rows = [] { return 0; };
};

/// How many products with the curvature a solve takes for a right-hand side.
struct ProductCount {
  double low = 0, high = 0;
  bool known = true;  ///< False for solvers whose products cannot be told before.
  double once = 0;    ///< Besides, whatever the right-hand sides.
  /// One number for both: their geometric mean.
  double expected() const;
  /// Of an iteration that takes at most so many and stops when it has converged, after 20 at the least.
  static ProductCount up_to(double most);
};

/// What to type where rounding has the last word: "use --dtype float64, raise the damping, or …".
std::string rounding_remedy(const LinearOperator& a);

/// A symmetric matrix as rows' diag(weights) rows: x' M x is then the sum of weights . (rows x)^2.
struct MatrixRoot {
  at::Tensor rows;     ///< [K, P]
  at::Tensor weights;  ///< [K] float64
};

/// A filtered inverse of an operator under some solver, ready to be applied to blocks. Whoever holds one calls apply(),
/// which takes the time and counts the products; whoever writes one defines do_apply(), as of LinearOperator.
class Inverse {
 public:
  virtual ~Inverse() = default;
  /// x = filter(A) b for every row of b [K, P]; one summary a row. `x` is set, not read.
  std::vector<SolverSummary> apply(const at::Tensor& b, at::Tensor& x, const Progress& progress) const;
  /// The inverse itself, where the solver has it as a matrix; undefined rows where it has not, or the matrix is not
  /// positive definite, if only for rounding, and had to be.
  virtual MatrixRoot root() const { return {}; }
  /// What the filter is applied to, where the inverse is the filter of known eigenvalues; null where it is not.
  virtual std::shared_ptr<const SpectralOperator> factors() const { return nullptr; }
  /// The spec of the solver that was picked for the system (Solver::picks); empty where it was named.
  virtual std::string picked() const { return {}; }

 protected:
  explicit Inverse(System system) : system_(std::move(system)) {}
  const System& system() const { return system_; }
  /// Fills all of the summaries but seconds and products.
  virtual std::vector<SolverSummary> do_apply(const at::Tensor& b, at::Tensor& x, const Progress& progress) const = 0;
  /// Summaries of an approximation x = f(A) b: kApproximate, with residuals measured against A where `measure` is true
  /// and the filter is an inverse, for the cost of a product a row (two for filters other than damped).
  std::vector<SolverSummary> approximate_summaries(const at::Tensor& b, const at::Tensor& x, const std::string& message,
                                                   bool measure) const;

 private:
  System system_;
};

/// What a solver takes of a system besides products with its operator, and cannot do without.
struct SolverNeeds {
  bool rows = false;          ///< A curvature J' J (GramOperator), on whose rows it works: memory and time grow with
                              ///< their square.
  bool point = false;         ///< System::point, to fit to; or the curvature's own factors (Solver::takes_factors).
  bool semidefinite = false;  ///< No negative eigenvalues, whatever the filter.
};

/// Solves with an operator, and says of itself what others would otherwise compare its name for.
class Solver {
 public:
  virtual ~Solver() = default;
  /// Does what does not depend on the right-hand sides; the solver must outlive what it prepares. Throws
  /// InvalidArgument where the solver cannot take the operator (too large for a dense matrix) or the filter, or the
  /// damping is negative.
  std::unique_ptr<Inverse> prepare(const System& system) const;

  virtual SolverNeeds needs() const { return {}; }
  /// Whether it solves the system that it is given, as far as its iterations or its rank reach; false where it applies
  /// an approximation in its place, as asked.
  virtual bool is_exact() const { return true; }
  /// The family of curvature that the solver's own factors approximate; none where it inverts whatever it is given.
  virtual std::optional<CurvatureFamily> family() const { return std::nullopt; }
  /// Whether it takes the curvature's own factors where there are such (Curvature::factored) and fits none.
  virtual bool takes_factors() const { return false; }
  /// Whether Inversion::kDamped with no damping divides by nothing, however definite the curvature of so many
  /// parameters is: that of what an approximation leaves out.
  virtual bool needs_damping(std::int64_t /*parameters*/) const { return false; }
  /// Whether a damping of 0 stands for one of its own, or dampings are nothing to it.
  virtual bool has_own_damping() const { return false; }
  /// Whether it picks another solver for each system.
  virtual bool picks() const { return false; }
  /// The spec of the solver that it picks; empty: it picks none.
  virtual std::string pick(const SystemTraits& /*traits*/) const { return {}; }
  virtual ProductCount product_count(const SystemTraits& /*traits*/) const { return {.known = false}; }

 protected:
  virtual std::unique_ptr<Inverse> do_prepare(const System& system) const = 0;
};

/// A linear map of the rows of a block: [K, P] to [K, P].
using BlockMap = std::function<at::Tensor(const at::Tensor& x)>;

/// The equation behind a filtered inverse: `damped` is (A + damping I) x = b; `filtered` (A^2 + damping^2 I) x = A b;
/// `pseudo` the same with no damping, from zero, which leaves the null space alone.
struct LinearSystem {
  OperatorPtr base;               ///< A, or A^2.
  double shift = 0;               ///< damping, or its square.
  OperatorPtr a;                  ///< base + shift I; positive definite if a solve is to converge.
  BlockMap precondition = {};     ///< A fixed symmetric positive definite approximate inverse of `a`; empty: none.
  bool target_is_product = true;  ///< The right-hand side is A b and not b.
  /// A sketch of A, which cg:preconditioner=nystroem makes, may stand for it: A has no negative eigenvalues, and its
  /// small ones are not to be kept apart, as they are for a pseudo-inverse.
  bool may_be_sketched = false;
};
/// Throws InvalidArgument where the filter is no inverse (segment, memory) or the damping is negative.
LinearSystem linear_system(const System& system);
/// |target - a x| / |target| of each row, the target being b or A b; 0 where that is zero. One or three products a row.
std::vector<double> relative_residuals(const System& system, const at::Tensor& b, const at::Tensor& x);

/// A solver that needs products alone.
class IterativeSolver : public Solver {
 public:
  /// Solves a x = b for each row of b. `x` is set, not read. Deterministic.
  virtual std::vector<SolverSummary> solve(const LinearSystem& system, const at::Tensor& b, at::Tensor& x,
                                           const Progress& progress) const = 0;

 protected:
  std::unique_ptr<Inverse> do_prepare(const System& system) const override;
  /// What becomes LinearSystem::precondition.
  virtual BlockMap preconditioner(const System&) const { return {}; }
};

WHENCE_DECLARE_ROOM(Solver)

}  // namespace whence
