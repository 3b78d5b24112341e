#include "whence/kernels/regime_fit.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>
#include <utility>

#include "whence/core/error.h"
#include "whence/core/tensors.h"

namespace whence {
namespace {

constexpr double kAtRest = 1e-12;  // of the equations, beside the coefficients
constexpr int kNewtonSteps = 100, kChordSteps = 200, kHalvings = 30;

at::Tensor flat(const at::Tensor& x) { return x.reshape({-1}); }

double length(const at::Tensor& x) { return x.norm().item<double>(); }

}  // namespace

struct RegimeFit::Slopes {
  at::Tensor gradient;  // [N, C]
  at::Tensor hessian;   // [N, C, C]
};

RegimeFit::Slopes RegimeFit::slopes(const at::Tensor& outputs) const {
  Slopes out;
  const auto point = outputs.detach().clone().requires_grad_(true);
  {
    const at::AutoGradMode with_gradient(true);
    out.gradient = whence::gradient(loss_.per_example(point, batch_).sum(), {point}).front().detach();
  }
  const at::NoGradGuard no_gradient;
  TensorList columns;
  for (std::int64_t c = 0; c < outputs.size(1); ++c) {
    auto unit = at::zeros_like(outputs);
    unit.select(1, c).fill_(1);
    columns.push_back(loss_.hessian_product(outputs, batch_, unit));
  }
  out.hessian = at::stack(columns, 2);
  return out;
}

at::Tensor RegimeFit::residual(const at::Tensor& coefficients, const at::Tensor& gradient) const {
  return flat(coefficients + gradient / scale_);
}

RegimeFit::RegimeFit(at::Tensor gram, at::Tensor start, const Dataset& data, const Loss& loss, double ridge)
    : gram_(std::move(gram)),
      start_(std::move(start)),
      data_(data),
      loss_(loss),
      ridge_(ridge),
      scale_(ridge * static_cast<double>(start_.size(0))) {
  const auto n = start_.size(0), size = start_.numel();
  if (gram_.sizes() != at::IntArrayRef({size, size}) || data.size() != n) {
    throw InvalidArgument(
        fmt::format("kernel: a Gram matrix [{}] and {} examples, expected [{}, {}] of {} outputs each",
                    fmt::join(gram_.sizes(), ", "), data.size(), size, size, start_.size(1)));
  }
  if (!(ridge > 0) || !std::isfinite(ridge)) {
    throw InvalidArgument(fmt::format("kernel: ridge = {}, expected > 0", ridge));
  }
  batch_ = data.to(at::kDouble, at::kCPU).batch(0, n);
  const auto identity = at::eye(size, gram_.options());
  coefficients_ = at::zeros_like(start_);
  auto at = slopes(outputs());
  auto rest = residual(coefficients_, at.gradient);
  const auto jacobian = [&] {  // I + W K / (N ridge)
    return identity + at::bmm(at.hessian, gram_.view({n, start_.size(1), size})).view({size, size}) / scale_;
  };
  const auto bound = [&] { return kAtRest * (1 + length(at.gradient) / scale_); };
  for (int step = 0; step < kNewtonSteps && length(rest) > bound(); ++step) {
    check_interruption();
    const auto direction = at::linalg_solve(jacobian(), -rest.unsqueeze(1)).view_as(coefficients_);
    const auto before = coefficients_;
    const double was = length(rest);
    double share = 1;
    bool better = false;
    for (int halving = 0; halving < kHalvings && !better; ++halving, share /= 2) {
      coefficients_ = before + share * direction;
      at = slopes(outputs());
      rest = residual(coefficients_, at.gradient);
      better = length(rest) < (1 - 1e-4 * share) * was;
    }
    if (!better) {  // rounding has the last word
      coefficients_ = before;
      at = slopes(outputs());
      rest = residual(coefficients_, at.gradient);
      break;
    }
  }
  const double left = length(rest) / (1 + length(at.gradient) / scale_);
  if (!(left < 1e-8)) {
    throw NumericalError(fmt::format(
        "kernel: the fit by the kernel does not come to rest with ridge = {:.3g}: a residual of {:.1e}, expected 1e-8; "
        "raise the ridge",
        ridge_, left));
  }
  gradient_ = at.gradient;
  hessian_ = at.hessian;
  inverse_ = at::linalg_inv(jacobian());
  check_finite({coefficients_, inverse_}, "the fit by the kernel");
}

at::Tensor RegimeFit::outputs() const { return start_ + at::mv(gram_, flat(coefficients_)).view_as(start_); }

at::Tensor RegimeFit::predict(const at::Tensor& rows, const at::Tensor& start) const {
  return start + at::mv(rows, flat(coefficients_)).view_as(start);
}

at::Tensor RegimeFit::weight_derivatives(const at::Tensor& rows) const {
  const auto n = start_.size(0), outputs = start_.size(1);
  const auto carried = at::mm(rows, inverse_).view({-1, outputs, n, outputs});
  return -(carried * gradient_).sum(3) / scale_;
}

at::Tensor RegimeFit::pull_back(const at::Tensor& rows, const at::Tensor& slopes) const {
  const auto n = start_.size(0), outputs = start_.size(1);
  const auto of_places = (rows.view({-1, outputs, n * outputs}) * slopes.unsqueeze(2)).sum(1);  // [M, N C]
  const auto carried = at::mm(of_places, inverse_).view({-1, n, 1, outputs});
  return -at::matmul(carried, hessian_).squeeze(2) / scale_;
}

at::Tensor RegimeFit::refitted_without(std::int64_t example) const {
  const auto width = start_.size(1);
  const auto all = at::arange(examples());
  const auto others = all.masked_select(all.ne(example));
  const auto rows = (others.unsqueeze(1) * width + at::arange(width)).flatten();
  const double count = static_cast<double>(examples());
  const RegimeFit again(gram_.index_select(0, rows).index_select(1, rows), start_.index_select(0, others),
                        data_.take(others), loss_, ridge_ * count / (count - 1));
  auto out = at::zeros_like(coefficients_);
  out.index_copy_(0, others, again.coefficients());
  return out;
}

at::Tensor RegimeFit::leave_one_out(const Progress& progress) const {
  const auto n = start_.size(0), width = start_.size(1);
  auto out = at::empty({n, n * width}, gram_.options());
  for (std::int64_t i = 0; i < n; ++i) {
    check_interruption(i, n);
    // the fit's own Jacobian with the rows of example i those of the identity: C ranks away, so that its inverse is at
    // hand. For quadratic losses the first step is the answer; for others it is Newton's with the Hessian kept.
    const auto column = inverse_.narrow(1, i * width, width);
    const auto corner = column.narrow(0, i * width, width);
    auto coefficients = coefficients_.clone();
    coefficients[i].zero_();
    double was = std::numeric_limits<double>::infinity(), left = was;
    for (int step = 0; step < kChordSteps; ++step) {
      const auto here = start_ + at::mv(gram_, flat(coefficients)).view_as(start_);
      auto pull = slopes(here).gradient;
      pull[i].zero_();
      const auto rest = residual(coefficients, pull);
      left = length(rest) / (1 + length(pull) / scale_);
      if (left <= kAtRest || (left < 1e-10 && left >= was)) {
        break;
      }
      was = left;
      const auto moved = at::mv(inverse_, rest);
      const auto own = rest.narrow(0, i * width, width) - moved.narrow(0, i * width, width);
      const auto step_back = moved + at::mv(column, at::linalg_solve(corner, own.unsqueeze(1)).squeeze(1));
      coefficients = coefficients - step_back.view_as(coefficients);
    }
    if (!(left < 1e-9)) {
      coefficients = refitted_without(i);
    }
    coefficients[i].zero_();  // to rounding it is
    out[i].copy_(flat(coefficients));
    report(progress, {"leave out", i + 1, n, ""});
  }
  return out;
}

at::Tensor RegimeFit::predict_without(const at::Tensor& left_out, const at::Tensor& rows,
                                      const at::Tensor& start) const {
  return start.unsqueeze(0) + at::mm(left_out, rows.t()).view({left_out.size(0), start.size(0), start.size(1)});
}

double nearest_ridge(const at::Tensor& gram, const at::Tensor& start, const Dataset& data, const Loss& loss,
                     const at::Tensor& end, const Progress& progress) {
  constexpr int kFrom = -12, kTo = 4;  // half decades
  const auto n = static_cast<double>(start.size(0));
  const double mean = gram.diagonal().mean().item<double>() / n;
  if (!(mean > 0)) {
    throw NumericalError(fmt::format("kernel: the mean of the Gram matrix's diagonal is {}, expected > 0", mean * n));
  }
  double best = std::numeric_limits<double>::quiet_NaN(), nearest = std::numeric_limits<double>::infinity();
  for (int step = kTo; step >= kFrom; --step) {
    report(progress, {"find the ridge", kTo - step, kTo - kFrom + 1, ""});
    const double ridge = mean * std::pow(10.0, step / 2.0);
    try {
      const double distance = length(RegimeFit(gram, start, data, loss, ridge).outputs() - end);
      if (distance < nearest) {
        nearest = distance;
        best = ridge;
      }
    } catch (const NumericalError&) {
      break;  // smaller ones are worse conditioned still
    }
  }
  if (std::isnan(best)) {
    throw NumericalError("kernel: no ridge of the grid lets the fit by the kernel come to rest");
  }
  return best;
}

}  // namespace whence
