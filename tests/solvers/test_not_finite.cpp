// A product that is not a number, in the middle of a solve.
#include "matrices.h"
#include "whence/core/error.h"

using namespace whence;

namespace {

/// A positive definite matrix whose products from the `good`-th on are not numbers.
class Breaking : public LinearOperator {
 public:
  explicit Breaking(int good) : matrix_(test::with_eigenvalues(test::geometric(10, 0.01, 40))), good_(good) {}
  std::int64_t size() const override { return matrix_.size(0); }
  at::TensorOptions options() const override { return matrix_.options(); }

 protected:
  at::Tensor do_apply(const at::Tensor& x) const override {
    return ++calls_ > good_ ? at::full_like(x, NAN) : x.mm(matrix_);
  }

 private:
  at::Tensor matrix_;
  int good_;
  mutable int calls_ = 0;
};

}  // namespace

TEST_SUITE_BEGIN("solvers");

TEST_CASE("a product that is not finite, at any point of any solver, is an error of one line or a solve that failed") {
  const auto b = Random(4).normal({2, 40});
  for (const auto& method : methods<Solver>()) {
    for (const auto inversion : {Inversion::kDamped, Inversion::kFiltered}) {
      for (int good = 0; good < 30; ++good) {
        CAPTURE(method.name);
        CAPTURE(good);
        const auto solver = create<Solver>(method.name);
        try {
          const auto inverse = solver->prepare({std::make_shared<Breaking>(good), {inversion, 0.1}});
          at::Tensor x;
          const auto summaries = test::applied(*inverse, b, x);
          for (std::size_t k = 0; k < summaries.size(); ++k) {
            const bool said = summaries[k].termination != Termination::kConverged;
            const bool whole = at::isfinite(x[static_cast<std::int64_t>(k)]).all().item<bool>() &&
                               summaries[k].relative_residual < 1e-3;
            CHECK((said || whole));
            CHECK(summaries[k].message.find('\n') == std::string::npos);
          }
        } catch (const NumericalError& error) {
          CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
          CHECK(std::string_view(error.what()).find("finite") != std::string_view::npos);
        } catch (const InvalidArgument&) {  // a solver for other curvatures or filters
        }
      }
    }
  }
}

TEST_SUITE_END();
