#include "whence/attribution/detail/gradient_source.h"

#include <ATen/ATen.h>

#include "whence/core/rounding.h"
#include "whence/core/tensors.h"
#include "whence/models/per_sample.h"

namespace whence::detail {
namespace {

/// Directions of one point: [K, ...shape] a parameter, without those that are zero and not trained.
std::map<std::string, at::Tensor> pieces_of(const at::Tensor& vectors, const ParameterSet& model,
                                            const ParameterSet& trained) {
  std::map<std::string, at::Tensor> out;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < model.size(); ++i) {
    const auto& value = model.values()[i];
    auto shape = value.sizes().vec();
    shape.insert(shape.begin(), vectors.size(0));
    const auto piece = vectors.narrow(1, offset, value.numel());
    offset += value.numel();
    if (trained.contains(model.names()[i]) || piece.abs().max().item<double>() > 0) {
      out[model.names()[i]] = piece.reshape(shape);
    }
  }
  return out;
}

struct Term {
  ParameterSet model;
  std::map<std::string, at::Tensor> pieces;
  double scale;
};

class ProductScorer : public Scorer {
 public:
  ProductScorer(const Objective& objective, std::vector<Term> terms)
      : objective_(objective), terms_(std::move(terms)) {}

  at::Tensor scores(const Batch& batch) const override {
    at::Tensor out;
    for (const auto& term : terms_) {
      const auto part =
          per_sample_products(objective_.model(), objective_.loss(), term.model, batch, term.pieces).mul_(-term.scale);
      out = out.defined() ? out.add_(part) : part;
    }
    return out;
  }

  at::Tensor token_scores(const Batch& batch, std::int64_t query) const override {
    auto out = at::zeros({batch.inputs.numel()}, algebra_options(terms_.front().model.values().front().options()));
    for (const auto& term : terms_) {
      std::map<std::string, at::Tensor> direction;
      for (const auto& [name, piece] : term.pieces) {
        direction[name] = piece.narrow(0, query, 1);
      }
      out.sub_(per_token_products(objective_.model(), objective_.loss(), term.model, batch, direction), term.scale);
    }
    return out;
  }

 private:
  const Objective& objective_;
  std::vector<Term> terms_;
};

}  // namespace

std::vector<std::string> shared_parameters(const Chain& chain, std::size_t stage) {
  std::vector<std::string> out;
  const auto& at = chain[stage];
  const auto merged = at.objective.merge(at.theta, at.parent);
  const auto head = at.objective.model().head();
  for (const auto& parameter : merged.names()) {
    if (at.objective.trained().contains(parameter) && (stage + 1 == chain.size() || !head.holds(parameter))) {
      out.push_back(parameter);
    }
  }
  return out;
}

std::vector<GradientSource::Point> GradientSource::points(std::size_t stage) const {
  const auto& at = chain_[stage];
  return {{at.objective.merge(at.theta, at.parent)}};
}

std::unique_ptr<Scorer> GradientSource::scorer(std::size_t stage, const Directions& directions, const Progress&) {
  const auto& objective = chain_[stage].objective;
  std::vector<Term> terms;
  std::int64_t offset = 0;
  for (const auto& [model, scale] : points(stage)) {
    const auto vectors =
        directions.vectors.narrow(1, offset, model.entries()).to(algebra_options(model.values().front().options()));
    offset += model.entries();
    terms.push_back({model, pieces_of(vectors, model, objective.trained()), scale});
  }
  return std::make_unique<ProductScorer>(objective, std::move(terms));
}

at::Tensor GradientSource::example_norms(std::size_t stage, const Batch& batch, Normalization) {
  const auto& objective = chain_[stage].objective;
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
  const double bytes = static_cast<double>(model.entries()) *
                       std::max(4.0, static_cast<double>(model.values()[0].element_size()));  // as they are solved for
  // a product with each of the block's vectors takes as many multiplications as a forward pass, a third of a gradient
  return {0, count * (1 + block / 3), count, 2 * count * block * bytes, count * bytes};
}

at::Tensor GradientSource::shared_columns(const at::Tensor& gradients, std::size_t stage) const {
  const auto& last = chain_.back();
  const auto measured = last.objective.merge(last.theta, last.parent);
  std::map<std::string, at::Tensor> found;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < measured.size(); ++i) {
    found[measured.names()[i]] = gradients.narrow(1, offset, measured.values()[i].numel());
    offset += measured.values()[i].numel();
  }
  const auto shared = shared_parameters(chain_, stage);
  const auto merged = chain_[stage].objective.merge(chain_[stage].theta, chain_[stage].parent);
  TensorList columns;
  for (std::size_t i = 0; i < merged.size(); ++i) {
    const bool wanted = std::find(shared.begin(), shared.end(), merged.names()[i]) != shared.end();
    columns.push_back(wanted ? found.at(merged.names()[i])
                             : at::zeros({gradients.size(0), merged.values()[i].numel()}, gradients.options()));
  }
  return at::cat(columns, 1);
}

}  // namespace whence::detail
