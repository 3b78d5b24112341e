// S. M. Park et al., "TRAK: Attributing Model Behavior at Scale", ICML 2023, with one model (M = 1). With phi the
// random projection of the gradient of the margin log p - log(1 - p), the score is that of logistic regression on phi:
//
//   N tau(z, q) = phi_f(q)' (Phi' Phi / N)^-1 phi(z) (1 - p_z),
//
// phi_f being the measurement's own projected gradient, so that margins give the paper's tau. grad loss(z) = -(1 - p_z)
// grad margin(z): the score is minus a product of gradients, as every score here, and under the measurement loss an
// example scores itself below zero.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/attribution/detail/feature_source.h"
#include "whence/attribution/detail/gradient_source.h"
#include "whence/attribution/detail/projection.h"
#include "whence/core/rounding.h"
#include "whence/models/per_sample.h"

namespace whence {
namespace {

struct TrakOptions {
  std::int64_t dimension = 512;
  std::int64_t seed = 0;
  detail::CovarianceDamping damping{.relative_damping = 0.1};

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("dimension", self.dimension, kAtLeastOne, "features of a gradient, fewer than the examples");
    field("seed", self.seed, kAtLeastZero, "of the projection");
    detail::CovarianceDamping::fields(
        self.damping, field,
        "times their mean, added to them, as in logra; the paper's 0 needs far more examples than features");
  }
};

class TrakSource : public detail::FeatureSource {
 public:
  TrakSource(const Chain& chain, const TrakOptions& options)
      : FeatureSource(chain), options_(options), held_(chain.size()) {}

  void check(const std::vector<std::size_t>& stages, Measurement measurement,
             Normalization normalization) const override {
    for (const auto k : stages) {
      const auto& objective = chain_[k].objective;
      const bool classes = objective.data().target_kind() == TargetKind::kClasses;
      const bool events = objective.loss().wants() == TargetKind::kProbabilities;
      const bool one_event = events && !classes && objective.data().outputs() == 1;
      if (!one_event && (events || !classes)) {
        throw InvalidArgument(fmt::format(
            "stage {}: trak looks at the margin log p - log(1 - p) of each example's class, and the targets "
            "here are {}; use logra or grad-dot",
            chain_[k].name, events ? "several events" : "values"));
      }
    }
    FeatureSource::check(stages, measurement, normalization);
  }

  std::vector<std::string> parameters(std::size_t stage) const override {
    return detail::shared_parameters(chain_, stage);
  }

  MethodCost cost(std::size_t stage, std::int64_t query_block) const override {
    const auto rows = projection(stage);
    const auto dimension = static_cast<double>(rows.dimension()), at_once = static_cast<double>(rows.rows_at_once());
    const auto layout = shared(stage);
    const auto size = static_cast<double>(layout.values().front().element_size());
    const auto examples = static_cast<double>(chain_[stage].objective.data().size());
    // a product with a row takes as many multiplications as a forward pass, and per_sample_products its scratch
    constexpr double kScratchBytes = 268435456;
    const double formed =
        static_cast<double>(layout.entries()) * size * static_cast<double>(chain_[stage].objective.batch_size());
    MethodCost out;
    out.passes_once = std::ceil(dimension / at_once) + dimension / 3;
    out.gradients_a_query = 1;
    out.bytes = dimension * size * (examples + static_cast<double>(query_block)) + dimension * dimension * 16 +
                at_once * static_cast<double>(layout.entries()) * size + std::min(kScratchBytes, formed);
    out.bytes_a_query = dimension * size;
    return out;
  }

 protected:
  std::string_view name() const override { return "trak"; }

