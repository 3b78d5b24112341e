#include "whence/kernels/kernel_solver.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <set>

#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/core/tensors.h"

namespace whence {
namespace {

void check_shape(const at::Tensor& x, at::IntArrayRef expected, std::string_view solver, const char* what) {
  if (x.sizes() != expected || x.scalar_type() != at::kDouble) {
    throw InvalidArgument(fmt::format("{}: {} of shape [{}] and dtype {}, expected [{}] Double", solver, what,
                                      fmt::join(x.sizes(), ", "), c10::toString(x.scalar_type()),
                                      fmt::join(expected, ", ")));
  }
  check_finite(x, what);
}

}  // namespace

at::Tensor class_targets(const at::Tensor& labels, std::int64_t outputs) {
  if (outputs == 1) {
    return labels.to(at::kDouble).mul_(2).sub_(1).unsqueeze(1);
  }
  return at::one_hot(labels, outputs).to(at::kDouble);
}

at::Tensor predicted_classes(const at::Tensor& outputs) {
  return outputs.size(1) == 1 ? outputs.squeeze(1).gt(0).to(at::kLong) : outputs.argmax(1);
}

void check_problem(const KernelProblem& problem, std::string_view solver) {
  const auto& kernel = problem.kernel;
  if (kernel.dim() != 4 || kernel.size(0) != kernel.size(2) || kernel.size(1) != kernel.size(3) ||
      kernel.numel() == 0) {
    throw InvalidArgument(
        fmt::format("{}: a kernel of shape [{}], expected [N, C, N, C]", solver, fmt::join(kernel.sizes(), ", ")));
  }
  const auto n = kernel.size(0), c = kernel.size(1);
  check_shape(kernel, kernel.sizes(), solver, "the kernel");
  if (problem.start.defined()) {
    check_shape(problem.start, {n, c}, solver, "the start");
  }
  if (problem.targets.defined()) {
    check_shape(problem.targets, {n, c}, solver, "the targets");
  }
  if (!problem.labels.defined()) {
    if (!problem.targets.defined()) {
      throw InvalidArgument(fmt::format("{}: neither labels nor targets to learn", solver));
    }
    return;
  }
  if (problem.labels.dim() != 1 || problem.labels.size(0) != n || problem.labels.scalar_type() != at::kLong) {
    throw InvalidArgument(fmt::format("{}: labels of shape [{}] and dtype {}, expected [{}] Long", solver,
                                      fmt::join(problem.labels.sizes(), ", "),
                                      c10::toString(problem.labels.scalar_type()), n));
  }
  if (c == 1 ? problem.classes != 2 : problem.classes != c) {
    throw InvalidArgument(fmt::format("{}: {} classes for {} output{}, expected {}", solver, problem.classes, c,
                                      c == 1 ? "" : "s", c == 1 ? 2 : c));
  }
  const auto least = problem.labels.min().item<std::int64_t>(), most = problem.labels.max().item<std::int64_t>();
  if (least < 0 || most >= problem.classes) {
    throw InvalidArgument(
        fmt::format("{}: label {}, expected 0 to {}", solver, least < 0 ? least : most, problem.classes - 1));
  }
  if (least == most) {
    throw InvalidArgument(
        fmt::format("{}: all {} examples are of class {}, expected at least two classes", solver, n, least));
  }
}

void check_classes_seen(const at::Tensor& labels, const at::Tensor& query_labels,
                        const std::vector<std::string>& names) {
  const auto seen = std::get<0>(at::_unique(labels.cpu()));
  const auto asked = std::get<0>(at::_unique(query_labels.cpu()));
  const auto missing = asked.masked_select(at::isin(asked, seen).logical_not());
  if (missing.numel() == 0) {
    return;
  }
  const auto first = missing[0].item<std::int64_t>();
  const auto at = static_cast<std::size_t>(first);
  throw InvalidArgument(fmt::format(
      "kernel: queries of class {}, of which none of the {} training examples is, so that the kernel never saw it: add "
      "examples of it, or leave those queries out",
      first >= 0 && at < names.size() ? names[at] : std::to_string(first), labels.size(0)));
}

std::string_view to_string(LeaveOut how) {
  switch (how) {
    case LeaveOut::kClosed:
      return "closed form";
    case LeaveOut::kOneStep:
      return "one step";
    case LeaveOut::kRefit:
      return "refit";
  }
  return {};
}

KernelFit::KernelFit(KernelProblem problem)
    : problem_(std::move(problem)), lambda_(std::numeric_limits<double>::quiet_NaN()) {}

KernelQueries KernelFit::own_queries() const { return {problem_.kernel, problem_.kernel, problem_.start}; }

at::Tensor KernelFit::own_outputs() const { return outputs(own_queries()); }

at::Tensor KernelFit::influence(const KernelQueries&) const {
  throw InvalidArgument(
      "kernel: this solver's influence has no closed form: take kernel-ridge, least-squares or kernel-logistic");
}
at::Tensor KernelFit::self_influence() const { return influence({}); }

at::Tensor KernelFit::without(const KernelQueries& queries, const std::vector<std::int64_t>& group, LeaveOut) const {
  return refit_without(queries, group);
}

at::Tensor KernelFit::refit_without(const KernelQueries& queries, const std::vector<std::int64_t>& group) const {
  const auto n = problem_.kernel.size(0);
  const auto kept = at::ones({n}, at::kBool).index_fill_(0, at::tensor(group, at::kLong), false).nonzero().squeeze(1);
  const auto some = [&](const at::Tensor& x) { return x.defined() ? x.index_select(0, kept) : x; };
  KernelProblem part{problem_.kernel.index_select(0, kept).index_select(2, kept), some(problem_.labels),
                     problem_.classes, some(problem_.targets), some(problem_.start)};
  return refit(std::move(part), kept)
      ->outputs({queries.kernel.index_select(2, kept), some(queries.flipped), queries.start});
}

at::Tensor KernelFit::leave_out(const KernelQueries& queries, const std::vector<std::vector<std::int64_t>>& groups,
                                LeaveOut how) const {
  const auto known = ways();
  if (std::find(known.begin(), known.end(), how) == known.end()) {
    throw InvalidArgument(fmt::format("kernel: leaving out by {}, which this fit has not", to_string(how)));
  }
  const auto n = problem_.kernel.size(0);
  TensorList out;
  for (const auto& group : groups) {
    check_interruption(static_cast<std::int64_t>(out.size()), static_cast<std::int64_t>(groups.size()));
    const std::set<std::int64_t> distinct(group.begin(), group.end());
    if (distinct.size() != group.size() || static_cast<std::int64_t>(group.size()) >= n ||
        (!group.empty() && (*distinct.begin() < 0 || *distinct.rbegin() >= n))) {
      throw InvalidArgument(fmt::format("kernel: leaving out examples [{}] of {}, expected some of 0 to {}, each once",
                                        fmt::join(group, ", "), n, n - 1));
    }
    out.push_back(group.empty()             ? outputs(queries)
                  : how == LeaveOut::kRefit ? refit_without(queries, group)
                                            : without(queries, group, how));
  }
  return at::stack(out);
}

at::Tensor KernelFit::leave_one_out(const KernelQueries& queries) const {
  std::vector<std::vector<std::int64_t>> each;
  for (std::int64_t i = 0; i < problem_.kernel.size(0); ++i) {
    each.push_back({i});
  }
  return leave_out(queries, each, ways().front());
}

at::Tensor KernelFit::foretold() const {
  const auto own = own_queries();
  const auto n = problem_.kernel.size(0);
  // one tensor, since small ones would lie between the large ones that are freed, and those could not be used again
  auto out = at::empty({n, problem_.kernel.size(1)}, at::kDouble);
  for (std::int64_t i = 0; i < n; ++i) {
    const KernelQueries one{own.kernel.narrow(0, i, 1), own.flipped.narrow(2, i, 1),
                            own.start.defined() ? own.start.narrow(0, i, 1) : own.start};
    out[i].copy_(leave_out(one, {{i}}, ways().front())[0][0]);
  }
  return out;
}

void check_solvable(const KernelSolver& solver, std::string_view name, std::int64_t examples, std::int64_t outputs,
                    double most_bytes, double most_multiplications) {
  const auto fits = [&](std::int64_t count) {
    return solver.bytes(count, outputs) <= most_bytes && solver.multiplications(count, outputs) <= most_multiplications;
  };
  if (fits(examples)) {
    return;
  }
  std::int64_t most = 0, refused = examples;
  while (refused - most > 1) {
    const auto middle = (most + refused) / 2;
    (fits(middle) ? most : refused) = middle;
  }
  throw InvalidArgument(fmt::format(
      "{}: {} examples x {} outputs are a system of {} unknowns, which takes {:.1f} GB and {:.1e} multiplications, "
      "expected at most {:.1f} GB and {:.1e}: take {} examples or fewer",
      name, examples, outputs, examples * outputs, solver.bytes(examples, outputs) / 1e9,
      solver.multiplications(examples, outputs), most_bytes / 1e9, most_multiplications, most));
}

}  // namespace whence
