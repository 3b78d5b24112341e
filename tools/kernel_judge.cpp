// What a run of `whence kernel` makes of its matrices: the tests of the regime, and what they say.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "json.h"
#include "kernel_run.h"
#include "say.h"
#include "whence/core/memory.h"
#include "whence/core/progress.h"
#include "whence/core/quoted.h"
#include "whence/core/random.h"
#include "whence/kernels/low_rank.h"
#include "whence/kernels/regime.h"
#include "whence/stages/head_start.h"

namespace whence::cli {
namespace {

constexpr std::size_t kMostMoves = 400;  // points of the plot

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json test(const std::optional<bool>& holds, double value, double threshold) {
  return {{"holds", holds ? Json(*holds) : Json(nullptr)}, {"value", number(value)}, {"threshold", threshold}};
}

/// By what to rank a fine-tune of `pipeline`; `stage`: a flag, where one is needed; `method`: of this kernel.
std::string advice(RegimeVerdict::Level level, const std::string& pipeline, const std::string& stage,
                   const std::string& method) {
  switch (level) {
    case RegimeVerdict::Level::kIn:
      return fmt::format("; its influence in closed form: whence rank {}{} --method {}", shell_word(pipeline), stage,
                         method);
    case RegimeVerdict::Level::kPartly:
      return fmt::format(
          "; whether --method kernel or influence ranks it better: whence evaluate {} --methods kernel,influence --out "
          "DIR",
          shell_word(pipeline));
    case RegimeVerdict::Level::kOut:
      return fmt::format("; rank it without --method kernel: whence rank {}{}", shell_word(pipeline), stage);
    case RegimeVerdict::Level::kTooFew:
      return "";
  }
  return "";
}

}  // namespace

void KernelRun::regress(const KernelMatrices& made, Json& out) {
  const auto& data = examples_;
  const bool classes = data.target_kind() == TargetKind::kClasses;
  const auto here = point(at_start() ? start_ : stage().theta);
  const auto start = outputs_at(here, data);
  KernelProblem problem;
  problem.kernel = made.at("train");
  if (classes) {
    problem.labels = data.targets().to(at::kCPU);
    problem.classes = static_cast<std::int64_t>(data.classes().size());
  } else {
    problem.targets = data.targets().to(at::kCPU, at::kDouble).view(start.sizes());
    if (kind() == TargetKind::kProbabilities) {  // whose outputs are logits
      problem.targets = 2 * problem.targets - 1;
    }
  }
  const auto told = [&](const at::Tensor& outputs, const Dataset& of) {
    return classes ? predicted_classes(outputs).eq(of.targets().to(at::kCPU)).to(at::kDouble).mean().item<double>()
                   : skill(outputs, of, kind());
  };
  ProgressScope scope(progress_, {"fit with the kernel", 0, 2, ""});
  for (const bool from_start : {line_.flag("from-start"), !line_.flag("from-start")}) {
    const bool first = from_start == line_.flag("from-start");
    problem.start = from_start ? start : at::Tensor();
    const auto fit = solver_->fit(problem);
    if (!fit->converged()) {
      record_.warning(fmt::format("stage {}: the regression with the kernel did not converge: {}", stage().name,
                                  fit->notes().back()));
    }
    if (has_queries()) {
      const auto flipped = made.find("flipped");
      const KernelQueries asked{made.at("queries"), flipped == made.end() ? at::Tensor() : flipped->second,
                                from_start ? outputs_at(here, *queries_) : at::Tensor()};
      out["skill"][first ? "kernel" : "kernel-otherwise"] = number(told(fit->outputs(asked), *queries_));
    }
    if (first) {
      out["solver-notes"] = fit->notes();
      if (at_start() && parse_head_start(pipeline_.stages()[index_].head_start)) {
        out["solver-notes"].push_back(
            "the head began at a regression on the labels of all examples, through which the kernel knows them: its "
            "leave-one-out is not told, and a lambda chosen by it may be too small");
      } else if (fit->ways().front() == LeaveOut::kClosed) {
        out["skill"]["leave-one-out"] = number(told(fit->foretold(), data));
      }
    }
  }
}

void KernelRun::low_rank(Json& out) const {
  if (ranks_.empty()) {
    return;
  }
  const auto found = low_rank_kernels(point(at_start() ? start_ : stage().theta), examples_, ranks_,
                                      Random(pipeline_.seed()).stream("low rank"), 0.95, kernel_limits(), progress_);
  for (const auto& rank : found.ranks) {
    out["low-rank"].push_back({{"rank", rank.rank},
                               {"mean", number(rank.mean)},
                               {"worst", number(rank.worst)},
                               {"epsilon", number(rank.epsilon)}});
  }
}

Json KernelRun::judge(const KernelMatrices& made) {
  const auto& asked = has_queries() ? *queries_ : examples_;
  const auto& data = stage().objective.data();
  const auto outputs = linearise(stage().objective.with_batch_size(jobs_.front().plan.pass), start_, stage().theta,
                                 stage().parent, asked, progress_);
  const double linear_share = share_of_move(outputs.start, outputs.linearised, outputs.end);
  Json out{{"verdict", ""},
           {"level", ""},
           {"tests", Json::object()},
           {"stage", stage().name},
           {"kernel", record_.json()["options"]["kernel"]},
           {"at", line_.text("at")},
           {"filter", line_.text("filter")},
           {"parameters", names_},
           {"solver", record_.json()["options"]["solver"]},
           {"from-start", line_.flag("from-start")},
           {"outputs", jobs_.front().plan.outputs},
           {"classes", data.target_kind() == TargetKind::kClasses || kind() == TargetKind::kProbabilities},
           {"of-examples", data.size()},
           {"asked", asked.size()},
           {"held-out", has_queries()},
           {"skill",
            {{"before", number(skill(outputs.start, asked, kind()))},
             {"after", number(skill(outputs.end, asked, kind()))},
             {"linearised", number(skill(outputs.linearised, asked, kind()))},
             {"kernel", nullptr},
             {"kernel-otherwise", nullptr},
             {"leave-one-out", nullptr}}},
           {"share-of-move", {{"linearised", number(linear_share)}}},
           {"feature-change", nullptr},
           {"solver-notes", Json::array()},
           {"low-rank", Json::array()}};
  regress(made, out);
  low_rank(out);
  give_back_freed_memory();
  const auto& looked_at = jobs_.back().rows;  // a kernel at the other end, at least
  const auto features = [&](bool at_start_of_stage) {
    if (!kernel_->plain() || at_start() != at_start_of_stage) {
      return made.at(at_start_of_stage ? "features-start" : "features-end");
    }
    const auto some = at::isin(examples_.ids(), looked_at.ids()).nonzero().squeeze(1);
    return made.at("train").index_select(0, some).index_select(2, some);
  };
  const auto change = feature_change(features(true), features(false));
  out["feature-change"] = {{"examples", looked_at.size()},
                           {"relative", number(change.relative)},
                           {"mean", number(change.mean)},
                           {"median", number(change.median)},
                           {"frobenius", number(change.frobenius)}};
  const auto value = [&](const char* key) {
    return out["skill"][key].is_null() ? RegimeEvidence::kUnknown : out["skill"][key].get<double>();
  };
  const auto spec = out["kernel"].get<std::string>();
  const RegimeEvidence evidence{.before = value("before"),
                                .after = value("after"),
                                .linearised = value("linearised"),
                                .linear_share = linear_share,
                                .kernel = at_start() ? value("kernel") : RegimeEvidence::kUnknown,
                                .asked = asked.size(),
                                .held_out = has_queries(),
                                .feature_change = change.relative,
                                .classes = out["classes"].get<bool>(),
                                .kernel_name = spec.substr(0, spec.find(':')),
                                .examples = examples_.size(),
                                .of_examples = data.size()};
  const auto verdict = judge_regime(evidence);
  using Regime = RegimeVerdict::Level;
  const auto flag = pipeline_.stages().size() > 1 ? " --stage " + shell_word(stage().name) : "";
  out["verdict"] = verdict.text + advice(verdict.level, line_.text("PIPELINE"), flag,
                                         kernel_->plain() ? "kernel" : "kernel:kernel=" + evidence.kernel_name);
  out["level"] = verdict.level == Regime::kIn       ? "in"
                 : verdict.level == Regime::kPartly ? "partly"
                 : verdict.level == Regime::kOut    ? "out"
                                                    : "too few";
  const double improved = evidence.after - evidence.before;
  out["tests"] = {{"solves", test(verdict.solves, evidence.kernel / evidence.after, kKernelSolves)},
                  {"linear", test(verdict.linear, (evidence.linearised - evidence.before) / improved, kLinearRecovers)},
                  {"fixed", test(verdict.fixed, evidence.feature_change, kFixedFeatures)}};
  const auto ids = [](const Dataset& of) {
    const auto held = of.ids().contiguous();
    return std::vector<std::int64_t>(held.const_data_ptr<std::int64_t>(),
                                     held.const_data_ptr<std::int64_t>() + held.numel());
  };
  out["examples"] = ids(examples_);
  out["queries"] = has_queries() ? Json(ids(*queries_)) : Json(nullptr);
  const auto x = (outputs.linearised - outputs.start).flatten(), y = (outputs.end - outputs.start).flatten();
  const auto step = std::max<std::int64_t>(1, x.numel() / static_cast<std::int64_t>(kMostMoves));
  out["moves"] = Json::array();
  for (std::int64_t i = 0; i < x.numel(); i += step) {
    out["moves"].push_back({x[i].item<double>(), y[i].item<double>()});
  }
  return out;
}

}  // namespace whence::cli
