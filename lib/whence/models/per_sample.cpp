#include "whence/models/per_sample.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <tuple>

#include "whence/core/chunks.h"
#include "whence/core/rounding.h"
#include "whence/core/tensors.h"
#include "whence/models/addition.h"
#include "whence/models/exported/exported_model.h"
#include "whence/models/ops.h"

namespace whence {
namespace {

constexpr const char* kWhat = "per-sample gradients";

bool several_rows(const TapeEntry& entry) { return entry.rows.places.defined(); }

/// The gradient in a matrix is the sum of an example's rows left' right. What an embedding saw is int64 numbers,
/// standing for their one-hot rows.
struct Factors {
  at::Tensor left, right;
};
Factors factors(const LayerUse& use) {
  const auto& [entry, signal] = use;
  const bool by_output = entry.kind == TapeEntry::Kind::kEmbedding ? entry.transposed : !entry.transposed;
  return by_output ? Factors{signal, entry.input} : Factors{entry.input, signal};
}

/// An embedding's gradients from ids [B, L] and signals [B, L, width]: [B, count width].
at::Tensor embedding_gradients(const at::Tensor& ids, const at::Tensor& signals, std::int64_t count) {
  const auto examples = signals.size(0), width = signals.size(2);
  const auto firsts = at::arange(examples, ids.options()).unsqueeze(1) * count;
  return at::zeros({examples * count, width}, signals.options())
      .index_add_(0, (firsts + ids).flatten(), signals.reshape({-1, width}))
      .view({examples, -1});
}

/// V with the part of the gradient in the weight that arises at each row: [rows, K]. One product of matrices with the
/// right factors and one with the left, which never forms a gradient. For layers of rows, not convolutions.
at::Tensor row_products(const LayerUse& use, const at::Tensor& directions) {
  if (use.entry.kind == TapeEntry::Kind::kScale) {
    return at::mm(use.signal * use.entry.input, rows_of(directions).t());
  }
  if (use.entry.kind == TapeEntry::Kind::kEmbedding) {
    TensorList columns;
    for (const auto& direction : directions.unbind(0)) {
      columns.push_back((direction.index_select(0, use.entry.input) * use.signal).sum(1));
    }
    return at::stack(columns, 1);
  }
  const auto [left, right] = factors(use);
  if (directions.size(0) == 1) {
    return (at::mm(right, directions[0].t()) * left).sum(1, /*keepdim=*/true);
  }
  auto out = at::empty({left.size(0), directions.size(0)}, left.options());
  in_chunks(directions.size(0), left.numel() * left.element_size(), [&](std::int64_t begin, std::int64_t length) {
    const auto rows = directions.narrow(0, begin, length).flatten(0, 1);                  // [k height, width]
    const auto seen_through = at::mm(right, rows.t()).view({right.size(0), length, -1});  // [rows, k, height]
    out.narrow(1, begin, length).copy_(at::bmm(seen_through, left.unsqueeze(2)).squeeze(2));
  });
  return out;
}

/// The same through gradients, formed for some examples at a time.
void add_formed_products(const LayerUse& use, const at::Tensor& directions, at::Tensor& scores) {
  const auto rows = rows_of(directions);  // [K, entries]
  const auto add = [&](std::int64_t begin, const at::Tensor& gradients) {
    scores.narrow(1, begin, gradients.size(0))
        .add_(rows.size(0) > gradients.size(0) ? at::mm(gradients, rows.t()).t() : at::mm(rows, gradients.t()));
  };
  const auto entry_bytes = rows.size(1) * rows.element_size();
  if (use.entry.kind == TapeEntry::Kind::kConvolution) {
    const auto pixels = use.signal.size(2) * use.signal.size(3);
    const auto patch = use.entry.input.size(1) * use.entry.kernel[0] * use.entry.kernel[1];
    in_chunks(use.signal.size(0), entry_bytes + patch * pixels * rows.element_size(),
              [&](std::int64_t begin, std::int64_t length) {
                LayerUse part = use;
                part.entry.input = use.entry.input.narrow(0, begin, length);
                part.signal = use.signal.narrow(0, begin, length);
                add(begin, filter_gradients(part.entry, part.signal));
              });
    return;
  }
  const bool picks = use.entry.kind == TapeEntry::Kind::kEmbedding;
  const auto [left, right] = picks ? Factors{use.entry.input, use.signal} : factors(use);
  const auto lefts = by_example(use.entry, left), rights = by_example(use.entry, right);
  in_chunks(lefts.size(0), entry_bytes, [&](std::int64_t begin, std::int64_t length) {
    const auto some_lefts = lefts.narrow(0, begin, length), some_rights = rights.narrow(0, begin, length);
    add(begin, picks ? embedding_gradients(some_lefts, some_rights, directions.size(1))
                     : at::bmm(some_lefts.transpose(1, 2), some_rights).flatten(1));
  });
}

/// Which way to the products in a weight is cheaper.
bool better_formed(const TapeEntry& entry, std::int64_t directions, std::int64_t height) {
  const auto positions = several_rows(entry) ? entry.rows.places.size(1) : 1;
  switch (entry.kind) {
    case TapeEntry::Kind::kConvolution:
      return true;
    case TapeEntry::Kind::kScale:
      return false;
    case TapeEntry::Kind::kEmbedding:  // measured on 512 x 128 entries: the rows of each direction are copied,
                                       // multiplied, summed
      return height <= directions * positions;
    case TapeEntry::Kind::kLinear:  // of an example with many rows, the gradient is fewer numbers than the rows with
                                    // each direction
      return several_rows(entry) ? directions > 1 : directions > entry.input.size(1);
  }
  return false;
}

/// scores [K, B] += V the gradients in the weight.
void add_weight_products(const LayerUse& use, const at::Tensor& directions, at::Tensor& scores) {
  if (better_formed(use.entry, directions.size(0), directions.size(1))) {
    add_formed_products(use, directions, scores);
  } else if (use.entry.kind == TapeEntry::Kind::kScale) {
    scores.add_(at::mm(rows_of(directions), by_owner(use.entry, use.signal * use.entry.input).t()));
  } else {
    scores.add_(by_owner(use.entry, row_products(use, directions)).t());
  }
}

/// The directions in the algebra type of theta's dtype, checked against its shapes.
Directions checked(const Directions& directions, const ParameterSet& theta) {
  if (directions.empty()) {
    throw InvalidArgument("per-sample products: no directions");
  }
  const auto count = directions.values().front().size(0);
  TensorList out;
  for (std::size_t i = 0; i < directions.size(); ++i) {
    const auto& [name, direction] = std::tie(directions.names()[i], directions.values()[i]);
    const auto& value = theta.at(name);
    const auto expected = direction_shape(count, value);
    if (direction.sizes() != at::IntArrayRef(expected)) {
      throw InvalidArgument(fmt::format("per-sample products: directions for {} have shape [{}], expected [{}]", name,
                                        fmt::join(direction.sizes(), ", "), fmt::join(expected, ", ")));
    }
    out.push_back(direction.detach().to(algebra_options(value.options())));
  }
  return directions.with(std::move(out));
}

/// The directions of what a layer multiplies with, [K, ...shape], of a transposed table as one of rows, [K, count,
/// width]; undefined where none is given for what it is made of.
at::Tensor of_weight(const ParameterSet& theta, const TapeEntry& entry, const Directions& directions) {
  const auto sources = weight_sources(entry);
  const bool any =
      std::any_of(sources.begin(), sources.end(), [&](const std::string& name) { return directions.contains(name); });
  if (!any) {
    return {};
  }
  const auto out = push_to_weight(theta, entry, directions);
  return entry.kind == TapeEntry::Kind::kEmbedding && entry.transposed ? out.transpose(1, 2) : out;
}

at::Tensor squared_row_norms(const at::Tensor& x) {
  return at::linalg_vector_norm(x, 2, {1}, /*keepdim=*/false, at::kDouble).square();
}

/// One use's per-example gradients in its filters or its scales: [B, entries].
at::Tensor formed_gradients(const LayerUse& use) {
  return use.entry.kind == TapeEntry::Kind::kConvolution ? filter_gradients(use.entry, use.signal)
                                                         : by_owner(use.entry, use.signal * use.entry.input);
}

/// And in its bias: [B, out].
at::Tensor bias_gradients(const TapeEntry& entry, const at::Tensor& signal) {
  return entry.kind == TapeEntry::Kind::kConvolution ? signal.sum({2, 3}) : by_owner(entry, signal);
}

/// The products a_s . b_t of one side's rows of two uses of a matrix: [B, L, L'].
at::Tensor side_products(const at::Tensor& a, const at::Tensor& b) {
  const bool picks_a = !a.is_floating_point(), picks_b = !b.is_floating_point();
  if (picks_a && picks_b) {
    return a.unsqueeze(2).eq(b.unsqueeze(1));
  }
  if (picks_b) {
    return side_products(b, a).transpose(1, 2);
  }
  if (picks_a) {  // row a_s of b_t
    return b.transpose(1, 2).gather(1, a.unsqueeze(2).expand({-1, -1, b.size(1)}));
  }
  return at::bmm(a, b.transpose(1, 2));
}

/// |sum of the uses' weight gradients|^2 per example.
at::Tensor squared_weight_norms(const std::vector<const LayerUse*>& uses) {
  const auto& first = *uses.front();
  const auto kind = first.entry.kind;
  const bool matrix = kind == TapeEntry::Kind::kLinear || kind == TapeEntry::Kind::kEmbedding;
  if (!matrix) {
    at::Tensor sum;
    for (const auto* use : uses) {
      const auto gradients = formed_gradients(*use);
      sum = sum.defined() ? sum + gradients : gradients;
    }
    return squared_row_norms(sum);
  }
  if (uses.size() == 1 && kind == TapeEntry::Kind::kLinear && !several_rows(first.entry)) {
    return squared_row_norms(first.entry.input) * squared_row_norms(first.signal);
  }
  std::vector<Factors> by_use;
  std::int64_t positions = 0;
  for (const auto* use : uses) {
    const auto [left, right] = factors(*use);
    by_use.push_back({by_example(use->entry, left), by_example(use->entry, right)});
    positions = std::max(positions, by_use.back().right.size(1));
  }
  const auto count = by_use.front().right.size(0);
  auto out = at::zeros({count}, first.signal.options().dtype(at::kDouble));
  in_chunks(count, 3 * positions * positions * first.signal.element_size(),
            [&](std::int64_t begin, std::int64_t length) {
              auto part = out.narrow(0, begin, length);
              for (const auto& a : by_use) {
                for (const auto& b : by_use) {
                  const auto lefts = side_products(a.left.narrow(0, begin, length), b.left.narrow(0, begin, length));
                  const auto rights = side_products(a.right.narrow(0, begin, length), b.right.narrow(0, begin, length));
                  part.add_((lefts * rights).sum(at::IntArrayRef{1, 2}, /*keepdim=*/false, at::kDouble));
                }
              }
            });
  return out.clamp_min_(0);
}

/// |the gradients in a parameter that the layers' weights are made of|^2 per example.
at::Tensor squared_source_norms(const std::vector<const LayerUse*>& uses, const std::string& name,
                                const ParameterSet& theta) {
  at::Tensor sum;
  for (const auto* use : uses) {
    const auto gradients = source_gradients(theta, use->entry, use->signal, name);
    sum = sum.defined() ? sum + gradients : gradients;
  }
  return squared_row_norms(sum);
}

at::Tensor squared_bias_norms(const std::vector<const LayerUse*>& uses) {
  at::Tensor sum;
  for (const auto* use : uses) {
    const auto gradients = bias_gradients(use->entry, use->signal);
    sum = sum.defined() ? sum + gradients : gradients;
  }
  return squared_row_norms(sum);
}

/// <V_k, grad value_b> of a model that records no layers: the derivative of <V_k, grad sum_b u_b value_b> in u. Cost: a
/// gradient, and one of it for each direction.
at::Tensor products_by_double_backward(const Model& model, const PerExample& values, const ParameterSet& theta,
                                       const Batch& batch, const Directions& directions) {
  const c10::AutoGradMode with_grad(true);
  const DerivativeOrder second(2);
  const auto free = theta.with(leaves(theta.values()));
  const auto of_examples = values(model.output(free, batch), batch);
  const auto u = at::ones_like(of_examples).requires_grad_(true);
  TensorList wanted;
  for (const auto& name : directions.names()) {
    wanted.push_back(free.at(name));
  }
  const auto gradients = gradient((u * of_examples).sum(), wanted, /*create_graph=*/true);
  TensorList rows;
  const auto count = directions.values().front().size(0);
  for (std::int64_t k = 0; k < count; ++k) {
    auto sum = at::zeros({}, of_examples.options());
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      sum = sum + (gradients[i] * directions.values()[i][k].to(gradients[i].scalar_type())).sum();
    }
    rows.push_back(gradient(sum, {u}, false, /*retain_graph=*/k + 1 < count).front());
  }
  return at::stack(rows).to(directions.values().front().scalar_type());
}

/// |grad value_b|^2 of such a model: a pass for each example.
at::Tensor squared_norms_one_by_one(const Model& model, const PerExample& values, const ParameterSet& theta,
                                    const Batch& batch, const std::vector<std::string>& names) {
  const c10::AutoGradMode with_grad(true);
  const auto free = theta.with(leaves(theta.values()));
  TensorList wanted;
  for (const auto& name : names) {
    wanted.push_back(free.at(name));
  }
  const auto of_examples = values(model.output(free, batch), batch);
  auto out = at::zeros({batch.size()}, theta.values().front().options().dtype(at::kDouble));
  for (std::int64_t b = 0; b < batch.size(); ++b) {
    for (const auto& part : gradient(of_examples[b], wanted, false, /*retain_graph=*/b + 1 < batch.size())) {
      out[b].add_(part.square().sum(at::kDouble));
    }
  }
  return out;
}

}  // namespace

