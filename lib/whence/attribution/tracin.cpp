// Products of gradients along training's way. G. Pruthi et al., "Estimating Training Data Influence by Tracing Gradient
// Descent", NeurIPS 2020, TracInCP: what a step on the example's loss does to the measurement, summed over snapshots,
// each for the time until which the one before stood.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "whence/attribution/detail/gradient_source.h"

namespace whence {
namespace {

/// score = -sum_k time_k <grad f at snapshot k, grad loss(z) at snapshot k>. The root of the time goes to either side,
/// so that the vectors' lengths are those of the inner product which is summed.
class TracInSource : public detail::GradientSource {
 public:
  using GradientSource::GradientSource;

  void check(const std::vector<std::size_t>& stages, Measurement measurement,
             Normalization normalization) const override {
    for (const auto k : stages) {
      detail::check_shared(chain_, k, "tracin");
      if (chain_[k].trajectory.empty()) {
        throw InvalidArgument(fmt::format(
            "stage {}: tracin follows training, and no snapshots of it were kept: say snapshots = 10 in the "
            "stage, with optimizer sgd or adam, and train it again",
            chain_[k].name));
      }
    }
    GradientSource::check(stages, measurement, normalization);
  }

  std::vector<QueryDirections> directions(const QueryBlock& queries, const std::vector<std::size_t>& stages,
                                          const Progress& progress) override {
    std::vector<QueryDirections> out(chain_.size());
    for (const auto k : stages) {
      const auto& stage = chain_[k];
      const bool last = k + 1 == chain_.size();
      Directions gradients;
      for (std::size_t i = 0; i < stage.trajectory.size(); ++i) {
        if (last || gradients.empty()) {  // the head that measures is there from the last stage on: at its end
          auto at = chain_.back();
          at.theta = last ? stage.trajectory[i].theta : at.theta;
          gradients = felt(
              measurement_gradients(queries.measurement, at, queries.data, queries.begin, queries.end, parameters(k)),
              k, queries.size());
        }
        const double root = std::sqrt(stage.trajectory[i].time);
        out[k].points.push_back(gradients.each([&](const at::Tensor& gradient) { return gradient * root; }));
        report(progress, {"trace " + stage.name, static_cast<std::int64_t>(i) + 1,
                          static_cast<std::int64_t>(stage.trajectory.size()), ""});
      }
    }
    return out;
  }

 protected:
  std::vector<Point> points(std::size_t stage) const override {
    std::vector<Point> out;
    const auto& at = chain_[stage];
    for (const auto& snapshot : at.trajectory) {
      out.push_back({at.objective.merge(snapshot.theta, at.parent), std::sqrt(snapshot.time)});
    }
    return out;
  }
};

class TracIn : public Attributor {
 public:
  explicit TracIn(NoOptions) {}
  bool uses_curvature() const override { return false; }
  Claim claim() const override { return Claim::kRemoval; }
  std::unique_ptr<ScoreSource> prepare(const Chain& chain, const InverseProblem&) const override {
    return std::make_unique<TracInSource>(chain);
  }
};

}  // namespace

WHENCE_METHOD(Attributor, tracin, TracIn, NoOptions)

}  // namespace whence
