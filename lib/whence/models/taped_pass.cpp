#include "whence/models/taped_pass.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "whence/core/chunks.h"
#include "whence/core/error.h"
#include "whence/core/rounding.h"
#include "whence/core/tensors.h"
#include "whence/models/addition.h"
#include "whence/models/ops.h"

namespace whence {

TapedPass::TapedPass(const Model& model, const ParameterSet& theta, const Batch& batch,
                     const std::function<bool(const TapeEntry&)>& wanted) {
  if (!model.records_layers()) {
    throw InvalidArgument(
        "the model does not run for one example at a time, so its layers are not recorded: expected a method that "
        "needs no layers, as influence with curvature hessian and solver cg or lissa, or grad-dot");
  }
  const c10::AutoGradMode with_grad(true);
  const DerivativeOrder first(1);
  Tape tape{.wanted = wanted};
  output_ = model.output(theta.with(detach(theta.values())), batch, &tape);
  entries_ = std::move(tape.entries);
  for (const auto& entry : entries_) {
    outputs_.push_back(entry.output);
  }
}

TensorList TapedPass::signals(const at::Tensor& values, bool keep) const {
  return outputs_.empty() ? TensorList{} : gradient(values.sum(), outputs_, false, keep);
}

TensorList TapedPass::signals_from(const at::Tensor& start, bool keep) const {
  return outputs_.empty() ? TensorList{} : gradient(TensorList{output_}, outputs_, {start}, false, keep);
}

std::vector<LayerUse> layer_uses(const Model& model, const PerExample& values, const ParameterSet& theta,
                                 const Batch& batch, const std::vector<std::string>& wanted, const char* what) {
  std::vector<std::string> owned;
  const TapedPass pass(model, theta, batch, [&](const TapeEntry& entry) {
    const auto is_wanted = [&](const std::string& name) {
      owned.push_back(name);
      return std::find(wanted.begin(), wanted.end(), name) != wanted.end();
    };
    bool any = false;
    for (const auto& name : weight_sources(entry)) {
      any = is_wanted(name) || any;
    }
    return (!entry.bias.empty() && is_wanted(entry.bias)) || any;
  });
  for (const auto& name : wanted) {
    if (std::find(owned.begin(), owned.end(), name) == owned.end()) {
      throw InvalidArgument(std::string(what) + ": " + unknown_name("parameter of a recorded layer", name, owned));
    }
  }
  const auto signals = [&] {
    const c10::AutoGradMode with_grad(true);
    return pass.signals(values(pass.output(), batch));
  }();
  std::vector<LayerUse> out;
  for (std::size_t i = 0; i < signals.size(); ++i) {
    out.push_back({pass.entries()[i], widened(signals[i])});
    out.back().entry.input = widened(out.back().entry.input);
    out.back().entry.output = at::Tensor();
  }
  return out;
}

at::Tensor by_example(const TapeEntry& entry, const at::Tensor& x) {
  return entry.rows.places.defined() ? rows_by_example(entry.rows, x) : x.unsqueeze(1);
}

at::Tensor by_owner(const TapeEntry& entry, const at::Tensor& x) {
  return entry.rows.places.defined() ? sum_rows(entry.rows, x) : x;
}

at::Tensor input_positions(const TapeEntry& entry) {
  return entry.kind == TapeEntry::Kind::kConvolution
             ? at::im2col(entry.input, entry.kernel, /*dilation=*/{1, 1}, entry.padding, entry.stride).transpose(1, 2)
             : by_example(entry, entry.input);
}

at::Tensor signal_positions(const TapeEntry& entry, const at::Tensor& signal) {
  return entry.kind == TapeEntry::Kind::kConvolution ? signal.flatten(2).transpose(1, 2) : by_example(entry, signal);
}

TapeEntry of_group(const TapeEntry& entry, std::int64_t group) {
  auto out = entry;
  if (entry.groups > 1) {
    const auto share = entry.input.size(1) / entry.groups;
    out.input = entry.input.narrow(1, group * share, share);
    out.groups = 1;
  }
  return out;
}

at::Tensor of_group(const TapeEntry& entry, const at::Tensor& signal, std::int64_t group) {
  const auto share = signal.size(entry.groups > 1 ? 1 : 0) / entry.groups;
  return entry.groups > 1 ? signal.narrow(1, group * share, share) : signal;
}

at::Tensor filter_gradients(const TapeEntry& entry, const at::Tensor& signal) {
  const auto by_group = [&](const at::Tensor& positions) {  // [B groups, T, share]
    return positions.unflatten(2, {entry.groups, positions.size(2) / entry.groups}).transpose(1, 2).flatten(0, 1);
  };
  const auto inputs = by_group(input_positions(entry)), signals = by_group(signal_positions(entry, signal));
  const auto gradients =
      entry.transposed ? at::bmm(inputs.transpose(1, 2), signals) : at::bmm(signals.transpose(1, 2), inputs);
  return gradients.view({signal.size(0), -1});
}

at::Tensor source_gradients(const ParameterSet& theta, const TapeEntry& entry, const at::Tensor& signal,
                            const std::string& source) {
  const auto inputs = input_positions(entry), signals = signal_positions(entry, signal);
  const auto left = entry.transposed ? inputs : signals, right = entry.transposed ? signals : inputs;
  const auto& weight = theta.at(entry.weight);
  auto out = at::empty({signals.size(0), theta.at(source).numel()}, signals.options());
  in_chunks(signals.size(0), weight.numel() * signals.element_size(), [&](std::int64_t begin, std::int64_t length) {
    const auto gradients = at::bmm(left.narrow(0, begin, length).transpose(1, 2), right.narrow(0, begin, length))
                               .view(direction_shape(length, weight));
    const auto pulled = pull_from_weight(theta, entry, gradients, {source});
    out.narrow(0, begin, length).copy_(rows_of(pulled.values().front()));
  });
  return out;
}

at::Tensor input_columns(const TapeEntry& entry, bool weight, bool bias) {
  auto inputs = widened(input_positions(entry));
  TensorList columns;
  if (weight) {
    columns.push_back(inputs);
  }
  if (bias) {
    columns.push_back(at::ones({inputs.size(0), inputs.size(1), 1}, inputs.options()));
  }
  inputs = at::cat(columns, 2);
  return entry.rows.places.defined() ? inputs * entry.rows.places.ge(0).to(inputs.scalar_type()).unsqueeze(2) : inputs;
}

}  // namespace whence