  detail::InverseCovariance fit(std::size_t stage, const Progress& progress) override {
    const auto& at = chain_[stage];
    const auto merged = at.objective.merge(at.theta, at.parent);
    const auto margin = measured(Measurement::kMargin, at.objective.loss());
    const auto rows = projection(stage);
    const auto options = algebra_options(merged.values().front().options());
    auto& held = held_[stage];
    held.features = at::empty({at.objective.data().size(), rows.dimension()}, options);
    held.slopes = at::empty({at.objective.data().size(), 1}, options);
    for (std::int64_t begin = 0; begin < rows.dimension(); begin += rows.rows_at_once()) {
      const auto count = std::min(rows.rows_at_once(), rows.dimension() - begin);
      const auto directions = rows.rows(begin, count);
      const auto what = fmt::format("features {}-{} of", begin, begin + count - 1);
      pass(stage, what, progress, [&](const Batch& batch) {
        const auto first = batch.rows[0].item<std::int64_t>();
        held.features.narrow(0, first, batch.size())
            .narrow(1, begin, count)
            .copy_(per_sample_products(at.objective.model(), margin, merged, batch, directions).t());
      });
    }
    const at::NoGradGuard no_gradient;
    detail::InverseCovariance covariance({rows.dimension()});
    pass(stage, "covariance of", progress, [&](const Batch& batch) {
      const auto first = batch.rows[0].item<std::int64_t>();
      covariance.add(held.features.narrow(0, first, batch.size()));
      const auto margins = margin(at.objective.model().output(merged, batch), batch);
      held.slopes.narrow(0, first, batch.size()).copy_(margins.neg().sigmoid().unsqueeze(1));
    });
    covariance.finish(options_.damping, fmt::format("stage {}: trak", at.name));
    return covariance;
  }

  at::Tensor query_features(std::size_t stage, const QueryBlock& queries) override {
    const auto& last = chain_.back();
    const auto merged = last.objective.merge(last.theta, last.parent);
    const auto values = measured(queries.measurement, last.objective.loss());
    const auto rows = projection(stage);
    auto& held = held_[stage];
    if (held.query_ids.is_same(queries.data.ids()) && held.measurement == queries.measurement) {
      return held.of_queries.narrow(0, queries.begin, queries.size());
    }
    held.query_ids = queries.data.ids();
    held.measurement = queries.measurement;
    // of all queries at once: drawing the projection takes longer than using it
    held.of_queries =
        at::empty({queries.data.size(), rows.dimension()}, algebra_options(merged.values().front().options()));
    for (std::int64_t begin = 0; begin < rows.dimension(); begin += rows.rows_at_once()) {
      const auto count = std::min(rows.rows_at_once(), rows.dimension() - begin);
      const auto directions = rows.rows(begin, count);
      const auto step = last.objective.batch_size();
      for (std::int64_t q = 0; q < queries.data.size(); q += step) {
        const auto batch = queries.data.batch(q, std::min(queries.data.size(), q + step));
        held.of_queries.narrow(0, q, batch.size())
            .narrow(1, begin, count)
            .copy_(per_sample_products(last.objective.model(), values, merged, batch, directions).t());
      }
    }
    return held.of_queries.narrow(0, queries.begin, queries.size());
  }

  at::Tensor example_features(std::size_t stage, const Batch& batch) override {
    const auto rows = batch.rows.to(held_[stage].features.device());
    return -held_[stage].features.index_select(0, rows) * held_[stage].slopes.index_select(0, rows);
  }

 private:
  struct Held {
    at::Tensor features;    ///< phi of every example: [N, dimension].
    at::Tensor slopes;      ///< 1 - p: [N, 1].
    at::Tensor of_queries;  ///< The measurement's features of every query: [Q, dimension].
    at::Tensor query_ids;   ///< Whose they are.
    Measurement measurement = Measurement::kLoss;
  };

  ParameterSet shared(std::size_t stage) const {
    const auto& at = chain_[stage];
    const auto merged = at.objective.merge(at.theta, at.parent);
    ParameterSet out;
    for (const auto& parameter : parameters(stage)) {
      out.add(parameter, merged.at(parameter));
    }
    return out;
  }

  detail::Projection projection(std::size_t stage) const {
    return {Random(static_cast<std::uint64_t>(options_.seed)).stream("trak"), options_.dimension, shared(stage)};
  }

  TrakOptions options_;
  std::vector<Held> held_;
};

class Trak : public Attributor {
 public:
  explicit Trak(TrakOptions options) : options_(options) {}
  bool uses_curvature() const override { return false; }
  Claim claim() const override { return Claim::kRemoval; }
  std::unique_ptr<ScoreSource> prepare(const Chain& chain, const InverseProblem&) const override {
    return std::make_unique<TrakSource>(chain, options_);
  }

 private:
  TrakOptions options_;
};

}  // namespace

WHENCE_METHOD(Attributor, trak, Trak, TrakOptions)

}  // namespace whence
