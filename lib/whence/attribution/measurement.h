#pragma once
#include <string>
#include <string_view>
#include <vector>

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

/// f for each example of a batch: [B]. Throws InvalidArgument where the measurement needs classes and the batch has
/// values.
at::Tensor measure(Measurement measurement, const Loss& loss, const at::Tensor& output, const Batch& batch);

/// f for every query, in double: [Q] float64 on the CPU, at any parameters of the stage.
at::Tensor measure_all(Measurement measurement, const Stage& last, const Dataset& queries);

/// The gradients of f in the last stage's merged parameters, one row a query: [end - begin, entries]. Cost: one
/// gradient a query.
at::Tensor measurement_gradients(Measurement measurement, const Stage& last, const Dataset& queries, std::int64_t begin,
                                 std::int64_t end);

}  // namespace whence