at::Tensor per_sample_products(const Model& model, const PerExample& values, const ParameterSet& theta,
                               const Batch& batch, const Directions& directions) {
  const auto wanted = checked(directions, theta);
  if (!model.records_layers()) {
    return products_by_double_backward(model, values, theta, batch, wanted);
  }
  const auto layers = layer_uses(model, values, theta, batch, wanted.names(), kWhat);
  const c10::NoGradGuard no_grad;
  auto scores = at::zeros({wanted.values().front().size(0), batch.size()}, wanted.values().front().options());
  for (const auto& use : layers) {
    if (const auto weight = of_weight(theta, use.entry, wanted); weight.defined()) {
      add_weight_products(use, weight, scores);
    }
    if (wanted.contains(use.entry.bias)) {
      scores.add_(at::mm(rows_of(wanted.at(use.entry.bias)), bias_gradients(use.entry, use.signal).t()));
    }
  }
  return scores;
}

bool tells_tokens(const Model& model) { return dynamic_cast<const ExportedModel*>(&model) == nullptr; }

at::Tensor per_token_products(const Model& model, const PerExample& values, const ParameterSet& theta,
                              const Batch& batch, const Directions& directions) {
  if (!tells_tokens(model)) {
    throw InvalidArgument(
        "scores of tokens are for a model in Hugging Face layout: which rows of an exported one are tokens is not "
        "known");
  }
  const auto wanted = checked(directions, theta);
  const auto layers = layer_uses(model, values, theta, batch, wanted.names(), kWhat);
  const c10::NoGradGuard no_grad;
  auto out = at::zeros({batch.inputs.numel()}, wanted.values().front().options());
  for (const auto& use : layers) {
    const auto add = [&](const at::Tensor& rows) {
      const auto& origins = use.entry.rows.origins;
      if (origins.defined()) {
        out.index_add_(0, origins, rows);
      } else {
        out.add_(rows);
      }
    };
    if (const auto weight = of_weight(theta, use.entry, wanted); weight.defined()) {
      add(row_products(use, weight).squeeze(1));
    }
    if (wanted.contains(use.entry.bias)) {
      add(at::mv(use.signal, wanted.at(use.entry.bias)[0].flatten()));
    }
  }
  return out;
}

at::Tensor per_sample_squared_norms(const Model& model, const PerExample& values, const ParameterSet& theta,
                                    const Batch& batch, const std::vector<std::string>& names) {
  if (!model.records_layers()) {
    return squared_norms_one_by_one(model, values, theta, batch, names);
  }
  const auto layers = layer_uses(model, values, theta, batch, names, kWhat);
  const c10::NoGradGuard no_grad;
  auto total = at::zeros({batch.size()}, theta.values().front().options().dtype(at::kDouble));
  for (const auto& name : names) {
    std::vector<const LayerUse*> as_weight, as_bias, as_source;
    for (const auto& use : layers) {
      const auto sources = weight_sources(use.entry);
      if (use.entry.bias == name) {
        as_bias.push_back(&use);
      } else if (std::find(sources.begin(), sources.end(), name) != sources.end()) {
        (use.entry.made_by ? as_source : as_weight).push_back(&use);
      }
    }
    total.add_(!as_bias.empty()     ? squared_bias_norms(as_bias)
               : !as_source.empty() ? squared_source_norms(as_source, name, theta)
                                    : squared_weight_norms(as_weight));
  }
  return total;
}

}  // namespace whence
