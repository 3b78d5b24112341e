#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "whence/core/progress.h"
#include "whence/training/objective.h"

namespace whence {

/// Does a fine-tune behave like its kernel? The tests of S. Malladi et al., "A Kernel-Based View of Language Model
/// Fine-Tuning", ICML 2023, section 5 (formulas.md 4), and what they take for an answer: the paper's thresholds as they
/// are known at second hand, its own text was not at hand. docs/kernels.md says how far from them fine-tunes fell.
inline constexpr double kKernelSolves = 0.9;      ///< The kernel regression reaches so much of the fine-tune's skill.
inline constexpr double kLinearRecovers = 0.5;    ///< The linearisation recovers more of the fine-tune's improvement,
                                                  ///< and of the outputs' move (not in the paper: of few queries a
                                                  ///< skill alone is soon right by luck).
inline constexpr double kFixedFeatures = 2.0;     ///< The eNTK's elements change by less of their size, on average.
inline constexpr std::int64_t kFewestAsked = 16;  ///< Of fewer examples no skill is told apart from another.

/// A model's outputs for some examples, [N, C] float64 on the CPU each.
struct LinearisedOutputs {
  at::Tensor start;       ///< f(x; theta_0), where training began.
  at::Tensor linearised;  ///< f(x; theta_0) + <grad f(x; theta_0), theta - theta_0>.
  at::Tensor end;         ///< f(x; theta), where it ended.
};
/// Of every example of `data`, with theta_0 = `start`, theta = `end` and one `parent`. The product with the gradients
/// is exact, to rounding in the parameters' dtype. Throws InvalidArgument where outputs are not one row an example
/// (tokens are predicted), or the objective has an inner stage. Cost: two forward passes and two backward ones. Memory:
/// the graph of one batch.
LinearisedOutputs linearise(const Objective& objective, const TensorList& start, const TensorList& end,
                            const TensorList& parent, const Dataset& data, const Progress& progress = {});
/// How much the elements of a Gram matrix changed.
struct FeatureChange {
  double relative = 0;   ///< mean |end - start| / mean |start|: what the verdict looks at.
  double mean = 0;       ///< The mean of |end - start| / |start| over the elements that are not 0 in both, which is the
                         ///< paper's number for one output. Of several outputs many elements are near 0, and decide it.
  double median = 0;     ///< Of the same.
  double frobenius = 0;  ///< |end - start| / |start| of the matrices.
};
/// Two Gram matrices of one shape, float64. The mean is infinite where an element was 0 and is no more.
FeatureChange feature_change(const at::Tensor& start, const at::Tensor& end);

/// How well outputs [N, C] tell the targets of `data`, which are of `kind`: the share of classes that they put first,
/// of events (kProbabilities) the share on whose side of 1/2 they are, or of values 1 - squared error / variance, which
/// is 0 for the mean and negative for worse.
double skill(const at::Tensor& outputs, const Dataset& data, TargetKind kind);

/// What of the fine-tune's move in the outputs another model's outputs make up: 1 - |other - end|^2 / |start - end|^2;
/// 1 is all of it. NaN where the fine-tune moved nothing.
double share_of_move(const at::Tensor& start, const at::Tensor& other, const at::Tensor& end);

/// What is known of a fine-tune. Whatever was not measured is NaN.
struct RegimeEvidence {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  double before = kUnknown, after = kUnknown;  ///< The skill at the start and at the end of the fine-tune,
  double linearised = kUnknown;                ///< of its linearisation, ...
  double linear_share = kUnknown;              ///< ... whose share_of_move() is this,
  double kernel = kUnknown;                    ///< of regression with its kernel, fitted on the stage's examples,
  std::int64_t asked = 0;                      ///< on so many examples ...
  bool held_out = false;                       ///< ... that the stage did not train on.
  double feature_change = kUnknown;            ///< FeatureChange::relative.
  bool classes = true;                         ///< Whether skills are shares, of right classes or events.
  std::string kernel_name = "entk";
  std::int64_t examples = 0, of_examples = 0;  ///< How many of the stage's examples the kernel was made of.
};

/// The answer, in one line that begins with "in the kernel regime:", "partly in the kernel regime:", "not in the kernel
/// regime:" or "too few to say:".
struct RegimeVerdict {
  enum class Level { kIn, kPartly, kOut, kTooFew };
  Level level = Level::kTooFew;
  std::optional<bool> solves, linear, fixed;  ///< Each test; nothing where what it needs was not measured.
  std::string text;
};
/// In: every test that could be made holds, linearisation and features among them. Out: the linearisation fails, or all
/// but one. Too few: fewer than kFewestAsked examples. Of a fine-tune that improved no skill the outputs' move alone is
/// looked at; where that is not known either: too few.
RegimeVerdict judge_regime(const RegimeEvidence& evidence);

}  // namespace whence
