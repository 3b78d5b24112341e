#pragma once
#include "whence/attribution/attributor.h"

namespace whence::detail {

/// How the covariance of features is made invertible.
struct CovarianceDamping {
  double damping = 0;
  double relative_damping = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field, std::string_view relative_help) {
    field("damping", self.damping, kAtLeastZero, "added to the covariance's eigenvalues");
    field("relative-damping", self.relative_damping, kAtLeastZero, relative_help);
  }
};

/// The inverse of a damped covariance, block by block along the diagonal.
class InverseCovariance {
 public:
  /// Blocks of the given widths, in order.
  explicit InverseCovariance(std::vector<std::int64_t> widths);
  /// Adds features [B, sum of the widths].
  void add(const at::Tensor& features);
  /// Inverts the mean of what was added. Throws NumericalError, beginning with `what`, where it is singular.
  void finish(const CovarianceDamping& damping, const std::string& what);
  /// Rows times the inverse: [B, D] to [B, D], in the dtype of the features.
  at::Tensor apply(const at::Tensor& features) const;
  std::int64_t width() const;

 private:
  std::vector<std::int64_t> widths_;
  TensorList blocks_;  // float64
  std::int64_t count_ = 0;
};

/// The methods that stand for a gradient by a few numbers, its features: score = -<C^-1 features(f), features(loss of
/// z)>, with C the mean of the features' outer products over the stage's examples, damped. That is the influence with C
/// in the curvature's place, as far as the features see.
class FeatureSource : public ScoreSource {
 public:
  explicit FeatureSource(const Chain& chain) : chain_(chain), inverses_(chain.size()) {}

  void check(const std::vector<std::size_t>& stages, Measurement measurement,
             Normalization normalization) const override;
  std::vector<QueryDirections> directions(const QueryBlock& queries, const std::vector<std::size_t>& stages,
                                          const Progress& progress) override;
  std::unique_ptr<Scorer> scorer(std::size_t stage, const QueryDirections& directions,
                                 const Progress& progress) override;
  at::Tensor example_norms(std::size_t stage, const Batch& batch, Normalization normalization) override;

 protected:
  virtual std::string_view name() const = 0;
  /// Makes what does not depend on the queries, by passes over the stage's data; the covariance last.
  virtual InverseCovariance fit(std::size_t stage, const Progress& progress) = 0;
  /// Of the measurement's gradients at the last stage: [K, D].
  virtual at::Tensor query_features(std::size_t stage, const QueryBlock& queries) = 0;
  /// Of the gradients of the stage's loss: [B, D].
  virtual at::Tensor example_features(std::size_t stage, const Batch& batch) = 0;

  /// for_each_batch with progress.
  void pass(std::size_t stage, std::string_view what, const Progress& progress,
            const std::function<void(const Batch&)>& body) const;

  const Chain& chain_;

 private:
  friend class FeatureScorer;
  const InverseCovariance& inverse(std::size_t stage, const Progress& progress);

  std::vector<std::optional<InverseCovariance>> inverses_;
};

}  // namespace whence::detail
