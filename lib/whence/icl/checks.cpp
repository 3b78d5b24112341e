#include "whence/icl/detail/checks.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/core/error.h"
#include "whence/icl/icl_method.h"

namespace whence {
namespace {

void check_range(const at::Tensor& labels, std::string_view what, std::int64_t low, std::int64_t classes) {
  if (!labels.defined() || labels.dim() != 1 || labels.scalar_type() != at::kLong) {
    throw InvalidArgument(fmt::format(
        "icl: {} are {}, expected one int64 each", what,
        labels.defined() ? fmt::format("{} [{}]", c10::toString(labels.scalar_type()), fmt::join(labels.sizes(), ", "))
                         : "absent"));
  }
  const auto wrong = labels.lt(low).logical_or(labels.ge(classes)).nonzero();
  if (wrong.size(0) > 0) {
    const auto row = wrong[0][0].item<std::int64_t>();
    throw InvalidArgument(fmt::format("icl: {}[{}] = {}, expected {} .. {} for {} class{}", what, row,
                                      labels[row].item<std::int64_t>(), low, classes - 1, classes,
                                      classes == 1 ? "" : "es"));
  }
}

}  // namespace

void check_labels(const IclTask& task) {
  if (task.classes < 1) {
    throw InvalidArgument(fmt::format("icl: classes = {}, expected >= 1", task.classes));
  }
  check_range(task.labels, "labels", 0, task.classes);
  check_range(task.query_labels, "query labels", -1, task.classes);
  if (task.demonstrations() == 0) {
    throw InvalidArgument("icl: 0 demonstrations, expected at least 1");
  }
}

namespace detail {

void check_values(const at::Tensor& x, std::string_view what, at::IntArrayRef expected, std::string_view letters) {
  if (!x.defined()) {
    throw InvalidArgument(fmt::format("icl: {} are absent, expected {}", what, letters));
  }
  bool right = x.is_floating_point() && x.sizes().size() == expected.size();
  for (std::size_t k = 0; right && k < expected.size(); ++k) {
    right = expected[k] < 0 ? x.sizes()[k] > 0 : x.sizes()[k] == expected[k];
  }
  if (!right) {
    std::vector<std::string> sizes;
    for (const auto size : expected) {
      sizes.push_back(size < 0 ? "any" : std::to_string(size));
    }
    throw InvalidArgument(fmt::format("icl: {} are {} [{}], expected {} = [{}] of a floating type", what,
                                      c10::toString(x.scalar_type()), fmt::join(x.sizes(), ", "), letters,
                                      fmt::join(sizes, ", ")));
  }
  if (at::isfinite(x.sum()).item<bool>()) {  // the cheap way; a finite sum may overflow, so else entry by entry
    return;
  }
  const auto wrong = at::isfinite(x).logical_not().nonzero().cpu();
  if (wrong.size(0) > 0) {
    auto entry = x;
    std::vector<std::int64_t> indices;
    for (std::int64_t k = 0; k < wrong.size(1); ++k) {
      indices.push_back(wrong[0][k].item<std::int64_t>());
      entry = entry[indices.back()];
    }
    throw NumericalError(fmt::format("icl: {}[{}] = {}, expected a finite number ({} of {} entries are not)", what,
                                     fmt::join(indices, ", "), entry.item<double>(), wrong.size(0), x.numel()));
  }
}

}  // namespace detail
}  // namespace whence
