#include <limits>

#include "support/near.h"
#include "whence/core/error.h"
#include "whence/core/random.h"
#include "whence/core/symmetric_eigen.h"

namespace whence::test {
namespace {

TEST_SUITE_BEGIN("core");

TEST_CASE("symmetric_eigen: A V = V diag(values), in the matrix's dtype, also where most eigenvalues are equal") {
  auto draws = Random(5);
  for (const auto type : {at::kFloat, at::kDouble}) {
    const auto rows = draws.normal({3, 40}).to(type);  // 37 eigenvalues are 0
    const auto matrix = rows.t().mm(rows);
    const auto found = symmetric_eigen(matrix, "the matrix");
    CHECK((found.values.scalar_type() == type));
    CHECK((found.vectors.scalar_type() == type));
    CHECK(found.values.diff().ge(-1e-3).all().item<bool>());
    const auto bound = type == at::kDouble ? 1e-12 : 1e-4;
    CHECK((matrix.mm(found.vectors) - found.vectors * found.values).abs().max().item<double>() < bound);
    CHECK((found.vectors.t().mm(found.vectors) - at::eye(40, matrix.options())).abs().max().item<double>() < bound);
  }
}

TEST_CASE("symmetric_eigen: what is not finite is named") {
  auto matrix = at::eye(3, at::kFloat);
  matrix[1][1] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH_AS(symmetric_eigen(matrix, "layer a"), doctest::Contains("layer a has entries that are NaN"),
                       NumericalError);
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
