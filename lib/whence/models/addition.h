#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/data/batch.h"
#include "whence/models/tape.h"

namespace whence {

/// What the names of all parameters begin with that a tuning adds: `tuning.MODULE.PART`.
inline constexpr std::string_view kAddedPrefix = "tuning.";
std::string added_name(std::string_view module, std::string_view part);
inline bool is_added(std::string_view parameter) { return parameter.starts_with(kAddedPrefix); }
/// A layer's module by its weight: the name without ".weight", where it ends so.
std::string_view layer_module(std::string_view weight);

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

  /// How many directions of its own parameters change nothing, in general position: neither what the layer gives nor,
  /// where the regulariser pulls at them (`decayed`), how far they are from where it pulls. Curvature is 0 there, and
  /// so is every gradient.
  virtual std::int64_t flat_directions(const ParameterSet& /*theta*/, bool /*decayed*/) const { return 0; }

  /// What it is for the examples of a batch, where it is not the same for all; null: it is.
  virtual std::shared_ptr<const Addition> in_batch(const Batch&) const { return nullptr; }
};

/// Keys and values that the tokens of every text see before the text's own, put at an attention (AttentionSite) by its
/// module. All its products are linear layers whose rows are tokens: the logits of a query head's q are a layer with
/// the keys for weights, what softmax brings of the values a layer with the values. X. Li and P. Liang,
/// "Prefix-Tuning", ACL 2021.
class Prefix : public Addition {
 public:
  bool folds() const override { return false; }
  /// P: keys and values of each key head.
  virtual std::int64_t length() const = 0;
  /// Of q [rows, D], scaled, of one query head that uses `key_head`'s keys: [rows, P].
  virtual at::Tensor logits(const ParameterSet& theta, std::int64_t key_head, const at::Tensor& q,
                            Tape* tape) const = 0;
  /// What softmax weights [rows, P] bring of the values: [rows, D].
  virtual at::Tensor brought(const ParameterSet& theta, std::int64_t key_head, const at::Tensor& weights,
                             Tape* tape) const = 0;
  struct Whole {
    at::Tensor keys, values;  ///< [key heads, P, D]
  };
  /// All keys and values, differentiable; undefined where texts differ in them.
  virtual Whole whole(const ParameterSet& theta) const = 0;
};

/// The prefix at an attention; null: none.
const Prefix* prefix_at(const ParameterSet& theta, std::string_view module);
/// P of the prefixes in theta, which is the same for all: the places that they take before each text's first token; 0
/// where there is none.
std::int64_t prefix_length(const ParameterSet& theta);
/// What a soft prompt is called, [P, width]: P vectors that stand before every text's embedded tokens. `module` is the
/// embedding's. B. Lester, R. Al-Rfou and N. Constant, "The Power of Scale for Parameter-Efficient Prompt Tuning",
/// EMNLP 2021.
std::string prompt_name(std::string_view module);

/// Theta with the additions as they are for the examples of a batch: what a model begins with whose additions may
/// differ from example to example.
ParameterSet in_batch(const ParameterSet& theta, const Batch& batch);

/// Of all that is added to a model.
std::int64_t flat_directions(const ParameterSet& theta, bool decayed);

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
