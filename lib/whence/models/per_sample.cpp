#include "whence/models/per_sample.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "whence/core/chunks.h"

namespace whence {
namespace {

struct Seen {
  TapeEntry entry;
  at::Tensor signal;  // gradient of the summed losses at entry.output
};

std::string weight_name(const TapeEntry& entry) { return entry.layer + ".weight"; }
std::string bias_name(const TapeEntry& entry) { return entry.layer + ".bias"; }

/// One forward and one backward pass: the layers that own a wanted parameter, with their signals, in forward order.
std::vector<Seen> see(const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch,
                      const std::vector<std::string>& wanted) {
  const c10::AutoGradMode with_grad(true);
  Tape tape;
  const auto output = model.output(theta.with(detach(theta.values())), batch, &tape);
  std::vector<std::string> owned;
  std::vector<Seen> out;
  TensorList outputs;
  const auto wants = [&](const std::string& name) {
    return std::find(wanted.begin(), wanted.end(), name) != wanted.end();
  };
  for (const auto& entry : tape.entries) {
    owned.push_back(weight_name(entry));
    if (entry.has_bias) {
      owned.push_back(bias_name(entry));
    }
    if (wants(weight_name(entry)) || (entry.has_bias && wants(bias_name(entry)))) {
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
    out[i].signal = signals[i];
    out[i].entry.output = at::Tensor();  // lets the graph go
  }
  return out;
}

std::int64_t outputs_of(const TapeEntry& entry, const at::Tensor& signal) {
  return entry.kind == TapeEntry::Kind::kLinear ? signal.size(-1) : signal.size(1);
}

/// The entry with examples begin .. begin + length - 1 only.
Seen examples(const Seen& seen, std::int64_t begin, std::int64_t length) {
  Seen out = seen;
  out.entry.input = seen.entry.input.narrow(0, begin, length);
  out.signal = seen.signal.narrow(0, begin, length);
  return out;
}

/// Bytes of one example's gradient in the weight and, for a convolution, of the patches it is made from.
std::int64_t gradient_bytes(const Seen& seen) {
  const auto& [entry, signal] = seen;
  std::int64_t inputs = entry.input.size(1), pixels = 0;
  if (entry.kind == TapeEntry::Kind::kConvolution) {
    inputs *= entry.kernel[0] * entry.kernel[1];
    pixels = signal.size(2) * signal.size(3);
  }
  return inputs * (outputs_of(entry, signal) + pixels) * signal.element_size();
}

/// scores [K, B] += V a linear layer's gradients, one product of matrices with the inputs and one with the signals,
/// which never forms a gradient.
void add_factored_products(const Seen& seen, const at::Tensor& directions, at::Tensor& scores) {
  const auto& input = seen.entry.input;
  const auto bytes_each = seen.signal.numel() * seen.signal.element_size();
  in_chunks(directions.size(0), bytes_each, [&](std::int64_t begin, std::int64_t length) {
    const auto rows = directions.narrow(0, begin, length).flatten(0, 1);                   // [k out, in]
    const auto seen_through = at::mm(input, rows.t()).view({input.size(0), length, -1});   // [B, k, out]
    const auto products = at::bmm(seen_through, seen.signal.unsqueeze(2)).squeeze(2).t();  // [k, B]
    scores.narrow(0, begin, length).add_(products);
  });
}

/// The same through gradients, formed for some examples at a time.
void add_formed_products(const Seen& seen, const at::Tensor& directions, at::Tensor& scores) {
  const auto rows = directions.flatten(1);  // [K, entries]
  in_chunks(seen.signal.size(0), gradient_bytes(seen), [&](std::int64_t begin, std::int64_t length) {
    const auto part = examples(seen, begin, length);
    scores.narrow(1, begin, length).add_(at::mm(rows, weight_gradients(part.entry, part.signal).t()));
  });
}

void add_weight_products(const Seen& seen, const at::Tensor& directions, at::Tensor& scores) {
  const bool linear_layer = seen.entry.kind == TapeEntry::Kind::kLinear;
  if (linear_layer && directions.size(0) <= seen.entry.input.size(1)) {
    add_factored_products(seen, directions, scores);
  } else {
    add_formed_products(seen, directions, scores);
  }
}

/// The directions as theta's dtype, checked against its shapes.
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
    out.emplace(name, direction.detach().to(value.options()));
  }
  return out;
}

at::Tensor squared_row_norms(const at::Tensor& x) {
  return at::linalg_vector_norm(x, 2, {1}, /*keepdim=*/false, at::kDouble).square();
}

/// |sum of the uses' weight gradients|^2 per example.
at::Tensor squared_weight_norms(const std::vector<Seen>& uses) {
  const auto& first = uses.front();
  if (uses.size() == 1 && first.entry.kind == TapeEntry::Kind::kLinear) {
    return squared_row_norms(first.entry.input) * squared_row_norms(first.signal);
  }
  auto out = at::zeros({first.signal.size(0)}, first.signal.options().dtype(at::kDouble));
  in_chunks(out.size(0), gradient_bytes(first), [&](std::int64_t begin, std::int64_t length) {
    at::Tensor sum;
    for (const auto& use : uses) {
      const auto part = examples(use, begin, length);
      const auto gradients = weight_gradients(part.entry, part.signal);
      sum = sum.defined() ? sum + gradients : gradients;
    }
    out.narrow(0, begin, length).copy_(squared_row_norms(sum));
  });
  return out;
}

at::Tensor squared_bias_norms(const std::vector<Seen>& uses) {
  at::Tensor sum;
  for (const auto& use : uses) {
    const auto gradients = bias_gradients(use.entry, use.signal);
    sum = sum.defined() ? sum + gradients : gradients;
  }
  return squared_row_norms(sum);
}

}  // namespace

