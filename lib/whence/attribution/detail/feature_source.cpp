#include "whence/attribution/detail/feature_source.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <numeric>

#include "whence/attribution/detail/gradient_source.h"

namespace whence::detail {

InverseCovariance::InverseCovariance(std::vector<std::int64_t> widths) : widths_(std::move(widths)) {}

std::int64_t InverseCovariance::width() const {
  return std::accumulate(widths_.begin(), widths_.end(), std::int64_t{0});
}

void InverseCovariance::add(const at::Tensor& features) {
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < widths_.size(); ++i) {
    const auto part = features.narrow(1, offset, widths_[i]).to(at::kDouble);
    offset += widths_[i];
    if (blocks_.size() == i) {
      blocks_.push_back(at::zeros({widths_[i], widths_[i]}, part.options()));
    }
    blocks_[i].addmm_(part.t(), part);
  }
  count_ += features.size(0);
}

void InverseCovariance::finish(const CovarianceDamping& damping, const std::string& what) {
  for (auto& block : blocks_) {
    block.div_(static_cast<double>(count_));
    const double mean_eigenvalue = block.diagonal().mean().item<double>();
    block.diagonal().add_(damping.damping + damping.relative_damping * mean_eigenvalue);
    const auto [factor, info] = at::linalg_cholesky_ex(block);
    const auto pivots = factor.diagonal().square();
    const double rounding = 2.2e-16 * static_cast<double>(block.size(0)) * pivots.max().item<double>();
    if (info.item<int>() != 0 || !(pivots.min().item<double>() > rounding)) {
      throw NumericalError(
          fmt::format("{}: the covariance of {} features over {} examples, mean eigenvalue {:.3g}, is singular: raise "
                      "relative-damping = {}, or take fewer features",
                      what, block.size(0), count_, mean_eigenvalue, damping.relative_damping));
    }
    block = at::cholesky_inverse(factor);
  }
}

at::Tensor InverseCovariance::apply(const at::Tensor& features) const {
  TensorList columns;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < widths_.size(); ++i) {
    columns.push_back(features.narrow(1, offset, widths_[i]).to(at::kDouble).mm(blocks_[i]));
    offset += widths_[i];
  }
  return at::cat(columns, 1).to(features.scalar_type());
}

class FeatureScorer : public Scorer {
 public:
  FeatureScorer(FeatureSource& source, std::size_t stage, at::Tensor vectors)
      : source_(source), stage_(stage), vectors_(std::move(vectors)) {}

  at::Tensor scores(const Batch& batch) const override {
    const auto features = source_.example_features(stage_, batch);
    return vectors_.to(features.options()).mm(features.t()).neg_();
  }

 private:
  FeatureSource& source_;
  std::size_t stage_;
  at::Tensor vectors_;
};

void FeatureSource::check(const std::vector<std::size_t>& stages, Measurement, Normalization) const {
  for (const auto k : stages) {
    if (chain_[k].objective.inner() != nullptr) {
      throw InvalidArgument(fmt::format(
          "stage {}: {} compares gradients of examples' losses, and examples of a primed stage have none apart: use "
          "--method influence or grad-dot",
          chain_[k].name, name()));
    }
    check_shared(chain_, k, name());
    if (parameters(k).empty()) {
      throw InvalidArgument(
          fmt::format("stage {}: {} compares gradients in the parameters that a stage and the measurement share, and "
                      "this stage trains none of them",
                      chain_[k].name, name()));
    }
  }
}

const InverseCovariance& FeatureSource::inverse(std::size_t stage, const Progress& progress) {
  if (!inverses_[stage]) {
    inverses_[stage] = fit(stage, progress);
  }
  return *inverses_[stage];
}

std::vector<QueryDirections> FeatureSource::directions(const QueryBlock& queries,
                                                       const std::vector<std::size_t>& stages,
                                                       const Progress& progress) {
  std::vector<QueryDirections> out(chain_.size());
  for (const auto k : stages) {
    const auto& inverse_of_stage = inverse(k, progress);
    out[k].points = {Directions{{"features", inverse_of_stage.apply(query_features(k, queries))}}};
  }
  return out;
}

std::unique_ptr<Scorer> FeatureSource::scorer(std::size_t stage, const QueryDirections& directions,
                                              const Progress& progress) {
  inverse(stage, progress);
  return std::make_unique<FeatureScorer>(*this, stage, directions.points.front().values().front());
}

at::Tensor FeatureSource::example_norms(std::size_t stage, const Batch& batch, Normalization normalization) {
  const auto features = example_features(stage, batch).to(at::kDouble);
  if (normalization == Normalization::kRelatif) {
    return (features * inverse(stage, {}).apply(features)).sum(1).clamp_min_(0).sqrt_();
  }
  return at::linalg_vector_norm(features, 2, {1});
}

void FeatureSource::pass(std::size_t stage, std::string_view what, const Progress& progress,
                         const std::function<void(const Batch&)>& body) const {
  const auto& objective = chain_[stage].objective;
  std::int64_t done = 0;
  objective.for_each_batch([&](const Batch& batch) {
    body(batch);
    done += batch.size();
    report(progress, {fmt::format("{} {}", what, chain_[stage].name), done, objective.data().size(), ""});
  });
}

}  // namespace whence::detail
