#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "whence/attribution/attributor.h"

namespace whence {

/// Where a stage's training began, of which a chain tells nothing.
struct StageStart {
  TensorList theta = {};     ///< Empty: not known.
  std::string unknown = {};  ///< Why, then.
};

/// A method that looks at where training began. As it is made it knows of no start.
class StartedAttributor : public Attributor {
 public:
  /// The same method with the starts of stages, by name.
  virtual std::shared_ptr<const Attributor> with_starts(std::map<std::string, StageStart> starts) const = 0;
};

/// Scores whose assumptions the method tests itself, once it has made what it scores with.
class TestedSource : public ScoreSource {
 public:
  /// What speaks against the scores of these stages, a line each.
  virtual std::vector<std::string> warnings(const std::vector<std::size_t>& stages) = 0;
  /// What was taken for granted, a line each.
  virtual std::vector<std::string> notes(const std::vector<std::size_t>& stages) = 0;
};

}  // namespace whence
