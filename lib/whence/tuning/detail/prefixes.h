#pragma once
// What the tunings share that put something before every text.
#include <string>
#include <string_view>
#include <vector>

#include "whence/core/described.h"
#include "whence/models/addition.h"
#include "whence/tuning/tuning.h"

namespace whence::detail {

/// tuning.MODULE.prefix_key.G and tuning.MODULE.prefix_value.G, [P, D] each: of a key head of an attention.
std::string prefix_key(std::string_view module, std::int64_t key_head);
std::string prefix_value(std::string_view module, std::int64_t key_head);

/// The prefix whose keys and values are parameters of these names.
class PlainPrefix : public Prefix {
 public:
  /// The attention is the `layer`-th that a pass meets.
  PlainPrefix(AttentionSite site, std::int64_t layer, std::int64_t length)
      : site_(std::move(site)), layer_(layer), length_(length) {}

  std::int64_t length() const override { return length_; }
  at::Tensor logits(const ParameterSet& theta, std::int64_t key_head, const at::Tensor& q, Tape* tape) const override;
  at::Tensor brought(const ParameterSet& theta, std::int64_t key_head, const at::Tensor& weights,
                     Tape* tape) const override;
  Whole whole(const ParameterSet& theta) const override;

  /// The names, keys and values of each key head.
  std::vector<std::string> parameters() const;
  const AttentionSite& site() const { return site_; }
  std::int64_t layer() const { return layer_; }

 private:
  AttentionSite site_;
  std::int64_t layer_, length_;
};

/// The prefixes that a tuning put at attentions, in the order of these, which is not that of the modules' names.
std::vector<const PlainPrefix*> prefixes_of(const ParameterSet& tuned);

/// A tuning that trains a new head and what stands before every text, at attentions or at the embedding, and leaves the
/// parent's body as it is. There is no prefix that changes nothing but that of length 0: training starts elsewhere. The
/// regulariser pulls to 0. Nothing of it can be folded: it is handed on beside the body.
class BeforeTexts : public Tuning, public Described {
 public:
  ParameterSet trainable(const TuningStart& start, const Random& random) const final;
  ParameterSet merge(const ParameterSet& parent, const ParameterSet& tuned) const override {
    return parent.join(tuned);
  }
  /// weight-decay / 2 |trained|^2
  at::Tensor penalty(const ParameterSet& parent, const ParameterSet& tuned, double weight_decay) const final;
  bool merge_uses_parent() const final { return true; }
  bool remembers_parent() const final { return true; }

 protected:
  virtual std::string_view name() const = 0;
  /// What is trained besides the new head, float64 on the CPU and with all additions. `pass` is one of the parent's
  /// body and the new head.
  virtual ParameterSet added(const TuningStart& start, const Tape& pass, const Random& random) const = 0;
};

/// The attentions of a pass. Throws InvalidArgument, beginning with the tuning's name, where there is none, where they
/// differ in their heads, or where the parent has a prefix already.
std::vector<AttentionSite> sites_for_prefix(std::string_view tuning, const ParameterSet& parent, const Tape& pass);
/// A plain prefix at each.
std::shared_ptr<const Additions> plain_prefixes(const std::vector<AttentionSite>& sites, std::int64_t length);

}  // namespace whence::detail
