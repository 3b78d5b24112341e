// What the solvers of Malladi et al. say of small random kernels: make_authors.py.
#include "support/near.h"
#include "whence/data/safetensors.h"
#include "whence/kernels/kernel_solver.h"

using namespace whence;
using namespace whence::test;

namespace {

/// [C, train, columns] as [train, C, columns, C], what couples outputs being 0: theirs has none of it.
at::Tensor four_sided(const at::Tensor& kernel) {
  auto out = at::zeros({kernel.size(1), kernel.size(0), kernel.size(2), kernel.size(0)}, at::kDouble);
  for (std::int64_t c = 0; c < kernel.size(0); ++c) {
    out.select(3, c).select(1, c).copy_(kernel[c]);
  }
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("kernels");

TEST_CASE("solvers agree with those of the paper's authors") {
  const auto theirs = read_safetensors(std::filesystem::path(WHENCE_TESTS) / "kernels/authors.safetensors");
  for (const std::string part : {"one", "three"}) {
    CAPTURE(part);
    const auto of = [&](const char* what) { return theirs.at(part + "." + what); };
    KernelProblem problem{four_sided(of("kernel")), of("labels")};
    problem.classes = std::max<std::int64_t>(2, problem.kernel.size(1));
    KernelQueries queries{four_sided(of("evaluation")).permute({2, 3, 0, 1}).contiguous()};
    const auto says = [&](const char* spec) { return create<KernelSolver>(spec)->fit(problem)->outputs(queries); };
    CHECK(relative_error(says("least-squares"), of("lstsq")) < 1e-8);
    // they take each output's kernel's own largest singular value
    if (part == "one") {
      CHECK(relative_error(says("kernel-ridge:relative-lambda=0.1"), of("lstsq-regularised")) < 1e-8);
      problem.start = of("logits") / 2;
      queries.start = of("asked-logits") / 2;
      CHECK(relative_error(says("least-squares"), of("lstsq-offset")) < 1e-8);
      problem.start = queries.start = at::Tensor();
      const auto classes = predicted_classes(says("support-vectors:scale=false"));
      CHECK(classes.equal(of("svc").squeeze(1).gt(0).to(at::kLong)));
      problem.targets = class_targets(problem.labels, 1);
    } else {
      problem.targets = class_targets(problem.labels, 3);
    }
    // libsvm stops at 1e-3 for them
    CHECK(relative_error(says("support-vectors:form=svr,scale=false"), of("svr")) < 2e-2);
  }
  const auto kernel = four_sided(theirs.at("signs.kernel"));
  const KernelProblem problem{kernel, theirs.at("signs.labels"), 2};
  // theirs call omega what the evaluation's columns say, whichever side is signed
  const KernelQueries queries{four_sided(theirs.at("signs.flipped")).permute({2, 3, 0, 1}).contiguous(),
                              four_sided(theirs.at("signs.evaluation"))};
  for (const char* mix : {"0.0", "0.3", "1.0"}) {
    CAPTURE(mix);
    const auto found = create<KernelSolver>(std::string("asymmetric:gamma=0.5,scale=false,mix=") + mix)
                           ->fit(problem)
                           ->outputs(queries);
    CHECK(relative_error(found, theirs.at(std::string("signs.asym-") + mix)) < 1e-6);
  }
}

TEST_SUITE_END();
