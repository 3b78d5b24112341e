#include "whence/kernels/kernel_blocks.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "whence/core/error.h"
#include "whence/core/memory.h"
#include "whence/core/operation_count.h"
#include "whence/kernels/detail/block_products.h"

namespace whence {
namespace {

/// The row whose pass holds most.
std::int64_t longest_row(const Dataset& data) {
  return data.is_text() ? data.texts().lengths.argmax().item<std::int64_t>() : 0;
}
std::int64_t length_of(const Dataset& data) { return data.is_text() ? data.longest() : 1; }

void check_point(const KernelPoint& point) {
  if (point.objective.inner() != nullptr) {
    throw InvalidArgument("kernel: the stage is primed and has no outputs of its own, expected a stage behind it");
  }
  if (point.names.empty()) {
    throw InvalidArgument("kernel: no parameters to take gradients in, expected at least one");
  }
  for (const auto& name : point.names) {
    point.objective.trained().at(name);
  }
}

std::string size_text(double bytes) {
  return bytes < 1e9 ? fmt::format("{:.1f} MB", bytes / 1e6) : fmt::format("{:.1f} GB", bytes / 1e9);
}

std::string time_text(double seconds) {
  return seconds < 100    ? fmt::format("{:.1f} s", seconds)
         : seconds < 6000 ? fmt::format("{:.0f} min", seconds / 60)
                          : fmt::format("{:.1f} h", seconds / 3600);
}

std::int64_t blocks_in(std::int64_t examples, std::int64_t block) { return (examples + block - 1) / block; }

/// What the longest example shows of a block's cost.
struct Probe {
  double kept = 0, pass = 0;  ///< Bytes: of what is left of a pass, and of the pass.
  double pass_seconds = 0;
  double pair = 0, forming = 0;  ///< Multiplications of a pair of examples, and of what is formed of one.
  std::int64_t outputs = 0;
  double scratch = 0;
};

Probe probe(const TangentKernel& kernel, const KernelPoint& point, const Dataset& data, std::int64_t block) {
  const auto merged = point.objective.merge(detach(point.theta), detach(point.parent));
  const auto taped = detail::taped_names(point, merged, data);
  const auto row = longest_row(data);
  std::optional<detail::TapedBlock> one;
  const auto count = count_operations([&] { one.emplace(point, merged, taped, data, row, row + 1, 1); });
  Probe out{.kept = one->bytes(),
            .pass = one->pass_bytes(),
            .pass_seconds = count.nominal_seconds(),
            .outputs = one->outputs()};
  const auto outputs = static_cast<double>(out.outputs);
  const auto examples = static_cast<double>(block);
  for (const auto& parameter : one->parameters()) {
    if (parameter.formed.defined()) {
      out.pair += outputs * outputs * static_cast<double>(parameter.formed.size(2));
      continue;
    }
    const auto size = static_cast<double>(parameter.active() * parameter.width);
    double forming = 0, positions = 0;
    for (const auto& use : parameter.uses) {
      forming += outputs * size * static_cast<double>(use.first.is_picks() ? 1 : use.first.positions());
      positions = std::max(positions, static_cast<double>(use.second.positions()));
    }
    const auto another = parameter;
    const auto formed = outputs * outputs * size, ghost = detail::ghost_cost(parameter, another);
    double scratch = 0;
    if (kernel.plain() && ghost < formed + 2 * forming / examples) {
      out.pair += ghost;
      scratch = 12 * std::pow(examples * outputs * positions, 2);
    } else {
      out.pair += formed;
      out.forming += forming;
      scratch = 48 * examples * outputs * size;
    }
    out.scratch = std::max(out.scratch, std::min(detail::kProductScratch, scratch));
  }
  return out;
}

/// How long examples are beside the longest of both sides: a pass goes over what they have, and what is left of it is
/// laid out as long as the longest of its block.
struct BlockShares {
  double passed = 0, laid_out = 0;            ///< Of the block that has most, in longest examples.
  double mean_passed = 0, mean_laid_out = 0;  ///< An example, 0 to 1.
};
BlockShares shares(const Dataset& data, std::int64_t block, std::int64_t longest) {
  const auto n = data.size();
  if (!data.is_text()) {
    const auto most = static_cast<double>(std::min(n, block));
    return {most, most, 1, 1};
  }
  const auto lengths = data.texts().lengths.to(at::kCPU, at::kLong);
  BlockShares out;
  for (std::int64_t begin = 0; begin < n; begin += block) {
    const auto here = lengths.narrow(0, begin, std::min(block, n - begin));
    const double unit = static_cast<double>(longest), passed = here.sum().item<double>() / unit,
                 laid_out = static_cast<double>(here.size(0)) * here.max().item<double>() / unit;
    out.passed = std::max(out.passed, passed);
    out.laid_out = std::max(out.laid_out, laid_out);
    out.mean_passed += passed / static_cast<double>(n);
    out.mean_laid_out += laid_out / static_cast<double>(n);
  }
  return out;
}

/// Passes of examples that a plan's blocks take.
double passes(const KernelPlan& plan, bool own) {
  double out = 0;
  for (std::int64_t i = 0; i < blocks_in(plan.rows, plan.block); ++i) {
    const auto begin = i * plan.block, length = std::min(plan.block, plan.rows - begin);
    out += static_cast<double>(length + (plan.halved ? begin : plan.columns - (own ? length : 0)));
  }
  return out;
}

}  // namespace

std::string KernelPlan::text() const {
  return fmt::format(
      "{} x {} examples, {} output{}, blocks of {}: {} beside the model, kernel {}, {:.0f} forward and {:.0f} backward "
      "passes of an example, about {}",
      rows, columns, outputs, outputs == 1 ? "" : "s", block, size_text(peak_bytes()), size_text(matrix_bytes),
      forward_passes, backward_passes, time_text(seconds));
}

KernelPlan plan_kernel(const TangentKernel& kernel, const KernelPoint& point, const Dataset& rows,
                       const Dataset* columns, const KernelLimits& limits) {
  constexpr double kOfPass = 0.25;  // of what is allowed
  check_point(point);
  const auto& other = columns == nullptr ? rows : *columns;
  if (rows.size() == 0 || other.size() == 0) {
    throw InvalidArgument(
        fmt::format("kernel: {} examples against {}, expected at least one on each side", rows.size(), other.size()));
  }
  KernelPlan out{.rows = rows.size(), .columns = other.size()};
  out.halved = columns == nullptr && kernel.symmetric();
  const auto most = std::max(out.rows, out.columns);
  const auto wanted = std::min(most, limits.block > 0 ? limits.block : limits.most_block);
  const auto cost = probe(kernel, point, length_of(other) > length_of(rows) ? other : rows, wanted);
  out.outputs = cost.outputs;
  out.pass = std::clamp(static_cast<std::int64_t>(kOfPass * limits.bytes / cost.pass), std::int64_t{1}, wanted);
  const auto longest = std::max(length_of(rows), length_of(other));
  const auto bytes = [&](std::int64_t block) {
    const auto left = shares(rows, block, longest), right = columns == nullptr ? left : shares(other, block, longest);
    const bool alone = columns == nullptr && block >= out.rows;  // one block, of itself
    const double passed = std::min(right.passed, static_cast<double>(out.pass));
    return (alone ? 0 : left.laid_out * cost.kept) + passed * cost.pass + right.laid_out * cost.kept;
  };
  const auto scratch = [&](std::int64_t block) {
    const auto left = shares(rows, block, longest), right = columns == nullptr ? left : shares(other, block, longest);
    const bool alone = columns == nullptr && block >= out.rows;
    return (alone ? left.laid_out : left.laid_out + right.laid_out) * cost.kept + cost.scratch;
  };
  const auto peak = [&](std::int64_t block) { return std::max(bytes(block), scratch(block)); };
  out.block = wanted;
  while (limits.block == 0 && out.block > 1 && peak(out.block) > limits.bytes) {
    --out.block;
  }
  if (const double allowed = out.block == 1 ? std::max(limits.bytes, limits.at_most) : limits.bytes;
      peak(out.block) > allowed) {
    throw InvalidArgument(fmt::format(
        "kernel: a block of {} example{} takes {} ({} an example's pass, {} what is kept of it, products {}), of {} "
        "allowed: allow more memory, or take {}fewer parameters or shorter texts",
        out.block, out.block == 1 ? "" : "s", size_text(peak(out.block)), size_text(cost.pass), size_text(cost.kept),
        size_text(cost.scratch), size_text(allowed), out.block == 1 ? "" : "a smaller block, "));
  }
  if (limits.block == 0) {  // as many blocks, evenly
    out.block = (most + blocks_in(most, out.block) - 1) / blocks_in(most, out.block);
  }
  out.block_bytes = bytes(out.block);
  out.scratch_bytes = scratch(out.block);
  const auto outputs = static_cast<double>(out.outputs);
  const auto pairs = static_cast<double>(out.rows) * static_cast<double>(out.columns);
  out.matrix_bytes = 8 * pairs * outputs * outputs;
  out.forward_passes = passes(out, columns == nullptr);
  out.backward_passes = out.forward_passes * outputs;
  out.pass_bytes = cost.pass;
  out.pass_seconds = cost.pass_seconds;
  const auto left = shares(rows, out.block, longest), right = shares(other, out.block, longest);
  const double length = (left.mean_laid_out + right.mean_laid_out) / 2;
  const OperationCount products{.multiplications = pairs * cost.pair * left.mean_laid_out * right.mean_laid_out /
                                                       (out.halved ? 2 : 1) +
                                                   out.forward_passes * cost.forming * length};
  out.seconds =
      out.forward_passes * cost.pass_seconds * (left.mean_passed + right.mean_passed) / 2 + products.nominal_seconds();
  return out;
}

KernelLimits kernel_limits() {
  return {.bytes = keepable_bytes(KernelLimits{}.bytes), .at_most = std::max(0.0, memory_limit() - resident_bytes())};
}

void make_kernel(const TangentKernel& kernel, const KernelPoint& point, const Dataset& rows, const Dataset* columns,
                 const KernelPlan& plan, ScoreSink& sink, const Progress& progress) {
  check_point(point);
  const auto& other = columns == nullptr ? rows : *columns;
  if (plan.rows != rows.size() || plan.columns != other.size() || plan.block < 1 || plan.pass < 1 ||
      plan.halved != (columns == nullptr && kernel.symmetric())) {
    throw InvalidArgument(fmt::format("kernel: a plan of {} x {} examples for {} x {}, expected that of plan_kernel()",
                                      plan.rows, plan.columns, rows.size(), other.size()));
  }
  const auto merged = point.objective.merge(detach(point.theta), detach(point.parent));
  const auto taped = detail::taped_names(point, merged, rows);
  const auto c = plan.outputs;
  const auto row_blocks = blocks_in(plan.rows, plan.block), column_blocks = blocks_in(plan.columns, plan.block);
  const auto taped_block = [&](const Dataset& data, std::int64_t i) {
    const auto begin = i * plan.block;
    detail::TapedBlock out(point, merged, taped, data, begin, std::min(data.size(), begin + plan.block), plan.pass);
    if (out.outputs() != c) {
      throw InvalidArgument(fmt::format("kernel: {} outputs, of which the plan knows {}", out.outputs(), c));
    }
    return out;
  };
  const auto has = [&](std::int64_t i, std::int64_t j) {
    const auto first = i * plan.block * c, second = j * plan.block * c;
    return sink.has(first, std::min(plan.rows * c - first, plan.block * c), second,
                    std::min(plan.columns * c - second, plan.block * c));
  };
  ProgressScope scope(progress,
                      {"kernel", 0, plan.halved ? row_blocks * (row_blocks + 1) / 2 : row_blocks * column_blocks, ""});
  std::int64_t done = 0;
  for (std::int64_t i = 0; i < row_blocks; ++i) {
    std::optional<detail::TapedBlock> left;  // made where a block of its row is missing
    for (std::int64_t j = 0; j < (plan.halved ? i + 1 : column_blocks); ++j) {
      if (!has(i, j) || (plan.halved && !has(j, i))) {
        if (!left) {
          left.emplace(taped_block(rows, i));
        }
        auto values = columns == nullptr && i == j ? detail::block_products(kernel, *left, *left)
                                                   : detail::block_products(kernel, *left, taped_block(other, j));
        values = values.to(at::kCPU).flatten(2).flatten(0, 1);
        if (plan.halved && i == j) {
          values = (values + values.t()) / 2;  // which rounding may tell apart
        }
        check_finite(values, "the kernel");
        sink.block(i * plan.block * c, j * plan.block * c, values);
        if (plan.halved && i != j) {
          sink.block(j * plan.block * c, i * plan.block * c, values.t().contiguous());
        }
      }
      scope.at(++done);
    }
  }
}

KernelMatrix::KernelMatrix(const KernelPlan& plan) : rows_(plan.rows), columns_(plan.columns), outputs_(plan.outputs) {
  const double limit = memory_limit() - resident_bytes();
  if (plan.matrix_bytes * 9 / 8 > limit) {
    throw InvalidArgument(
        fmt::format("kernel: {} x {} examples with {} outputs take {}, expected at most {}: take fewer", rows_,
                    columns_, outputs_, size_text(plan.matrix_bytes), size_text(limit)));
  }
  values_ = at::zeros({rows_ * outputs_, columns_ * outputs_}, at::kDouble);
  made_ = at::zeros({rows_ * outputs_, columns_ * outputs_}, at::kBool);
}

bool KernelMatrix::has(std::int64_t first_row, std::int64_t rows, std::int64_t first_column,
                       std::int64_t columns) const {
  return made_.narrow(0, first_row, rows).narrow(1, first_column, columns).all().item<bool>();
}

void KernelMatrix::block(std::int64_t first_row, std::int64_t first_column, const at::Tensor& values) {
  check_finite(values, "the kernel");
  values_.narrow(0, first_row, values.size(0)).narrow(1, first_column, values.size(1)).copy_(values);
  made_.narrow(0, first_row, values.size(0)).narrow(1, first_column, values.size(1)).fill_(true);
}

at::Tensor KernelMatrix::tensor() const { return values_.view({rows_, outputs_, columns_, outputs_}); }

at::Tensor kernel_of(const TangentKernel& kernel, const KernelPoint& point, const Dataset& rows, const Dataset* columns,
                     const KernelLimits& limits, const Progress& progress) {
  const auto plan = plan_kernel(kernel, point, rows, columns, limits);
  KernelMatrix out(plan);
  make_kernel(kernel, point, rows, columns, plan, out, progress);
  return out.tensor();
}

}  // namespace whence
