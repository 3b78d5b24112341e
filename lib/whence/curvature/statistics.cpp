#include "whence/curvature/detail/statistics.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/core/chunks.h"
#include "whence/core/progress.h"
#include "whence/curvature/detail/pieces.h"

namespace whence::detail {
namespace {

constexpr std::int64_t kExactRows = 16;

RowKind kind_of(const std::string& labels, std::int64_t rows) {
  if (labels == "data") {
    return RowKind::kEmpirical;
  }
  const bool exact = labels == "exact" || (labels == "auto" && rows <= kExactRows);
  return exact ? RowKind::kGaussNewton : RowKind::kFisher;
}

LayerLayout layout_of(const char* name, const CurvaturePoint& point, std::optional<std::int64_t> widest) {
  const auto beside = widest ? LayerLayout::Beside::kDiagonal : LayerLayout::Beside::kNothing;
  const auto layout = trained_layout(point, beside, widest.value_or(0));
  if (!layout) {
    throw InvalidArgument(fmt::format("{}: {} is no layer's weight or bias: use --curvature gauss-newton or hessian",
                                      name, outside_layers(point, beside, widest.value_or(0))));
  }
  return *layout;
}

}  // namespace

CurvatureFamily statistics_family(const StatisticsOptions& options) {
  return options.labels == "data" ? CurvatureFamily::kEmpiricalFisher : CurvatureFamily::kGaussNewton;
}

at::Tensor statistics_mixed_product(const StatisticsOptions& options, const CurvaturePoint& point,
                                    const at::Tensor& v) {
  const auto family = statistics_family(options);
  return family == CurvatureFamily::kEmpiricalFisher ? create<Curvature>(to_string(family))->mixed_product(point, v)
                                                     : gauss_newton_mixed_product(point, v);
}

void check_statistics(const char* name, const StatisticsOptions& options, const CurvaturePoint& point, bool mixed,
                      std::int64_t widest) {
  layout_of(name, point, widest);
  if (const auto family = statistics_family(options); mixed && family == CurvatureFamily::kEmpiricalFisher) {
    create<Curvature>(to_string(family))->check(point, mixed);
  }
}

void for_each_rows(const char* name, const StatisticsOptions& options, const CurvaturePoint& point,
                   const std::function<void(const RowBatch&)>& body, std::optional<std::int64_t> widest,
                   std::int64_t begin) {
  const auto layout = layout_of(name, point, widest);
  const auto objective = fixed_examples(point, options.examples, options.seed).objective;
  const auto choice = make_rows(kind_of(options.labels, exact_rows(objective.data())), 1,
                                static_cast<std::uint64_t>(options.seed), objective);
  const auto merged = objective.merge(detach(point.theta), detach(point.parent));
  const auto& data = objective.data();
  for (auto end = begin; begin < data.size(); begin = end) {
    check_interruption(begin, data.size());
    end = std::min(data.size(), begin + objective.batch_size());
    body(RowBatch(objective, merged, data.batch(begin, end), choice, layout, false));
  }
}

at::Tensor squared_gradients(const LayerRows& rows, const at::Tensor& left, const at::Tensor& right) {
  const auto signal = left.defined() ? at::matmul(rows.signal, left) : rows.signal;
  const auto input = right.defined() ? at::matmul(rows.input, right) : rows.input;
  const auto b = signal.size(0), r = signal.size(1), t = signal.size(2), o = signal.size(3), columns = input.size(2);
  if (t == 1) {
    const auto squares = signal.square().sum(1).squeeze(1);  // [B, outputs]
    return at::mm(squares.t(), input.squeeze(1).square());
  }
  auto out = at::zeros({o, columns}, signal.options());
  in_chunks(b, r * o * (columns + t) * signal.element_size(), [&](std::int64_t begin, std::int64_t length) {
    const auto part = signal.narrow(0, begin, length).transpose(2, 3).reshape({length, r * o, t});
    out.add_(at::bmm(part, input.narrow(0, begin, length)).square_().view({length * r, o, columns}).sum(0));
  });
  return out;
}

}  // namespace whence::detail
