#pragma once
#include <string>

#include "whence/data/dataset.h"

namespace whence {

/// SHA-256 of all that batches are made of, as they are given out in the dataset's type: inputs, targets, ids, tokens,
/// names of classes. The one name of what a model sees of its data, for every file that rests on it. The same whatever
/// the device, the packing and the files that the examples came from. A second a GB, or two where batches are
/// converted on the way, once for a dataset and its copies.
std::string dataset_digest(const Dataset& data);

}  // namespace whence
