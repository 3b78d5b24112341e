#pragma once
#include <string>
#include <vector>

namespace whence {

/// What a model says of itself besides computing, where it is no more than this: linear layers, first to last, with one
/// entrywise activation after each but the last. Second derivatives of such a model need no autograd.
class DenseLayers {
 public:
  virtual ~DenseLayers() = default;
  virtual std::vector<std::string> layers() const = 0;
  /// A word of kActivations; empty where there is but one layer.
  virtual std::string activation_name() const = 0;
};

}  // namespace whence
