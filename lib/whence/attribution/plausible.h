#pragma once
#include "whence/attribution/measurement.h"

namespace whence {

/// How far the measurement of each query can move when one example is left out: [Q, 2] float64, down and up, both > 0.
/// A loss cannot fall below 0 nor a log-probability rise above it; to the other side, and for logits and margins to
/// both, one example of many moves no query farther than the queries lie apart, or than from certainty to no idea.
/// Of values, the training data's targets count too: from one to their mean. `measured` is measure_all()'s. A
/// prediction beyond this says that a curvature's small eigenvalues were divided by.
at::Tensor room_to_move(Measurement measurement, const Dataset& queries, const at::Tensor& measured,
                        const Dataset& training);

}  // namespace whence
