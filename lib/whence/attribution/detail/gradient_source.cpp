#include "whence/attribution/detail/gradient_source.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <set>

#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/core/rounding.h"
#include "whence/core/tensors.h"
#include "whence/models/per_sample.h"

namespace whence::detail {
namespace {

struct Term {
  ParameterSet model;
  Directions directions;
  double scale;
};

class ProductScorer : public Scorer {
 public:
  ProductScorer(const Objective& objective, std::vector<Term> terms)
      : objective_(objective), terms_(std::move(terms)) {}

  at::Tensor scores(const Batch& batch) const override {
    at::Tensor out;
    for (const auto& term : terms_) {
      const auto part = per_sample_products(objective_.model(), objective_.loss(), term.model, batch, term.directions)
                            .mul_(-term.scale);
      out = out.defined() ? out.add_(part) : part;
    }
    return out;
  }

  at::Tensor token_scores(const Batch& batch, std::int64_t query) const override {
    if (!tells_tokens(objective_.model())) {
      return {};
    }
    auto out = at::zeros({batch.inputs.numel()}, algebra_options(terms_.front().model.values().front().options()));
    for (const auto& term : terms_) {
      const auto one = term.directions.each([&](const at::Tensor& of_all) { return of_all.narrow(0, query, 1); });
      out.sub_(per_token_products(objective_.model(), objective_.loss(), term.model, batch, one), term.scale);
    }
    return out;
  }

 private:
  const Objective& objective_;
  std::vector<Term> terms_;
};

/// Whether a stage trains the parameter and a query can feel it.
bool is_shared(const Chain& chain, std::size_t stage, const std::string& parameter) {
  const auto& objective = chain[stage].objective;
  return objective.trained().contains(parameter) &&
         (stage + 1 == chain.size() || (!objective.model().head().holds(parameter) &&
                                        chain[stage + 1].objective.parent_layout().contains(parameter)));
}

/// Of a primed stage, whose objective is no sum over examples: what an example's weight does to it is felt through the
/// losses of its task's query or through the inner steps. The scores are -N d/dw_i <V, grad Phi>, w_i at 1: formulas.md
/// 9.7, each inner loop a stage of so many steps. Cost: a task's gradient, differentiated once a vector; each task
/// once.
class WeightScorer : public Scorer {
 public:
  WeightScorer(const Stage& stage, std::vector<Term> terms)
      : objective_(stage.objective.with_weights({})),
        parent_(detach(stage.parent)),
        terms_(std::move(terms)),
        places_(at::full({objective_.data().size()}, -1, at::kLong)) {
    for (std::int64_t t = 0; t < objective_.terms(); ++t) {
      places_.index_fill_(0, objective_.terms_batch(at::tensor({t}, at::kLong)).rows.cpu(), t);
    }
    const auto count = terms_.front().directions.values().front().size(0);
    scores_ = at::zeros({count, places_.size(0)}, terms_.front().directions.values().front().options());
  }

  at::Tensor scores(const Batch& batch) const override {
    const auto rows = batch.rows.cpu();
    const auto wanted = std::get<0>(at::_unique(places_.index_select(0, rows)));
    for (std::int64_t i = 0; i < wanted.size(0); ++i) {
      const auto task = wanted[i].item<std::int64_t>();  // -1: of examples that no task holds
      if (task >= 0 && done_.insert(task).second) {
        check_interruption();
        score(task);
      }
    }
    return scores_.index_select(1, rows.to(scores_.device()));
  }

 private:
  void score(std::int64_t task) const {
    const c10::AutoGradMode with_grad(true);
    const auto n = objective_.data().size();
    auto weights = at::ones({n}, at::kDouble).requires_grad_(true);
    const auto weighted = objective_.with_weights(weights);
    const auto batch = weighted.terms_batch(at::tensor({task}, at::kLong));
    for (const auto& term : terms_) {
      TensorList theta, directions;
      for (const auto& name : weighted.trained().names()) {
        theta.push_back(term.model.at(name));
        directions.push_back(term.directions.at(name).to(theta.back().scalar_type()));
      }
      theta = leaves(theta);
      const auto in_theta = gradient(weighted.batch_loss(theta, parent_, batch), theta, true);
      for (std::int64_t k = 0; k < scores_.size(0); ++k) {
        TensorList one;
        for (const auto& of_all : directions) {
          one.push_back(of_all[k]);
        }
        const auto in_weights = gradient(in_theta, {weights}, one, false, true)[0];
        scores_[k].sub_(in_weights.to(scores_.options()), term.scale * static_cast<double>(n));
      }
    }
  }

