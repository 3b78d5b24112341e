#include "matrices.h"
#include "whence/solvers/detail/preconditioner.h"

using namespace whence;
using test::geometric;
using test::MatrixOperator;
using test::relative_error;
using test::with_eigenvalues;

namespace {

/// A matrix that knows its eigendecomposition.
class SpectralMatrix : public SpectralOperator {
 public:
  explicit SpectralMatrix(const at::Tensor& matrix) { std::tie(values_, basis_) = at::linalg_eigh(matrix); }
  std::int64_t size() const override { return basis_.size(0); }
  at::TensorOptions options() const override { return basis_.options(); }

 protected:
  at::Tensor do_apply_function(const at::Tensor& x, const SpectralFunction& f) const override {
    return x.mm(basis_).mul(f(values_)).mm(basis_.t());
  }

 private:
  at::Tensor values_, basis_;
};

at::Tensor dense(const BlockMap& map, std::int64_t size) { return map(at::eye(size, at::kDouble)); }

}  // namespace

TEST_SUITE_BEGIN("solvers");

TEST_CASE("a spectral preconditioner inverts the system where the curvature is positive, and never divides by zero") {
  const auto matrix = with_eigenvalues({3, 2, 1, 0.5});
  const auto spectral = std::make_shared<SpectralMatrix>(matrix);
  const auto eye = at::eye(4, at::kDouble);
  CHECK(
      relative_error(
          dense(whence::detail::spectral_preconditioner(spectral, {Inversion::kDamped, 0.1}), 4).mm(matrix + 0.1 * eye),
          eye) < 1e-12);
  CHECK(relative_error(dense(whence::detail::spectral_preconditioner(spectral, {Inversion::kFiltered, 0.1}), 4)
                           .mm(matrix.mm(matrix) + 0.01 * eye),
                       eye) < 1e-12);
  const auto indefinite = std::make_shared<SpectralMatrix>(with_eigenvalues({3, 1, 0, -1}));
  const auto [h, basis] = at::linalg_eigh(dense(whence::detail::spectral_preconditioner(indefinite, {}), 4));
  CHECK(h.min().item<double>() > 0.3);
  CHECK(h.max().item<double>() == doctest::Approx(1e8 / 3));
}

TEST_CASE("every preconditioner is symmetric and positive definite, and lowers the condition of what it was made for") {
  const auto matrix = with_eigenvalues(geometric(1e3, 1e-3, 40));
  const auto a = std::make_shared<MatrixOperator>(matrix);
  const double shift = 0.1;
  const auto damped = matrix + shift * at::eye(40, at::kDouble);
  const auto m = dense(whence::detail::make_preconditioner({a, {Inversion::kDamped, shift}}, "nystroem", 30), 40);
  CHECK(a->products() == 30);
  CHECK(relative_error(m, m.t()) < 1e-12);
  const auto [root_values, root_basis] = at::linalg_eigh(0.5 * (m + m.t()));
  CHECK(root_values.min().item<double>() > 0);
  const auto root = root_basis.mul(root_values.sqrt()).mm(root_basis.t());
  const auto [h, basis] = at::linalg_eigh(root.mm(damped).mm(root));
  CHECK(h.max().item<double>() / h.min().item<double>() < 20);
  CHECK(!whence::detail::make_preconditioner({a}, "none", 30));
}

TEST_SUITE_END();
