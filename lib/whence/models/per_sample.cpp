#include "whence/models/per_sample.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "whence/core/chunks.h"
#include "whence/core/rounding.h"
#include "whence/models/ops.h"

namespace whence {
namespace {

struct Seen {
  TapeEntry entry;
  at::Tensor signal;  // gradient of the summed losses at entry.output
};

/// What each output pixel of a convolution saw: [B, in * k * k, H' * W'].
at::Tensor patches(const TapeEntry& entry) {
  return at::im2col(entry.input, entry.kernel, /*dilation=*/{1, 1}, entry.padding, entry.stride);
}

/// A convolution's gradients, [B, entries].
at::Tensor filter_gradients(const Seen& seen) {
  return at::bmm(seen.signal.flatten(2), patches(seen.entry).transpose(1, 2)).flatten(1);
}

bool owns(const TapeEntry& entry, const std::string& name) { return entry.weight == name || entry.bias == name; }

/// One forward and one backward pass: the entries that own a wanted parameter, with their signals, in forward order.
std::vector<Seen> see(const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch,
                      const std::vector<std::string>& wanted) {
  const c10::AutoGradMode with_grad(true);
  const DerivativeOrder first(1);
  Tape tape;
  const auto output = model.output(theta.with(detach(theta.values())), batch, &tape);
  std::vector<std::string> owned;
  std::vector<Seen> out;
  TensorList outputs;
  for (const auto& entry : tape.entries) {
    owned.push_back(entry.weight);
    if (!entry.bias.empty()) {
      owned.push_back(entry.bias);
    }
    if (std::any_of(wanted.begin(), wanted.end(), [&](const auto& name) { return owns(entry, name); })) {
      out.push_back({entry, {}});
      outputs.push_back(entry.output);
    }
  }
  for (const auto& name : wanted) {
    if (std::find(owned.begin(), owned.end(), name) == owned.end()) {
      throw InvalidArgument("per-sample gradients: " + unknown_name("parameter of a recorded layer", name, owned));
    }
  }
  const auto signals = gradient(loss.per_example(output, batch).sum(), outputs);
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i].signal = widened(signals[i]);
    out[i].entry.input = widened(out[i].entry.input);
    out[i].entry.output = at::Tensor();  // lets the graph go
  }
  return out;
}

bool several_rows(const TapeEntry& entry) { return entry.rows.places.defined(); }

/// The gradient in a matrix is the sum of an example's rows left' right. `left` is int64 row numbers for an embedding,
/// standing for their one-hot rows.
struct Factors {
  at::Tensor left, right;
};
Factors factors(const Seen& seen) {
  const auto& [entry, signal] = seen;
  if (entry.kind == TapeEntry::Kind::kEmbedding || entry.transposed) {
    return {entry.input, signal};
  }
  return {signal, entry.input};
}

