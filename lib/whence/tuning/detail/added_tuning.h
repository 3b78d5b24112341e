#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "whence/core/described.h"
#include "whence/core/error.h"
#include "whence/models/addition.h"
#include "whence/tuning/tuning.h"

namespace whence::detail {

/// A layer that something is to be added at.
struct Target {
  std::string module;  ///< Its weight's name without ".weight".
  TapeEntry site;      ///< Without input and output.
  at::Tensor weight;   ///< Of the parent; what addition() is given has its shape alone.

  std::int64_t outputs() const { return weight.size(site.transposed ? 1 : 0); }
  std::int64_t inputs() const { return weight.numel() / outputs(); }
  bool is_embedding() const { return site.kind == TapeEntry::Kind::kEmbedding; }
  bool is_convolution() const { return site.kind == TapeEntry::Kind::kConvolution; }
  /// A weight of the layer as a matrix [outputs, inputs], and such a matrix as a weight.
  at::Tensor matrix(const at::Tensor& of) const { return site.transposed ? of.t() : of.flatten(1); }
  at::Tensor as_weight(const at::Tensor& of) const { return site.transposed ? of.t() : of.reshape(weight.sizes()); }
  /// The name of a parameter that is added at it.
  std::string qualified(std::string_view part) const { return added_name(module, part); }
};

/// The flat directions of B A, B [out, r] and A [r, in], in general position: the numbers in both beyond those of a
/// matrix of its rank k, the least of r, out and in. With decay the two are balanced, A A' = B' B of rank k, and what
/// is left are the rotations between them, but for those of the r - k dimensions where both are 0.
std::int64_t flat_in_product(std::int64_t rank, std::int64_t outputs, std::int64_t inputs, bool decayed);
/// Throws InvalidArgument where the rank at a layer is above its longer side (or 64, where that is shorter), beyond
/// which two factors hold more than twice what a weight in their place would, or where all together are more than fit
/// in memory.
void check_ranks(std::string_view tuning, const std::vector<Target>& chosen,
                 const std::function<std::int64_t(const Target&)>& rank);
/// Throws InvalidArgument where the numbers that an option of this value asks for, about in proportion to it, are more
/// than fit in memory, before any is made.
void check_size(std::string_view tuning, std::string_view option, std::int64_t value, double numbers);

/// Which layers: "all", or names of modules, each whole or its last parts, joined by "+".
inline constexpr std::string_view kAllTargets = "all";
/// Whether one of `names`, a+b, means a module: it is it, or ends in it.
bool is_among(std::string_view module, std::string_view names);
/// Those that `names`, a+b, means, in the order of the names. Throws InvalidArgument for a name that means none, with
/// those that there are.
std::vector<Target> named_layers(std::string_view tuning, std::string_view option, std::string_view names,
                                 const std::vector<Target>& layers);

/// The numbers that an option gives layers, "a:4+b:2", in its order. Throws InvalidArgument for one that is not > 0.
std::vector<std::pair<std::string, double>> numbers_of_layers(std::string_view tuning, std::string_view option,
                                                              std::string_view list);

/// A tuning that trains some of the parent's parameters in their place, and others beside them.
class InPlaceTuning : public Tuning {
 public:
  ParameterSet merge(const ParameterSet& parent, const ParameterSet& tuned) const final;
  /// weight-decay / 2 of the sum of squared_distance() over what is trained.
  at::Tensor penalty(const ParameterSet& parent, const ParameterSet& tuned, double weight_decay) const final;
  bool merge_uses_parent() const final { return true; }
  bool remembers_parent() const final { return true; }

 protected:
  /// |trained - parent's|^2 of the parameter `name` of `tuned`; where the parent has none, |trained|^2.
  virtual at::Tensor squared_distance(const ParameterSet& parent, const ParameterSet& tuned,
                                      const std::string& name) const;
};

/// A tuning that leaves the parent's parameters as they are, trains a new head, and adds a few numbers at layers: what
/// is trained is `head.*` and `tuning.MODULE.PART`, and parameters of the body in place of the parent's where `also`
/// names them. A concrete one says what it adds at a layer, and where that changes nothing, which is where training
/// starts and what the regulariser pulls to.
class AddedTuning : public InPlaceTuning, public Described {
 public:
  ParameterSet trainable(const TuningStart& start, const Random& random) const final;
  ParameterSet hand_on(const Head& head, const ParameterSet& parent, const ParameterSet& tuned) const final;

 protected:
  /// The method's name, for messages, and its option `targets`.
  virtual std::string_view name() const = 0;
  virtual std::string_view targets() const { return kAllTargets; }
  /// Parameters of the body that are trained whole, a+b, by name or its end. Those of the head are anyway.
  virtual std::string_view also() const { return {}; }
  /// What it can be added at, in words and as a test.
  virtual std::string_view fitting() const { return "linear layer or convolution"; }
  virtual bool fits(const TapeEntry& site) const { return site.takes_additions(); }
  /// Which of the layers that fit "all" means.
  virtual std::vector<Target> all(std::vector<Target> fitting) const { return fitting; }
  /// Throws InvalidArgument where other options do not go with the layers chosen.
  virtual void check(const std::vector<Target>& /*chosen*/) const {}
  /// The parameters that it adds at the layer, float64 on the CPU, with where training starts.
  virtual ParameterSet start(const Target& target, const Random& random) const = 0;
  virtual std::shared_ptr<const Addition> addition(const Target& target) const = 0;
  /// The value of a parameter's entries that changes nothing, by the end of its name.
  virtual double neutral(std::string_view) const { return 0; }
  /// Of one that it adds, |trained - neutral|^2.
  at::Tensor squared_distance(const ParameterSet& parent, const ParameterSet& tuned,
                              const std::string& name) const override;
};

}  // namespace whence::detail
