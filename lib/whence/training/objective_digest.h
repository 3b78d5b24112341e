#pragma once
#include <string>

#include "whence/training/objective.h"

namespace whence {

/// SHA-256 of all that makes an objective this function of theta and parent: model, loss, tuning, data, weights of the
/// examples and of the decay, names and types of the parameters, what this stage and those before add to layers. Not
/// the batch size, nor where theta and parent stand. Cost: dataset_digest().
std::string objective_digest(const Objective& objective);

}  // namespace whence
