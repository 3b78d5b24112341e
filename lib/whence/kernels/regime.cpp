#include "whence/kernels/regime.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "whence/core/error.h"
#include "whence/core/rounding.h"
#include "whence/core/tensors.h"
#include "whence/models/ops.h"

namespace whence {
namespace {

void check_outputs(const Objective& objective, const Dataset& data) {
  if (objective.inner() != nullptr) {
    throw InvalidArgument("kernel: a primed stage has no outputs of its own, expected a stage with a head or words");
  }
  if (data.target_kind() == TargetKind::kNextTokens || data.target_kind() == TargetKind::kMaskedTokens) {
    throw InvalidArgument(
        "kernel: tokens are predicted, one output a word of the vocabulary and place, expected classes (a head, or "
        "label-words in the data) or values");
  }
}

void for_each_batch_of(const Objective& objective, const Dataset& data, const std::function<void(const Batch&)>& body) {
  const auto step = objective.batch_size();
  for (std::int64_t begin = 0; begin < data.size(); begin += step) {
    check_interruption(begin, data.size());
    body(data.batch(begin, std::min(data.size(), begin + step)));
  }
}

at::Tensor wide_copy(const at::Tensor& x) { return x.detach().to(at::kCPU, at::kDouble); }

at::Tensor outputs_of(const Objective& objective, const TensorList& theta, const TensorList& parent,
                      const Dataset& data) {
  const at::NoGradGuard no_gradient;
  TensorList parts;
  for_each_batch_of(objective, data,
                    [&](const Batch& batch) { parts.push_back(wide_copy(objective.output(theta, parent, batch))); });
  return at::cat(parts);
}

}  // namespace

LinearisedOutputs linearise(const Objective& objective, const TensorList& start, const TensorList& end,
                            const TensorList& parent, const Dataset& data, const Progress& progress) {
  check_outputs(objective, data);
  TensorList move;
  for (std::size_t i = 0; i < start.size(); ++i) {
    move.push_back(end[i].detach() - start[i].detach());
  }
  const auto frozen = detach(parent);
  const DerivativeOrder second(2);
  TensorList at_start, slopes;
  for_each_batch_of(objective, data, [&](const Batch& batch) {
    const at::AutoGradMode with_gradient(true);
    const auto point = leaves(start);
    const auto output = objective.output(point, frozen, batch);
    // J'u is linear in u, so that the derivative of <J'u, move> in u is J move, wherever it is taken
    const auto u = at::zeros_like(output).detach().requires_grad_(true);
    const auto pulled = gradient(TensorList{output}, point, TensorList{u}, /*create_graph=*/true);
    at::Tensor along = at::zeros({}, output.options());
    for (std::size_t i = 0; i < pulled.size(); ++i) {
      along = along + (pulled[i] * move[i]).sum();
    }
    at_start.push_back(wide_copy(output));
    slopes.push_back(along.requires_grad() ? wide_copy(gradient(along, TensorList{u}).front())
                                           : at::zeros_like(at_start.back()));
    const auto done = batch.rows[batch.size() - 1].item<std::int64_t>() + 1;
    report(progress, {"linearise", done, data.size(), ""});
  });
  LinearisedOutputs out;
  out.start = at::cat(at_start);
  out.linearised = out.start + at::cat(slopes);
  out.end = outputs_of(objective, end, parent, data);
  check_finite({out.start, out.linearised, out.end}, "an output");
  return out;
}

FeatureChange feature_change(const at::Tensor& start, const at::Tensor& end) {
  if (start.sizes() != end.sizes() || start.numel() == 0) {
    throw InvalidArgument(fmt::format("kernel: Gram matrices [{}] and [{}], expected two of one shape",
                                      fmt::join(start.sizes(), ", "), fmt::join(end.sizes(), ", ")));
  }
  const auto moved = (end - start).abs_().flatten(), was = start.abs().flatten();
  FeatureChange out;
  out.relative = moved.mean().item<double>() / was.mean().item<double>();
  out.frobenius = moved.norm().item<double>() / was.norm().item<double>();
  moved.div_(was);  // no number where both are 0
  if (!moved.isnan().all().item<bool>()) {
    out.mean = moved.nanmean().item<double>();
    out.median = moved.nanmedian().item<double>();
  }
  return out;
}

double skill(const at::Tensor& outputs, const Dataset& data, TargetKind kind) {
  const auto targets = data.targets().to(at::kCPU);
  if (kind == TargetKind::kClasses) {
    return outputs.argmax(1).eq(targets).to(at::kDouble).mean().item<double>();
  }
  if (kind == TargetKind::kProbabilities) {  // a logit above 0 is an event that is expected
    return outputs.gt(0).eq(targets.reshape(outputs.sizes()).gt(0.5)).to(at::kDouble).mean().item<double>();
  }
  const auto values = targets.to(at::kDouble).reshape(outputs.sizes());
  const double spread = (values - values.mean(0, true)).square().sum().item<double>();
  return 1 - (outputs - values).square().sum().item<double>() / spread;
}

double share_of_move(const at::Tensor& start, const at::Tensor& other, const at::Tensor& end) {
  const double move = (start - end).square().sum().item<double>();
  return move > 0 ? 1 - (other - end).square().sum().item<double>() / move : RegimeEvidence::kUnknown;
}

namespace {

std::string yes_no(const std::optional<bool>& test) { return !test ? "not tested" : *test ? "holds" : "fails"; }

}  // namespace

RegimeVerdict judge_regime(const RegimeEvidence& evidence) {
  RegimeVerdict out;
  const double improved = evidence.after - evidence.before;
  const bool improves = improved > 0, moves = !std::isnan(evidence.linear_share);
  if (!std::isnan(evidence.kernel) && improves && evidence.after > 0) {
    out.solves = evidence.kernel >= kKernelSolves * evidence.after;
  }
  if (improves || moves) {
    constexpr double kRounding = 1e-9;  // of shares of a few queries: exactly half is not more than half
    out.linear = (!improves || evidence.linearised - evidence.before > (kLinearRecovers + kRounding) * improved) &&
                 (!moves || evidence.linear_share > kLinearRecovers);
  }
  if (!std::isnan(evidence.feature_change)) {
    out.fixed = evidence.feature_change < kFixedFeatures;
  }
  const auto figure = [&](double value) {
    return evidence.classes ? fmt::format("{:.1f} %", 100 * value) : fmt::format("R^2 {:.3f}", value);
  };
  // the standard error of a share, at most
  const auto error = evidence.classes ? fmt::format(" (figures to ± {:.0f} points)",
                                                    50 / std::sqrt(std::max(1.0, static_cast<double>(evidence.asked))))
                                      : "";
  std::string told = fmt::format("on {} {}{} the fine-tune goes from {} to {}", evidence.asked,
                                 evidence.held_out ? "queries" : "of its own examples", error, figure(evidence.before),
                                 figure(evidence.after));
  told += fmt::format(", its linearisation to {}{} (more than half: {})", figure(evidence.linearised),
                      !moves ? ""
                      : evidence.linear_share >= 0
                          ? fmt::format(" and by {:.0f} % of the outputs' move", 100 * evidence.linear_share)
                          : " and farther from its outputs than its start is",
                      yes_no(out.linear));
  if (!std::isnan(evidence.feature_change)) {
    told += fmt::format("; its features move by {:.2g} of their size (below {:g}: {})", evidence.feature_change,
                        kFixedFeatures, yes_no(out.fixed));
  }
  if (!std::isnan(evidence.kernel)) {
    told += fmt::format("; the {} kernel{} reaches {} ({:.0f} % of the fine-tune: {})", evidence.kernel_name,
                        evidence.examples < evidence.of_examples
                            ? fmt::format(" of {} of {} examples", evidence.examples, evidence.of_examples)
                            : "",
                        figure(evidence.kernel), 100 * kKernelSolves,
                        improves ? yes_no(out.solves) : "not tested, the fine-tune improved nothing");
  }
  int held = 0, made = 0;
  for (const auto& test : {out.solves, out.linear, out.fixed}) {
    made += test.has_value() ? 1 : 0;
    held += test.value_or(false) ? 1 : 0;
  }
  using Level = RegimeVerdict::Level;
  if (evidence.asked < kFewestAsked || !out.linear) {
    out.level = Level::kTooFew;
    out.text = "too few to say: " + told;
    if (evidence.asked < kFewestAsked) {
      out.text += fmt::format("; {} {} at least are wanted", kFewestAsked, evidence.held_out ? "queries" : "examples");
    }
    if (!out.linear) {
      out.text += "; the fine-tune improved nothing that could be compared";
    }
    return out;
  }
  out.level = held == made ? Level::kIn : !*out.linear || held <= 1 ? Level::kOut : Level::kPartly;
  out.text = std::string(out.level == Level::kIn       ? "in the kernel regime: "
                         : out.level == Level::kPartly ? "partly in the kernel regime: "
                                                       : "not in the kernel regime: ") +
             told;
  return out;
}

}  // namespace whence
