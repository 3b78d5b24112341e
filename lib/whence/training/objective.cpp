#include "whence/training/objective.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/core/random.h"
#include "whence/core/rounding.h"
#include "whence/models/addition.h"
#include "whence/models/ops.h"
#include "whence/models/per_sample.h"
#include "whence/training/priming.h"

namespace whence {

namespace {

/// Numbers in the inputs of all examples.
double input_entries(const Dataset& data) {
  auto out = static_cast<double>(data.size());
  for (const auto side : data.input_shape()) {
    out *= static_cast<double>(side);
  }
  return out;
}

}  // namespace

Objective::Objective(std::shared_ptr<const Model> model, std::shared_ptr<const Loss> loss,
                     std::shared_ptr<const Tuning> tuning, Dataset data, double weight_decay, ParameterSet trained,
                     ParameterSet parent, std::int64_t batch_size)
    : model_(std::move(model)),
      loss_(std::move(loss)),
      tuning_(std::move(tuning)),
      data_(data.as_sampled()),
      weight_decay_(weight_decay),
      trained_(std::move(trained)),
      parent_(std::move(parent)),
      batch_size_(batch_size) {
  if (batch_size_ < 1) {
    throw InvalidArgument(fmt::format("batch size = {}, expected >= 1", batch_size_));
  }
}

Objective Objective::with_inner(std::shared_ptr<const InnerStage> inner) const {
  Objective out = *this;
  out.inner_ = std::move(inner);
  return out;
}

std::int64_t Objective::terms() const {
  return inner_ ? static_cast<std::int64_t>(inner_->tasks().size()) : data_.size();
}

Batch Objective::terms_batch(const at::Tensor& which) const {
  return data_.batch(inner_ ? inner_->rows(which) : which);
}

at::Tensor Objective::terms_in(const Batch& batch) const {
  const auto rows = batch.rows.cpu();
  return inner_ ? inner_->tasks_of(rows) : rows;
}

double Objective::passes_a_term() const {
  constexpr double kPassesAStep = 3;  // a gradient
  return inner_ ? 1 + kPassesAStep * static_cast<double>(inner_->priming().inner_steps()) : 1;
}

Objective Objective::with_weights(at::Tensor weights) const {
  if (weights.defined() && (weights.dim() != 1 || weights.size(0) != data_.size())) {
    throw InvalidArgument(fmt::format("{} example weights for {} examples", weights.numel(), data_.size()));
  }
  Objective out = *this;
  out.weights_ = std::move(weights);
  return out;
}

Objective Objective::with_batch_size(std::int64_t batch_size) const {
  Objective out = *this;
  out.batch_size_ = batch_size;
  return out;
}

Objective Objective::with_compute_type(at::ScalarType dtype) const {
  Objective out = *this;
  out.compute_type_ = dtype;
  return out;
}

Objective Objective::at(const TensorList& theta, const TensorList& parent) const {
  Objective out = *this;
  out.trained_ = trained_.with(theta);
  out.parent_ = parent_.with(parent);
  return out;
}

Objective Objective::to(at::ScalarType dtype) const {
  Objective out = *this;
  const auto device = trained_.values().front().device();
  out.data_ = data_.to(dtype, device);
  out.trained_ = trained_.to(dtype, device);
  out.parent_ = parent_.to(dtype, device);
  return out;
}

double Objective::affordable_passes(const TensorList& theta, const TensorList& parent) const {
  constexpr double kMultiplications = 6e10, kInputs = 1 << 25;
  if (!theta.front().is_cpu() || (!data_.is_text() && input_entries(data_) > kInputs)) {
    return 0;
  }
  Tape tape;
  output(detach(theta), detach(parent), data_.batch(0, 1), &tape);
  const auto merged = merge(detach(theta), detach(parent));
  double one = 0;
  for (const auto& entry : tape.entries) {
    if (entry.multiplies()) {
      const auto& weight = merged.at(entry.weight);
      const auto outputs = entry.outputs(weight) * entry.groups;
      one += static_cast<double>(weight.numel()) * static_cast<double>(entry.output.numel() / outputs);
    }
  }
  const auto texts = data_.is_text() ? static_cast<double>(data_.texts().lengths[0].item<std::int64_t>()) : 1;
  const double all = one / std::max(1.0, texts) * static_cast<double>(data_.is_text() ? data_.tokens() : data_.size());
  return kMultiplications / std::max(1.0, all * passes_a_term());
}

Objective Objective::over(const at::Tensor& which) const {
  Objective out = *this;
  if (inner_) {
    out.inner_ = std::make_shared<const InnerStage>(inner_->over(which));
    return out;
  }
  out.data_ = data_.take(which);
  if (weights_.defined()) {
    out.weights_ = weights_.index_select(0, which);
  }
  return out;
}

ParameterSet Objective::merge(const TensorList& theta, const TensorList& parent) const {
  if (inner_) {
    return inner_->tuning().merge(hand_on(theta, parent), inner_->start_like(theta.front()));
  }
  return tuning_->merge(parent_.with(parent), trained_.with(theta));
}

ParameterSet Objective::hand_on(const TensorList& theta, const TensorList& parent) const {
  return tuning_->hand_on(model_->head(), parent_.with(parent), trained_.with(theta));
}

at::Tensor Objective::output(const TensorList& theta, const TensorList& parent, const Batch& batch, Tape* tape) const {
  return model_output(merge(theta, parent), batch, tape);
}

at::Tensor Objective::model_output(const ParameterSet& model, const Batch& batch, Tape* tape) const {
  if (!compute_type_) {
    return model_->output(model, batch, tape);
  }
  auto values = model.values();
  const auto own = values.front().scalar_type();
  for (auto& value : values) {
    value = value.to(*compute_type_);
  }
  return model_->output(model.with(std::move(values)), batch, tape).to(own);
}

at::Tensor Objective::example_losses(const TensorList& theta, const TensorList& parent, const Batch& batch) const {
  if (inner_) {
    throw InvalidArgument("an objective of tasks has one loss a task: its examples have none apart");
  }
  return loss_->per_example(output(theta, parent, batch), batch);
}

at::Tensor Objective::term_losses(const TensorList& theta, const TensorList& parent, const Batch& batch) const {
  if (!inner_) {
    return example_losses(theta, parent, batch);
  }
  const auto which = terms_in(batch);
  TensorList losses;
  for (std::int64_t i = 0; i < which.size(0); ++i) {
    losses.push_back(
        task_loss(theta, parent, inner_->tasks()[static_cast<std::size_t>(which[i].item<std::int64_t>())]));
  }
  return at::stack(losses);
}

at::Tensor Objective::penalty(const TensorList& theta, const TensorList& parent) const {
  const auto quadratic = quadratic_penalty(theta, parent), more = coupling(theta);
  return more.defined() ? quadratic + more : quadratic;
}

at::Tensor Objective::quadratic_penalty(const TensorList& theta, const TensorList& parent) const {
  return tuning_->penalty(parent_.with(parent), trained_.with(theta), weight_decay_);
}

at::Tensor Objective::coupling(const TensorList& theta) const { return tuning_->coupling(trained_.with(theta)); }

at::Tensor Objective::batch_weights(const Batch& batch) const {
  const auto options = algebra_options(trained_.values().front().options());
  const double share = 1.0 / static_cast<double>(data_.size());
  if (!weights_.defined()) {
    return at::full({batch.size()}, share, options);
  }
  return weights_.index_select(0, batch.rows.cpu()).to(options) * share;
}

at::Tensor Objective::batch_loss(const TensorList& theta, const TensorList& parent, const Batch& batch) const {
  return weighted_sum(term_losses(theta, parent, batch), batch);
}

at::Tensor Objective::weighted_sum(const at::Tensor& losses, const Batch& batch) const {
  return inner_ ? losses.sum() / static_cast<double>(terms()) : (losses * batch_weights(batch)).sum();
}

void Objective::for_each_batch(const std::function<void(const Batch&)>& body) const {
  std::int64_t done = 0;
  pass([&](const Batch& batch) {
    check_interruption(done, data_.size());
    body(batch);
    done += batch.size();
  });
}

void Objective::pass(const std::function<void(const Batch&)>& body) const {
  const auto step = terms_at_once();
  for (std::int64_t begin = 0; begin < terms(); begin += step) {
    const auto end = std::min(terms(), begin + step);
    body(inner_ ? terms_batch(at::arange(begin, end)) : data_.batch(begin, end));
  }
}

double Objective::value(const TensorList& theta, const TensorList& parent, TensorList* gradient_out,
                        at::Tensor* losses_out) const {
  const DerivativeOrder first(1);
  const auto point = gradient_out != nullptr ? leaves(theta) : detach(theta);
  const auto fixed = detach(parent);
  double total = 0;
  TensorList sum;
  const auto add = [&](const at::Tensor& part) {
    total += part.item<double>();
    if (gradient_out == nullptr) {
      return;
    }
    const auto g = widened(gradient(part, point));
    if (sum.empty()) {
      sum = clone(g);  // autograd may return expanded tensors, which cannot be added to
    } else {
      axpy(1, g, sum);
    }
  };
  TensorList losses;
  pass([&](const Batch& batch) {  // training saves itself between iterations
    const auto each = term_losses(point, fixed, batch);
    add(weighted_sum(each, batch));
    if (losses_out != nullptr) {
      losses.push_back(each.detach().to(at::kCPU, at::kDouble));
    }
  });
  add(penalty(point, fixed));
  if (!std::isfinite(total)) {
    throw NumericalError(fmt::format("the objective is {} over {} examples", total, data_.size()));
  }
  if (gradient_out != nullptr) {
    *gradient_out = std::move(sum);
  }
  if (losses_out != nullptr) {
    *losses_out = at::cat(losses);
  }
  return total;
}

namespace {

/// Whether lengths of terms' gradients follow from what layers saw and their signals (models/per_sample.h): all that is
/// trained is a layer's, as it is.
bool has_lengths(const Objective& objective, const TensorList& theta, const ParameterSet& merged) {
  if (objective.inner() != nullptr || !objective.model().records_layers()) {
    return false;
  }
  Tape tape;
  {
    const at::NoGradGuard no_gradient;
    objective.model().output(merged, objective.data().batch(0, 1), &tape);
  }
  std::set<std::string> owned, sources;
  for (const auto& entry : tape.entries) {
    owned.insert(entry.bias);
    for (const auto& name : weight_sources(entry)) {
      (entry.made_by ? sources : owned).insert(name);
    }
  }
  const auto& names = objective.trained().names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (owned.contains(names[i]) == sources.contains(names[i]) || !merged.contains(names[i]) ||
        merged.at(names[i]).data_ptr() != theta[i].data_ptr()) {
      return false;
    }
  }
  return true;
}

}  // namespace

