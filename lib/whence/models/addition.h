#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/models/tape.h"

namespace whence {

/// What a tuning does at one layer of a model: the operations of ops.h ask for it by the layer's module. Its numbers
/// are parameters called `tuning.MODULE.…` in the theta that every function is given, and all it does with them goes
/// through operations again, so that the tape records them like any layer's. `site` is the layer as the tape will
/// record it, without input and output.
class Addition {
 public:
  virtual ~Addition() = default;

  /// What the layer sees in place of x.
  virtual at::Tensor before(const ParameterSet& theta, const TapeEntry& site, const at::Tensor& x, Tape* tape) const;
  /// What comes out in place of the layer's own output, of the shape of it.
  virtual at::Tensor after(const ParameterSet& theta, const TapeEntry& site, const at::Tensor& x,
                           const at::Tensor& output, Tape* tape) const;

  /// The parameters that weight() is a function of, the layer's own weight among them; empty: the layer multiplies with
  /// its own.
  virtual std::vector<std::string> weight_sources() const { return {}; }
  /// What the layer multiplies with in place of its weight, of the same shape; differentiable in all its sources.
  virtual at::Tensor weight(const ParameterSet& theta, const TapeEntry& site) const;

  struct Folded {
    at::Tensor weight, bias;  ///< An undefined bias is the layer's own.
  };
  /// Whether the layer does the same with other weights and nothing added. Those that do come before those that do not.
  virtual bool folds() const = 0;
  /// These weights, differentiable; only where it folds.
  virtual Folded folded(const ParameterSet& theta) const;
};

/// The parameters that the weight of a recorded layer is made of: itself alone, or the sources of a tuning's.
std::vector<std::string> weight_sources(const TapeEntry& entry);

/// The derivative of a weight that a tuning makes: `directions` [K, ...shape] of some of its sources to those of the
/// weight, [K, ...shape]. Where the weight is its own source, the directions themselves. Cost: K derivatives of
/// Addition::weight(), no pass.
at::Tensor push_to_weight(const ParameterSet& theta, const TapeEntry& entry, const Directions& directions);
/// Transposed: [K, ...shape] of the weight to directions of `sources`, which are some of its own.
Directions pull_from_weight(const ParameterSet& theta, const TapeEntry& entry, const at::Tensor& block,
                            const std::vector<std::string>& sources);

}  // namespace whence
