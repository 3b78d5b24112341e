#include "whence/training/priming.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "whence/core/error.h"
#include "whence/models/ops.h"
#include "whence/training/objective.h"

namespace whence {
namespace {

at::Tensor rows_of(const PrimingTask& task) { return at::cat({task.support, task.query}); }

bool tracked(const TensorList& values) {
  return std::any_of(values.begin(), values.end(), [](const auto& value) { return value.requires_grad(); });
}

}  // namespace

std::vector<PrimingTask> split_tasks(const std::vector<std::string>& names, double support, const Random& random) {
  std::vector<std::string> order;
  std::unordered_map<std::string, std::vector<std::int64_t>> rows;
  for (std::size_t i = 0; i < names.size(); ++i) {
    auto& here = rows[names[i]];
    if (here.empty()) {
      order.push_back(names[i]);
    }
    here.push_back(static_cast<std::int64_t>(i));
  }
  std::vector<PrimingTask> out;
  for (const auto& name : order) {
    const auto all = at::tensor(rows[name], at::kLong);
    const auto n = all.size(0);
    if (n < 2) {
      throw InvalidArgument(fmt::format(
          "priming: task \"{}\" has one example, expected two or more: one to adapt to and one to be judged by", name));
    }
    const auto count = std::clamp<std::int64_t>(std::llround(support * static_cast<double>(n)), 1, n - 1);
    const auto drawn = all.index_select(0, random.stream("task " + name).permutation(n));
    out.push_back(
        {name, std::get<0>(drawn.narrow(0, 0, count).sort()), std::get<0>(drawn.narrow(0, count, n - count).sort())});
  }
  return out;
}

InnerStage::InnerStage(std::shared_ptr<const Priming> priming, std::shared_ptr<const Tuning> tuning, ParameterSet start,
                       std::vector<PrimingTask> tasks)
    : priming_(std::move(priming)), tuning_(std::move(tuning)), start_(std::move(start)), tasks_(std::move(tasks)) {
  if (tasks_.empty()) {
    throw InvalidArgument("priming: 0 tasks, expected one or more");
  }
  for (std::size_t t = 0; t < tasks_.size(); ++t) {
    by_first_row_[rows_of(tasks_[t])[0].item<std::int64_t>()] = static_cast<std::int64_t>(t);
  }
}

ParameterSet InnerStage::start_like(const at::Tensor& like) const {
  TensorList values;
  for (const auto& value : start_.values()) {
    values.push_back(value.detach().to(like.device(), like.scalar_type()));
  }
  return start_.with(std::move(values));
}

at::Tensor InnerStage::rows(const at::Tensor& which) const {
  TensorList parts;
  for (std::int64_t i = 0; i < which.size(0); ++i) {
    parts.push_back(rows_of(tasks_.at(static_cast<std::size_t>(which[i].item<std::int64_t>()))));
  }
  return at::cat(parts);
}

at::Tensor InnerStage::tasks_of(const at::Tensor& rows) const {
  std::vector<std::int64_t> out;
  for (std::int64_t begin = 0; begin < rows.size(0);) {
    const auto found = by_first_row_.find(rows[begin].item<std::int64_t>());
    const auto whole =
        found == by_first_row_.end() ? at::Tensor() : rows_of(tasks_[static_cast<std::size_t>(found->second)]);
    if (!whole.defined() || begin + whole.size(0) > rows.size(0) ||
        !at::equal(rows.narrow(0, begin, whole.size(0)), whole)) {
      throw InvalidArgument(fmt::format(
          "the objective of a primed stage is of whole tasks, and a batch holds a part of one, from row {}", begin));
    }
    out.push_back(found->second);
    begin += whole.size(0);
  }
  return at::tensor(out, at::kLong);
}

at::Tensor InnerStage::of_tasks(const at::Tensor& scores) const {
  const auto wide = scores.detach().to(at::kCPU, at::kDouble);
  TensorList columns;
  for (const auto& task : tasks_) {
    columns.push_back(wide.index_select(1, task.query).sum(1));
  }
  return at::stack(columns, 1);
}

InnerStage InnerStage::over(const at::Tensor& which) const {
  std::vector<PrimingTask> some;
  for (std::int64_t i = 0; i < which.size(0); ++i) {
    some.push_back(tasks_.at(static_cast<std::size_t>(which[i].item<std::int64_t>())));
  }
  return {priming_, tuning_, start_, std::move(some)};
}

/// The mean loss of the task's query examples under what the inner loop makes of the start on its support. An order
/// more of derivatives goes through the model where outer gradients go through the inner loop.
at::Tensor Objective::task_loss(const TensorList& theta, const TensorList& parent, const PrimingTask& task) const {
  const auto& priming = inner_->priming();
  const bool wanted = c10::GradMode::is_enabled() &&
                      (tracked(theta) || tracked(parent) || (weights_.defined() && weights_.requires_grad()));
  const c10::AutoGradMode with_grad(true);
  const DerivativeOrder order(DerivativeOrder::current() + (priming.is_exact() ? 1 : 0));
  const auto body = hand_on(theta, parent);
  const auto start = inner_->start_like(theta.front());
  const auto mean_loss = [&](const TensorList& light, const at::Tensor& rows) {
    const auto batch = data_.batch(rows);
    const auto losses =
        loss_->per_example(model_output(inner_->tuning().merge(body, start.with(light)), batch, nullptr), batch);
    return weights_.defined()
               ? (losses * weights_.index_select(0, rows.to(weights_.device())).to(losses.options())).mean()
               : losses.mean();
  };
  const auto light = priming.adapt(
      start.values(), [&](const TensorList& at) { return mean_loss(at, task.support); }, wanted && priming.is_exact());
  return mean_loss(light, task.query);
}

}  // namespace whence