  Objective objective_;
  TensorList parent_;
  std::vector<Term> terms_;
  at::Tensor places_;          // [N] int64: the task of each example
  mutable at::Tensor scores_;  // [K, N]
  mutable std::set<std::int64_t> done_;
};

}  // namespace

std::vector<std::string> shared_parameters(const Chain& chain, std::size_t stage) {
  auto out = chain[stage].objective.merge(chain[stage].theta, chain[stage].parent).names();
  std::erase_if(out, [&](const std::string& parameter) { return !is_shared(chain, stage, parameter); });
  return out;
}

void check_shared(const Chain& chain, std::size_t stage, std::string_view method) {
  const auto& objective = chain[stage].objective;
  const auto merged = objective.merge(chain[stage].theta, chain[stage].parent);
  for (const auto& name : objective.trained().names()) {
    const bool own_head = stage + 1 < chain.size() && objective.model().head().holds(name);
    if (!merged.contains(name) || (!own_head && !is_shared(chain, stage, name))) {
      throw InvalidArgument(
          fmt::format("stage {}: {} compares gradients in parameters that the stage's model and the queries' have in "
                      "common, and {} is none: use --method influence",
                      chain[stage].name, method, name));
    }
  }
}

std::vector<GradientSource::Point> GradientSource::points(std::size_t stage) const {
  const auto& at = chain_[stage];
  return {{at.objective.merge(at.theta, at.parent)}};
}

Directions GradientSource::felt(const Directions& gradients, std::size_t stage, std::int64_t count) const {
  const auto& at = chain_[stage];
  const auto merged = at.objective.merge(at.theta, at.parent);
  Directions out;
  for (const auto& name : moved_parameters(at)) {
    const auto& value = merged.at(name);
    out.add(name, is_shared(chain_, stage, name)
                      ? gradients.at(name)
                      : at::zeros(direction_shape(count, value), algebra_options(value.options())));
  }
  return out;
}

std::unique_ptr<Scorer> GradientSource::scorer(std::size_t stage, const QueryDirections& directions, const Progress&) {
  const auto& objective = chain_[stage].objective;
  std::vector<Term> terms;
  const auto all = points(stage);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto options = algebra_options(all[i].model.values().front().options());
    const auto moved = [&](const at::Tensor& value) { return value.to(options); };
    terms.push_back({all[i].model, directions.points.at(i).each(moved), all[i].scale});
  }
  if (objective.inner() == nullptr) {
    return std::make_unique<ProductScorer>(objective, std::move(terms));
  }
  if (!objective.inner()->priming().is_exact()) {
    throw InvalidArgument(
        fmt::format("stage {}: it was primed along gradients of the first order, which do not say what its support "
                    "examples did: train it with order=exact in its priming",
                    chain_[stage].name));
  }
  return std::make_unique<WeightScorer>(chain_[stage], std::move(terms));
}

void GradientSource::check(const std::vector<std::size_t>& stages, Measurement, Normalization normalization) const {
  if (normalization == Normalization::kNone && own_normalization() == Normalization::kNone) {
    return;
  }
  for (const auto k : stages) {
    check_lengths(k);
  }
}

void GradientSource::check_lengths(std::size_t stage) const {
  const auto& at = chain_[stage];
  if (at.objective.inner() != nullptr) {
    throw InvalidArgument(
        fmt::format("stage {}: it is primed, and its examples have no gradients apart whose lengths could be divided "
                    "by: use --method influence or grad-dot, with --normalize none",
                    at.name));
  }
  const auto merged = at.objective.merge(at.theta, at.parent);
  for (const auto& name : at.objective.trained().names()) {
    if (!merged.contains(name)) {
      throw InvalidArgument(
          fmt::format("stage {}: lengths are of gradients in what is trained, and of {}, which makes parameters of the "
                      "model, there are none: use --normalize none",
                      at.name, name));
    }
  }
}

at::Tensor GradientSource::example_norms(std::size_t stage, const Batch& batch, Normalization) {
  const auto& objective = chain_[stage].objective;
  check_lengths(stage);
  auto squares =
      at::zeros({batch.size()}, chain_[stage].theta.front().options().dtype(at::kDouble).requires_grad(false));
  for (const auto& [model, scale] : points(stage)) {
    squares.add_(
        per_sample_squared_norms(objective.model(), objective.loss(), model, batch, objective.trained().names()),
        scale * scale);
  }
  return squares.sqrt_();
}

std::function<at::Tensor(const Batch&)> GradientSource::self_scorer() {
  return [this](const Batch& batch) { return example_norms(0, batch, Normalization::kNone).square_().neg_(); };
}

std::vector<std::string> GradientSource::parameters(std::size_t stage) const {
  return shared_parameters(chain_, stage);
}

MethodCost GradientSource::cost(std::size_t stage, std::int64_t query_block) const {
  const auto all = points(stage);
  const auto count = static_cast<double>(all.size()), block = static_cast<double>(query_block);
  const auto& model = all.front().model;
  std::int64_t moved = 0;
  for (const auto& name : moved_parameters(chain_[stage])) {
    moved += model.at(name).numel();
  }
  const double bytes = static_cast<double>(moved) *
                       std::max(4.0, static_cast<double>(model.values()[0].element_size()));  // as they are solved for
  // a product with each of the block's vectors takes as many multiplications as a forward pass, a third of a gradient
  return {0, count * (1 + block / 3), count, 2 * count * block * bytes, count * bytes};
}

}  // namespace whence::detail
