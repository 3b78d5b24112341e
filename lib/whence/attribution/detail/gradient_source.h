#pragma once
#include "whence/attribution/attributor.h"

namespace whence::detail {

/// The parameters of a stage that it trains and a query can feel: a head belongs to its own stage alone.
std::vector<std::string> shared_parameters(const Chain& chain, std::size_t stage);
/// Throws InvalidArgument where a stage trains anything but its head that no gradient of the queries is in: what makes
/// the model's parameters, or is folded away before the queries.
void check_shared(const Chain& chain, std::size_t stage, std::string_view method);

/// The methods whose scores are -sum_p scale_p <V_p, grad loss(z) at theta_p>, in the model's parameters, V_p being the
/// directions at point p. Most have one point, the stage's own.
class GradientSource : public ScoreSource {
 public:
  explicit GradientSource(const Chain& chain) : chain_(chain) {}

  /// Lengths of gradients there must be, where scores are to be divided by them.
  void check(const std::vector<std::size_t>& stages, Measurement, Normalization normalization) const override;
  std::unique_ptr<Scorer> scorer(std::size_t stage, const QueryDirections& directions, const Progress&) override;
  /// The length of the example's gradients, all points together; relatif is the same, the curvature being the identity.
  at::Tensor example_norms(std::size_t stage, const Batch& batch, Normalization normalization) override;
  /// -sum_p scale_p^2 |grad loss(z) at theta_p|^2.
  std::function<at::Tensor(const Batch&)> self_scorer() override;
  std::vector<std::string> parameters(std::size_t stage) const override;
  MethodCost cost(std::size_t stage, std::int64_t query_block) const override;

 protected:
  struct Point {
    ParameterSet model;  ///< The merged parameters.
    double scale = 1;
  };
  virtual std::vector<Point> points(std::size_t stage) const;

  /// Throws InvalidArgument where the stage's examples have no lengths.
  void check_lengths(std::size_t stage) const;

  /// `count` gradients of measurements as directions of what a stage trains: 0 in what a query cannot feel.
  Directions felt(const Directions& gradients, std::size_t stage, std::int64_t count) const;

  const Chain chain_;
};

}  // namespace whence::detail
