#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "whence/models/taped_pass.h"
#include "whence/stages/stage.h"

namespace whence {

/// What of a query is explained, as a function f of the last stage's output. Of a text whose tokens are predicted, the
/// sum over them.
enum class Measurement {
  kLoss,            ///< The stage's loss.
  kLogProbability,  ///< log p of the query's class.
  kLogit,           ///< The output of the query's class, or the only output.
  kMargin,          ///< log p - log(1 - p) of the query's class (Park et al., TRAK).
};
std::string_view to_string(Measurement measurement);
/// Throws InvalidArgument with the known words.
Measurement parse_measurement(std::string_view word);

/// +1 where a rise of the measurement makes the query's outcome likelier, -1 for the loss. With it a score tells sides:
/// outcome_sign * score > 0 is an example that speaks for the outcome, a proponent.
double outcome_sign(Measurement measurement);

/// What those who speak for the outcome and those against it are called: "helpful" and "harmful" of a loss or a
/// log-probability, which say how well a query is predicted, else "proponent" and "opponent".
std::pair<std::string_view, std::string_view> side_words(Measurement measurement);

/// f for each example of a batch: [B]. Of shares of the classes log-probability is its mean over them. Of events
/// (binary-cross-entropy) it is that of all as they are, and logit and margin are of a single one; of a class, its own
/// event's. Throws InvalidArgument where the measurement needs classes and the batch has values.
at::Tensor measure(Measurement measurement, const Loss& loss, const at::Tensor& output, const Batch& batch);
/// The same for a taped pass. `loss` must outlive it.
PerExample measured(Measurement measurement, const Loss& loss);

/// Throws InvalidArgument where the stage is primed: it hands on a body, and has no head of its own to ask.
void check_measurable(const Stage& last);

/// f for every query, in double: [Q] float64 on the CPU, at any parameters of the stage. Throws as check_measurable().
at::Tensor measure_all(Measurement measurement, const Stage& last, const Dataset& queries);

/// The gradients of f in those of the model's parameters at the last stage that are called `names`, one a query: end -
/// begin directions, in algebra_type(). Throws as check_measurable(). Cost: one gradient a query.
Directions measurement_gradients(Measurement measurement, const Stage& last, const Dataset& queries, std::int64_t begin,
                                 std::int64_t end, const std::vector<std::string>& names);

}  // namespace whence