Stationarity stationarity(const Objective& objective, const TensorList& theta, const TensorList& parent) {
  constexpr std::int64_t kLargest = 128, kDrawn = 128;
  constexpr int kProbes = 4;
  const auto n = objective.terms();
  const auto among = std::min(n, kLargest + kDrawn);
  // in forward passes over all terms, a backward one being two
  const double passes = 3 + (1 + 2 * kProbes) * static_cast<double>(among) / static_cast<double>(n);
  const bool is_double = theta.front().scalar_type() == at::kDouble;
  const bool affordable = is_double || objective.affordable_passes(theta, parent) >= passes;
  if (affordable && !is_double) {
    TensorList wide, from;
    for (const auto& value : theta) {
      wide.push_back(value.detach().to(at::kDouble));
    }
    for (const auto& value : parent) {
      from.push_back(value.detach().to(at::kDouble));
    }
    return stationarity(objective.to(at::kDouble), wide, from);
  }
  const DerivativeOrder first(1);
  Stationarity out;
  TensorList g;
  at::Tensor losses;
  out.objective = objective.value(theta, parent, &g, &losses);
  out.gradient_norm = std::sqrt(exact_dot(g, g));
  auto random = Random(0).stream("stationarity");
  auto signs = random.uniform({kProbes, among}, -1, 1).sign();
  auto sample = objective;
  if (among < n) {  // where a model is sure of nearly all, the few largest losses have nearly all of the square
    const auto by_loss = losses.argsort(/*dim=*/0, /*descending=*/true);
    const auto others =
        std::get<0>(by_loss.narrow(0, kLargest, n - kLargest).sort());  // whatever rounding made of ties
    const auto drawn = others.index_select(0, random.permutation(n - kLargest).narrow(0, 0, kDrawn));
    sample = objective.over(at::cat({by_loss.narrow(0, 0, kLargest), drawn}));
    signs.narrow(1, kLargest, kDrawn).mul_(std::sqrt(static_cast<double>(n - kLargest) / kDrawn));
  }
  const auto point = leaves(theta);
  const auto fixed = detach(parent);
  double square = 0;
  const auto relate = [&] {
    out.data_gradient_norm = std::sqrt(square / static_cast<double>(n));
    out.relative_gradient_norm = out.data_gradient_norm > 0 ? out.gradient_norm / out.data_gradient_norm : 0;
    return out;
  };
  const auto merged = objective.merge(detach(theta), fixed);
  if (!affordable && has_lengths(objective, theta, merged)) {  // one backward pass in place of one a probe
    sample.for_each_batch([&](const Batch& batch) {
      const auto squares =
          per_sample_squared_norms(objective.model(), objective.loss(), merged, batch, objective.trained().names())
              .to(at::kCPU);
      const auto shares = signs[0].index_select(0, sample.terms_in(batch)).square().to(at::kDouble);
      square += (squares * shares).sum().item<double>();
    });
    return relate();
  }
  // With independent signs s_i the mean of |sum s_i grad loss_i|^2 is sum |grad loss_i|^2, whatever the tuning
  // (Hutchinson 1990).
  std::vector<TensorList> sums;
  sample.for_each_batch([&](const Batch& batch) {
    const auto each = sample.term_losses(point, fixed, batch);
    const auto terms = sample.terms_in(batch);
    for (int probe = 0; probe < kProbes; ++probe) {
      const auto weights = signs[probe].index_select(0, terms).to(each.options());
      const auto part = widened(gradient({each}, point, {weights}, false, probe + 1 < kProbes));
      if (sums.size() < kProbes) {
        sums.push_back(clone(part));
      } else {
        axpy(1, part, sums[static_cast<std::size_t>(probe)]);
      }
    }
  });
  for (const auto& sum : sums) {
    square += exact_dot(sum, sum) / kProbes;
  }
  return relate();
}

}  // namespace whence
