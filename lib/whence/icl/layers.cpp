#include "whence/icl/detail/layers.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "whence/core/error.h"
#include "whence/core/random.h"
#include "whence/icl/detail/checks.h"

namespace whence::detail {

namespace {

at::Tensor as_one_hot(const at::Tensor& labels, std::int64_t classes) {
  const auto column = labels.cpu().unsqueeze(1);
  const auto rows = at::arange(classes, at::kLong).eq(column).to(at::kDouble);
  return rows.masked_fill(column.lt(0), std::numeric_limits<double>::quiet_NaN());
}

}  // namespace

at::Tensor targets_of(const IclTask& task) {
  return task.targets.defined() ? task.targets.to(at::kCPU, at::kDouble) : as_one_hot(task.labels, task.classes);
}

at::Tensor query_targets_of(const IclTask& task) {
  return task.targets.defined() ? task.query_targets.to(at::kCPU, at::kDouble)
                                : as_one_hot(task.query_labels, task.classes);
}

Layers::Layers(const IclTask& task, const RidgeOptions& options) : task_(task) {
  validate(options, "ridge");
  kernel_ = create<StateKernel>(options.kernel);
  check_labels(task);
  check_values(task.states, "states", {-1, task.demonstrations(), -1}, "[L, n, d]");
  const auto d = task.states.size(2);
  check_values(task.query_states, "query states", {task.states.size(0), task.queries(), d}, "[L, q, d]");
  if (task.targets.defined()) {
    check_values(task.targets, "targets", {task.demonstrations(), -1}, "[n, C]");
    const auto& wanted = task.query_targets;
    if (!wanted.defined() || wanted.dim() != 2 || wanted.size(0) != task.queries() ||
        wanted.size(1) != task.targets.size(1)) {
      throw InvalidArgument("icl: query targets do not fit the targets, expected [q, C]");
    }
  }
  if (options.projection > 0) {  // P_jk ~ N(0, 1 / dimensions)
    projection_ = Random(static_cast<std::uint64_t>(options.seed)).normal({d, options.projection});
    projection_ /= std::sqrt(static_cast<double>(options.projection));
  }
}

Layers::Layer Layers::fit(std::int64_t index) const {
  const auto own = rows(task_.states[index]);
  auto kernel = kernel_->fit(own);
  auto features = kernel.map(own);
  return {std::move(kernel), std::move(features)};
}

at::Tensor Layers::query_features(std::int64_t index, const Layer& layer, std::int64_t begin,
                                  std::int64_t length) const {
  return layer.kernel.map(rows(task_.query_states[index].narrow(0, begin, length)));
}

at::Tensor Layers::rows(const at::Tensor& states) const {
  const auto values = states.detach().to(at::kCPU, at::kDouble);
  return projection_.defined() ? values.mm(projection_) : values;
}

}  // namespace whence::detail