at::Tensor patches(const TapeEntry& entry) {
  return at::im2col(entry.input, entry.kernel, /*dilation=*/{1, 1}, entry.padding, entry.stride);
}

at::Tensor weight_gradients(const TapeEntry& entry, const at::Tensor& signal) {
  if (entry.kind == TapeEntry::Kind::kLinear) {
    return (signal.unsqueeze(2) * entry.input.unsqueeze(1)).flatten(1);
  }
  return at::bmm(signal.flatten(2), patches(entry).transpose(1, 2)).flatten(1);
}

at::Tensor bias_gradients(const TapeEntry& entry, const at::Tensor& signal) {
  return entry.kind == TapeEntry::Kind::kLinear ? signal : signal.sum({2, 3});
}

at::Tensor per_sample_products(const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch,
                               const std::map<std::string, at::Tensor>& directions) {
  const auto wanted = checked(directions, theta);
  std::vector<std::string> names;
  for (const auto& [name, direction] : wanted) {
    names.push_back(name);
  }
  const auto layers = see(model, loss, theta, batch, names);
  const c10::NoGradGuard no_grad;
  auto scores = at::zeros({wanted.begin()->second.size(0), batch.size()}, wanted.begin()->second.options());
  for (const auto& seen : layers) {
    if (const auto weight = wanted.find(weight_name(seen.entry)); weight != wanted.end()) {
      add_weight_products(seen, weight->second, scores);
    }
    if (const auto bias = wanted.find(bias_name(seen.entry)); bias != wanted.end()) {
      scores.add_(at::mm(bias->second, bias_gradients(seen.entry, seen.signal).t()));
    }
  }
  return scores;
}

at::Tensor per_sample_squared_norms(const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch,
                                    const std::vector<std::string>& names) {
  std::map<std::string, std::vector<Seen>> uses;
  for (auto& seen : see(model, loss, theta, batch, names)) {
    auto layer = seen.entry.layer;
    uses[std::move(layer)].push_back(std::move(seen));
  }
  const c10::NoGradGuard no_grad;
  auto total = at::zeros({batch.size()}, theta.values().front().options().dtype(at::kDouble));
  for (const auto& name : names) {
    const auto dot = name.rfind('.');
    const auto& of_layer = uses.at(name.substr(0, dot));
    total.add_(name.substr(dot) == ".weight" ? squared_weight_norms(of_layer) : squared_bias_norms(of_layer));
  }
  return total;
}

}  // namespace whence
