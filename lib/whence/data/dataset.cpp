#include "whence/data/dataset.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "whence/core/error.h"
#include "whence/data/detail/bytes.h"

namespace whence {
namespace {

constexpr std::int64_t kKeptBytes = std::int64_t{1} << 30;  // of converted inputs that a dataset keeps

void check_shapes(const Dataset::Contents& c) {
  if (!c.inputs.defined() || c.inputs.dim() < 1 || !c.targets.defined() || !c.ids.defined()) {
    throw InvalidArgument("dataset: inputs [N, ...], targets and ids are needed");
  }
  const auto count = c.inputs.size(0);
  const bool targets_fit = c.classes.empty()
                               ? c.targets.dim() == 2 && c.targets.size(1) > 0 && c.targets.is_floating_point()
                               : c.targets.dim() == 1 && c.targets.scalar_type() == at::kLong;
  if (!targets_fit || c.targets.size(0) != count) {
    throw InvalidArgument(fmt::format("dataset: targets [{}] of {}, expected {} for {} inputs",
                                      fmt::join(c.targets.sizes(), ", "), c10::toString(c.targets.scalar_type()),
                                      c.classes.empty() ? "floating [N, k]" : "int64 [N]", count));
  }
  if (c.ids.dim() != 1 || c.ids.size(0) != count || c.ids.scalar_type() != at::kLong) {
    throw InvalidArgument(fmt::format("dataset: ids [{}] of {}, expected int64 [{}]", fmt::join(c.ids.sizes(), ", "),
                                      c10::toString(c.ids.scalar_type()), count));
  }
}

}  // namespace

Dataset::Dataset(Contents contents) : contents_(std::move(contents)) {
  const auto& c = contents_;
  check_shapes(c);
  for (const auto& [what, x] : {std::pair("inputs", c.inputs), std::pair("targets", c.targets)}) {
    if (const auto row = detail::first_nonfinite_row(x); row >= 0) {
      throw InvalidArgument(
          fmt::format("dataset: the {} of example {} are not finite", what, c.ids[row].item<std::int64_t>()));
    }
  }
  if (!std::isfinite(c.scale)) {
    throw InvalidArgument(fmt::format("dataset: scale {}, expected a finite number", c.scale));
  }
  if (!c.classes.empty() && size() > 0) {
    const auto low = c.targets.min().item<std::int64_t>(), high = c.targets.max().item<std::int64_t>();
    if (low < 0 || high >= outputs()) {
      throw InvalidArgument(
          fmt::format("dataset: class number {}, expected one of 0 to {}", low < 0 ? low : high, outputs() - 1));
    }
  }
}

std::int64_t Dataset::size() const { return contents_.inputs.defined() ? contents_.inputs.size(0) : 0; }

std::int64_t Dataset::outputs() const {
  return target_kind() == TargetKind::kClasses ? static_cast<std::int64_t>(contents_.classes.size())
                                               : contents_.targets.size(1);
}

std::vector<std::int64_t> Dataset::input_shape() const { return contents_.inputs.sizes().slice(1).vec(); }

Batch Dataset::batch(std::int64_t begin, std::int64_t end) const {
  if (begin < 0 || begin > end || end > size()) {
    throw InvalidArgument(fmt::format("dataset: examples {} to {}, expected within 0 to {}", begin, end, size()));
  }
  const auto& inputs = ready_inputs_.defined() ? ready_inputs_ : contents_.inputs;
  return make_batch(inputs.narrow(0, begin, end - begin), contents_.targets.narrow(0, begin, end - begin),
                    at::arange(begin, end, at::kLong));
}

Batch Dataset::batch(const at::Tensor& rows) const {
  check_rows(rows);
  const auto& inputs = ready_inputs_.defined() ? ready_inputs_ : contents_.inputs;
  return make_batch(inputs.index_select(0, rows.to(inputs.device())), contents_.targets.index_select(0, rows), rows);
}

Batch Dataset::make_batch(at::Tensor inputs, at::Tensor targets, const at::Tensor& rows) const {
  if (!ready_inputs_.defined()) {
    inputs = inputs.to(at::TensorOptions().dtype(dtype_).device(device_));
    if (contents_.scale != 1) {
      inputs = inputs * contents_.scale;
    }
  }
  targets = targets.to(device_);
  return {std::move(inputs), target_kind() == TargetKind::kClasses ? targets : targets.to(dtype_),
          contents_.ids.index_select(0, rows), rows};
}

void Dataset::check_rows(const at::Tensor& rows) const {
  if (rows.dim() != 1 || rows.scalar_type() != at::kLong || !rows.is_cpu()) {
    throw InvalidArgument(fmt::format("dataset: rows [{}] of {}, expected int64 [B] on the CPU",
                                      fmt::join(rows.sizes(), ", "), c10::toString(rows.scalar_type())));
  }
  if (rows.numel() == 0) {
    return;
  }
  const auto low = rows.min().item<std::int64_t>(), high = rows.max().item<std::int64_t>();
  if (low < 0 || high >= size()) {
    throw InvalidArgument(fmt::format("dataset: row {}, expected one of 0 to {}", low < 0 ? low : high, size() - 1));
  }
}

Dataset Dataset::to(at::ScalarType dtype, at::Device device) const {
  if (!at::isFloatingType(dtype)) {
    throw InvalidArgument(fmt::format("dataset: batches of {}, expected a floating type", c10::toString(dtype)));
  }
  Dataset out = *this;
  out.dtype_ = dtype;
  out.device_ = device;
  out.ready_inputs_ = at::Tensor();
  const auto bytes = contents_.inputs.numel() * static_cast<std::int64_t>(c10::elementSize(dtype));
  if (bytes <= kKeptBytes) {
    out.ready_inputs_ = out.batch(0, size()).inputs;
  }
  return out;
}

Dataset Dataset::take(const at::Tensor& rows) const {
  check_rows(rows);
  Dataset out = *this;
  out.contents_.inputs = contents_.inputs.index_select(0, rows);
  out.contents_.targets = contents_.targets.index_select(0, rows);
  out.contents_.ids = contents_.ids.index_select(0, rows);
  if (ready_inputs_.defined()) {
    out.ready_inputs_ = ready_inputs_.index_select(0, rows.to(device_));
  }
  return out;
}

}  // namespace whence