/// x [rows, ...] summed over each example's rows.
at::Tensor by_owner(const TapeEntry& entry, const at::Tensor& x) {
  return several_rows(entry) ? sum_rows(entry.rows, x) : x;
}
/// [B, L, ...]
at::Tensor by_example(const TapeEntry& entry, const at::Tensor& x) {
  return several_rows(entry) ? rows_by_example(entry.rows, x) : x.unsqueeze(1);
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
at::Tensor row_products(const Seen& seen, const at::Tensor& directions) {
  if (seen.entry.kind == TapeEntry::Kind::kScale) {
    return at::mm(seen.signal * seen.entry.input, directions.t());
  }
  const auto [left, right] = factors(seen);
  if (seen.entry.kind == TapeEntry::Kind::kEmbedding) {
    TensorList columns;
    for (const auto& direction : directions.unbind(0)) {
      columns.push_back((direction.index_select(0, left) * right).sum(1));
    }
    return at::stack(columns, 1);
  }
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
void add_formed_products(const Seen& seen, const at::Tensor& directions, at::Tensor& scores) {
  const auto rows = directions.flatten(1);  // [K, entries]
  const auto add = [&](std::int64_t begin, const at::Tensor& gradients) {
    scores.narrow(1, begin, gradients.size(0))
        .add_(rows.size(0) > gradients.size(0) ? at::mm(gradients, rows.t()).t() : at::mm(rows, gradients.t()));
  };
  const auto entry_bytes = rows.size(1) * rows.element_size();
  if (seen.entry.kind == TapeEntry::Kind::kConvolution) {
    const auto pixels = seen.signal.size(2) * seen.signal.size(3);
    const auto patch = seen.entry.input.size(1) * seen.entry.kernel[0] * seen.entry.kernel[1];
    in_chunks(seen.signal.size(0), entry_bytes + patch * pixels * rows.element_size(),
              [&](std::int64_t begin, std::int64_t length) {
                Seen part = seen;
                part.entry.input = seen.entry.input.narrow(0, begin, length);
                part.signal = seen.signal.narrow(0, begin, length);
                add(begin, filter_gradients(part));
              });
    return;
  }
  const auto [left, right] = factors(seen);
  const auto lefts = by_example(seen.entry, left), rights = by_example(seen.entry, right);
  in_chunks(lefts.size(0), entry_bytes, [&](std::int64_t begin, std::int64_t length) {
    const auto some_lefts = lefts.narrow(0, begin, length), some_rights = rights.narrow(0, begin, length);
    add(begin, seen.entry.kind == TapeEntry::Kind::kEmbedding
                   ? embedding_gradients(some_lefts, some_rights, directions.size(1))
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
void add_weight_products(const Seen& seen, const at::Tensor& directions, at::Tensor& scores) {
  if (better_formed(seen.entry, directions.size(0), directions.size(1))) {
    add_formed_products(seen, directions, scores);
  } else if (seen.entry.kind == TapeEntry::Kind::kScale) {
    scores.add_(at::mm(directions, by_owner(seen.entry, seen.signal * seen.entry.input).t()));
  } else {
    scores.add_(by_owner(seen.entry, row_products(seen, directions)).t());
  }
}

/// The directions in the algebra type of theta's dtype, checked against its shapes.
std::map<std::string, at::Tensor> checked(const std::map<std::string, at::Tensor>& directions,
                                          const ParameterSet& theta) {
  if (directions.empty()) {
    throw InvalidArgument("per-sample products: no directions");
  }
  const auto count = directions.begin()->second.size(0);
  std::map<std::string, at::Tensor> out;
  for (const auto& [name, direction] : directions) {
    const auto& value = theta.at(name);
    auto expected = value.sizes().vec();
    expected.insert(expected.begin(), count);
    if (direction.sizes() != at::IntArrayRef(expected)) {
      throw InvalidArgument(fmt::format("per-sample products: directions for {} have shape [{}], expected [{}]", name,
                                        fmt::join(direction.sizes(), ", "), fmt::join(expected, ", ")));
    }
    out.emplace(name, direction.detach().to(algebra_options(value.options())));
  }
  return out;
}

std::vector<std::string> names_of(const std::map<std::string, at::Tensor>& directions) {
  std::vector<std::string> names;
  for (const auto& [name, direction] : directions) {
    names.push_back(name);
  }
  return names;
}

at::Tensor squared_row_norms(const at::Tensor& x) {
  return at::linalg_vector_norm(x, 2, {1}, /*keepdim=*/false, at::kDouble).square();
}

/// One use's per-example gradients in its weight: [B, entries].
at::Tensor weight_gradients(const TapeEntry& entry, const at::Tensor& signal, const ParameterSet& theta) {
  const Seen seen{entry, signal};
  switch (entry.kind) {
    case TapeEntry::Kind::kConvolution:
      return filter_gradients(seen);
    case TapeEntry::Kind::kScale:
      return by_owner(entry, signal * entry.input);
    case TapeEntry::Kind::kEmbedding:
      return embedding_gradients(by_example(entry, entry.input), by_example(entry, signal),
                                 theta.at(entry.weight).size(0));
    case TapeEntry::Kind::kLinear:
      break;
  }
  const auto [left, right] = factors(seen);
  return at::bmm(by_example(entry, left).transpose(1, 2), by_example(entry, right)).flatten(1);
}

/// And in its bias: [B, out].
at::Tensor bias_gradients(const TapeEntry& entry, const at::Tensor& signal) {
  return entry.kind == TapeEntry::Kind::kConvolution ? signal.sum({2, 3}) : by_owner(entry, signal);
}

/// The products left_s . left_t of the rows of two uses of a matrix: [B, L, L'].
at::Tensor left_products(const at::Tensor& a, const at::Tensor& b) {
  const bool picks_a = !a.is_floating_point(), picks_b = !b.is_floating_point();
  if (picks_a && picks_b) {
    return a.unsqueeze(2).eq(b.unsqueeze(1));
  }
  if (picks_b) {
    return left_products(b, a).transpose(1, 2);
  }
  if (picks_a) {  // row a_s of b_t
    return b.transpose(1, 2).gather(1, a.unsqueeze(2).expand({-1, -1, b.size(1)}));
  }
  return at::bmm(a, b.transpose(1, 2));
}

/// |sum of the uses' weight gradients|^2 per example.
at::Tensor squared_weight_norms(const std::vector<const Seen*>& uses, const ParameterSet& theta) {
  const auto& first = *uses.front();
  const auto kind = first.entry.kind;
  const bool matrix = kind == TapeEntry::Kind::kLinear || kind == TapeEntry::Kind::kEmbedding;
  if (!matrix) {
    at::Tensor sum;
    for (const auto* use : uses) {
      const auto gradients = weight_gradients(use->entry, use->signal, theta);
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
                  const auto lefts = left_products(a.left.narrow(0, begin, length), b.left.narrow(0, begin, length));
                  const auto rights =
                      at::bmm(a.right.narrow(0, begin, length), b.right.narrow(0, begin, length).transpose(1, 2));
                  part.add_((lefts * rights).sum(at::IntArrayRef{1, 2}, /*keepdim=*/false, at::kDouble));
                }
              }
            });
  return out.clamp_min_(0);
}

at::Tensor squared_bias_norms(const std::vector<const Seen*>& uses) {
  at::Tensor sum;
  for (const auto* use : uses) {
    const auto gradients = bias_gradients(use->entry, use->signal);
    sum = sum.defined() ? sum + gradients : gradients;
  }
  return squared_row_norms(sum);
}

}  // namespace

at::Tensor input_positions(const TapeEntry& entry) {
  return entry.kind == TapeEntry::Kind::kConvolution ? patches(entry).transpose(1, 2) : by_example(entry, entry.input);
}

at::Tensor signal_positions(const TapeEntry& entry, const at::Tensor& signal) {
  return entry.kind == TapeEntry::Kind::kConvolution ? signal.flatten(2).transpose(1, 2) : by_example(entry, signal);
}

at::Tensor per_sample_products(const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch,
                               const std::map<std::string, at::Tensor>& directions) {
  const auto wanted = checked(directions, theta);
  const auto layers = see(model, loss, theta, batch, names_of(wanted));
  const c10::NoGradGuard no_grad;
  auto scores = at::zeros({wanted.begin()->second.size(0), batch.size()}, wanted.begin()->second.options());
  for (const auto& seen : layers) {
    if (const auto weight = wanted.find(seen.entry.weight); weight != wanted.end()) {
      add_weight_products(seen, weight->second, scores);
    }
    if (const auto bias = wanted.find(seen.entry.bias); bias != wanted.end()) {
      scores.add_(at::mm(bias->second, bias_gradients(seen.entry, seen.signal).t()));
    }
  }
  return scores;
}

at::Tensor per_token_products(const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch,
                              const std::map<std::string, at::Tensor>& directions) {
  const auto wanted = checked(directions, theta);
  const auto layers = see(model, loss, theta, batch, names_of(wanted));
  const c10::NoGradGuard no_grad;
  auto out = at::zeros({batch.inputs.numel()}, wanted.begin()->second.options());
  for (const auto& seen : layers) {
    const auto add = [&](const at::Tensor& rows) {
      const auto& origins = seen.entry.rows.origins;
      if (origins.defined()) {
        out.index_add_(0, origins, rows);
      } else {
        out.add_(rows);
      }
    };
    if (const auto weight = wanted.find(seen.entry.weight); weight != wanted.end()) {
      add(row_products(seen, weight->second).squeeze(1));
    }
    if (const auto bias = wanted.find(seen.entry.bias); bias != wanted.end()) {
      add(at::mv(seen.signal, bias->second[0]));
    }
  }
  return out;
}

at::Tensor per_sample_squared_norms(const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch,
                                    const std::vector<std::string>& names) {
  const auto layers = see(model, loss, theta, batch, names);
  const c10::NoGradGuard no_grad;
  auto total = at::zeros({batch.size()}, theta.values().front().options().dtype(at::kDouble));
  for (const auto& name : names) {
    std::vector<const Seen*> as_weight, as_bias;
    for (const auto& seen : layers) {
      if (seen.entry.weight == name) {
        as_weight.push_back(&seen);
      } else if (seen.entry.bias == name) {
        as_bias.push_back(&seen);
      }
    }
    total.add_(as_weight.empty() ? squared_bias_norms(as_bias) : squared_weight_norms(as_weight, theta));
  }
  return total;
}

}  // namespace whence
