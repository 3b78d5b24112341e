#include "whence/models/exported/detail/layers.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "whence/core/error.h"
#include "whence/models/addition.h"
#include "whence/models/ops.h"

namespace whence::detail {
namespace {

/// A parameter, and whether it is seen transposed.
struct Source {
  std::string name;
  bool flipped = false;
};

bool is_fixed(const Node& node, const char* argument, double value) {
  const auto place = node.argument(argument);
  if (place < 0) {
    return true;
  }
  const auto& operand = node.inputs[static_cast<std::size_t>(place)];
  return operand.slot() < 0 && !operand.constant().isNone() && operand.constant().isScalar() &&
         operand.constant().toScalar().toDouble() == value;
}

/// A matrix turned over, and nothing else.
bool turns(const Node& node) {
  const auto op = node.operation();
  return op == "t" || op == "numpy_T" || op == "transpose";
}

/// The layer that a node is by its operator; the names are filled in from its arguments.
std::optional<ProgramLayer> form_of(const Node& node) {
  using Form = ProgramLayer::Form;
  const auto op = node.operation();
  const auto place = [&](const char* name) { return node.argument(name); };
  if (node.schema == nullptr) {
    return std::nullopt;
  }
  if (op == "linear") {
    return ProgramLayer{Form::kLinear, "", "", false, place("input"), place("weight"), place("bias")};
  }
  if (op == "addmm" && is_fixed(node, "beta", 1) && is_fixed(node, "alpha", 1)) {
    return ProgramLayer{Form::kLinear, "", "", true, place("mat1"), place("mat2"), place("self")};
  }
  if (op == "mm" || op == "matmul") {
    return ProgramLayer{Form::kLinear, "", "", true, 0, 1, -1};
  }
  if ((op == "conv1d" || op == "conv2d" || op == "conv3d") && node.schema->overload_name().empty() &&
      is_fixed(node, "groups", 1)) {
    return ProgramLayer{Form::kConvolution, "", "", false, place("input"), place("weight"), place("bias")};
  }
  if (op == "embedding" && is_fixed(node, "scale_grad_by_freq", 0)) {
    return ProgramLayer{Form::kEmbedding, "", "", false, place("indices"), place("weight"), -1};
  }
  if (op == "layer_norm" || op == "batch_norm" || op == "group_norm" || op == "rms_norm" || op == "instance_norm") {
    return ProgramLayer{Form::kNorm, "", "", false, place("input"), place("weight"), place("bias")};
  }
  return std::nullopt;
}

RowMap row_map(std::int64_t examples, std::int64_t rows, const at::Tensor& like) {
  if (rows == examples) {
    return {};
  }
  const auto all = at::arange(rows, at::TensorOptions(at::kLong).device(like.device()));
  return {at::floor_divide(all, rows / examples), all.view({examples, rows / examples}), {}, /*plain=*/true};
}

/// One number for each of `sides` of a filter; of a line, which is an image 1 high, `first` before it.
std::vector<std::int64_t> of_sides(const c10::IValue& value, std::size_t sides, std::int64_t first) {
  auto out = value.toIntVector();
  if (out.size() == 1 && sides > 1) {
    out.assign(sides, out.front());
  }
  if (sides == 1) {
    out.insert(out.begin(), first);
  }
  return out;
}

/// What each place of a convolution's output sees of x [N, C, sides…]: [N, C kernel, places], as at::im2col has it of
/// two sides.
at::Tensor seen_by_places(const at::Tensor& x, at::IntArrayRef kernel, const std::vector<std::int64_t>& stride,
                          const std::vector<std::int64_t>& padding, const std::vector<std::int64_t>& dilation) {
  if (kernel.size() == 2) {
    return at::im2col(x, kernel, dilation, padding, stride);
  }
  std::vector<std::int64_t> pads, order{0, 1};
  for (std::size_t i = kernel.size(); i-- > 0;) {
    pads.insert(pads.end(), 2, padding[i]);
  }
  auto windows = at::constant_pad_nd(x, pads);
  const auto sides = static_cast<std::int64_t>(kernel.size());
  for (std::int64_t i = 0; i < sides; ++i) {  // [N, C, places…, kernel…]
    const auto k = static_cast<std::size_t>(i);
    windows = windows.unfold(2 + i, dilation[k] * (kernel[k] - 1) + 1, stride[k]).slice(-1, 0, INT64_MAX, dilation[k]);
    order.push_back(2 + sides + i);
  }
  for (std::int64_t i = 0; i < sides; ++i) {
    order.push_back(2 + i);
  }
  return windows.permute(order).flatten(1 + sides + 1).flatten(1, 1 + sides);
}

}  // namespace

ProgramLayers ProgramLayers::of(const Program& program, const std::vector<std::string>& parameters,
                                const ParameterSet& theta) {
  std::map<int, Source> sources;  // of the slots that are a parameter, or one turned over
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters[i].empty()) {
      sources[static_cast<int>(i)] = {parameters[i], false};
    }
  }
  ProgramLayers out;
  std::set<std::string> others;
  for (const auto& node : program.nodes()) {
    const auto source_at = [&](int place) -> const Source* {
      const auto found = place < 0 ? sources.end() : sources.find(node.inputs[static_cast<std::size_t>(place)].slot());
      return found == sources.end() ? nullptr : &found->second;
    };
    if (node.schema != nullptr && turns(node) && source_at(0) != nullptr && !source_at(0)->flipped) {
      sources[node.outputs.front()] = {source_at(0)->name, true};
      continue;
    }
    auto layer = form_of(node);
    const auto* weight = layer ? source_at(layer->weight_place) : nullptr;
    const auto* bias = layer ? source_at(layer->bias_place) : nullptr;
    const bool has_bias =
        layer && layer->bias_place >= 0 && (node.inputs[static_cast<std::size_t>(layer->bias_place)].slot() >= 0);
    const bool turnable = layer && layer->form == ProgramLayer::Form::kLinear;
    const bool fits = weight != nullptr && (!turnable || theta.at(weight->name).dim() == 2);
    if (fits && (!has_bias || (bias != nullptr && !bias->flipped)) && (turnable || !weight->flipped) &&
        source_at(layer->input) == nullptr) {
      layer->weight = weight->name;
      layer->bias = bias == nullptr ? "" : bias->name;
      layer->transposed = layer->transposed != weight->flipped;
      out.layers.emplace(&node, *layer);
      continue;
    }
    for (const auto& input : node.inputs) {
      for (const auto slot : input.reads()) {
        if (const auto found = sources.find(slot); found != sources.end()) {
          others.insert(found->second.name);
        }
      }
    }
  }
  for (const auto& output : program.outputs()) {
    for (const auto slot : output.reads()) {
      if (const auto found = sources.find(slot); found != sources.end()) {
        others.insert(found->second.name);
      }
    }
  }
  for (bool grew = true; grew;) {  // a layer of which one parameter has another use is one for neither
    grew = false;
    for (auto layer = out.layers.begin(); layer != out.layers.end();) {
      const auto& [weight, bias] = std::pair(layer->second.weight, layer->second.bias);
      if (others.count(weight) > 0 || others.count(bias) > 0) {
        others.insert(weight);
        if (!bias.empty()) {
          others.insert(bias);
        }
        layer = out.layers.erase(layer);
        grew = true;
      } else {
        ++layer;
      }
    }
  }
  out.others.assign(others.begin(), others.end());
  return out;
}

void LayerRunner::set_rows(std::int64_t rows, const at::Tensor& like) {
  if (tape_ != nullptr) {
    tape_->rows = row_map(examples_->examples(), rows, like);
  }
}

at::Tensor LayerRunner::run_linear(const ProgramLayer& layer, const at::Tensor& x) {
  const auto rows = x.reshape({-1, x.size(-1)});
  set_rows(rows.size(0), x);
  const auto y = linear(theta_, LinearNames{layer.weight, layer.bias, layer.transposed}, rows, tape_);
  auto sizes = x.sizes().vec();
  sizes.back() = y.size(1);
  return y.view(sizes);
}

at::Tensor LayerRunner::run_embedding(const ProgramLayer& layer, const Node& node, const torch::jit::Stack& stack) {
  const auto ids = physical(stack[static_cast<std::size_t>(layer.input)].toTensor()).to(at::kLong);
  const auto flat = ids.reshape({-1});
  set_rows(flat.size(0), flat);
  auto y = embedding(theta_, layer.weight, flat, tape_);
  if (const auto padding = stack[static_cast<std::size_t>(node.argument("padding_idx"))].toInt(); padding >= 0) {
    y = at::where(flat.eq(padding).unsqueeze(1), y.detach(), y);
  }
  auto sizes = ids.sizes().vec();
  sizes.push_back(y.size(1));
  return y.view(sizes);
}

at::Tensor LayerRunner::run_norm(const ProgramLayer& layer, const Node& node, torch::jit::Stack& stack,
                                 const ProgramRun& run) {
  const auto shape_place = node.argument("normalized_shape");
  const auto shape =
      shape_place < 0 ? std::vector<std::int64_t>() : stack[static_cast<std::size_t>(shape_place)].toIntVector();
  stack[static_cast<std::size_t>(layer.weight_place)] = {};
  if (layer.bias_place >= 0) {
    stack[static_cast<std::size_t>(layer.bias_place)] = {};
  }
  node.call(stack, run);
  auto x = physical(stack.front().toTensor());
  const std::int64_t channel = examples_ == nullptr ? 1 : 2;
  x = shape.empty() ? x.movedim(channel, -1) : x.flatten(-static_cast<std::int64_t>(shape.size()));
  const auto rows = x.reshape({-1, x.size(-1)});
  set_rows(rows.size(0), rows);
  const auto y = scaled(theta_, layer.weight, layer.bias, rows, tape_).view(x.sizes());
  return shape.empty() ? y.movedim(-1, channel) : y.unflatten(-1, shape);
}

at::Tensor LayerRunner::run_convolution(const ProgramLayer& layer, const Node& node, const torch::jit::Stack& stack,
                                        const at::Tensor& x) {
  const auto value = [&](const char* name) { return stack[static_cast<std::size_t>(node.argument(name))]; };
  const bool line = node.operation() == "conv1d", solid = node.operation() == "conv3d";
  const std::size_t given = line ? 1 : solid ? 3 : 2;
  const auto stride = of_sides(value("stride"), given, 1), padding = of_sides(value("padding"), given, 0),
             dilation = of_sides(value("dilation"), given, 1);
  const auto square = [](const std::vector<std::int64_t>& sides) { return sides[0] == sides[1]; };
  // [examples, images an example, channels, height, width], of a solid its depth before them
  const auto sides = static_cast<std::int64_t>(given);
  const bool single = x.dim() - (examples_ == nullptr ? 0 : 1) == sides + 1;
  auto images = single ? x.unsqueeze(-sides - 2) : x;
  images = line ? images.unsqueeze(-2) : images;
  images = examples_ == nullptr ? images.unsqueeze(0) : images;
  const auto examples = images.size(0), each = images.size(1);
  const auto flat = images.flatten(0, 1);
  const auto back = [&](const at::Tensor& y) {  // [examples each, out, …] as x was
    auto out = y.unflatten(0, {examples, each});
    out = examples_ == nullptr ? out.squeeze(0) : out;
    out = line ? out.squeeze(-2) : out;
    return single ? out.squeeze(-sides - 2) : out;
  };
  const bool dilated = std::any_of(dilation.begin(), dilation.end(), [](std::int64_t d) { return d != 1; });
  const std::string module(layer_module(layer.weight));
  const bool plain = !line && !solid && !dilated && square(stride) && square(padding) && module != layer.weight &&
                     (each == 1 || tape_ == nullptr);
  if (plain && (layer.bias == module + ".bias" || (layer.bias.empty() && !theta_.contains(module + ".bias")))) {
    set_rows(examples, flat);
    return back(convolution(theta_, module, flat, stride[0], padding[0], tape_));
  }
  if (theta_.additions() && theta_.additions()->count(module) > 0) {
    throw InvalidArgument(
        fmt::format("layer {}: nothing can be added at a convolution of this form, expected equal strides, equal "
                    "padding and no dilation",
                    module));
  }
  auto weight = theta_.at(layer.weight);
  weight = line ? weight.unsqueeze(-2) : weight;
  const auto bias = layer.bias.empty() ? std::optional<at::Tensor>() : theta_.at(layer.bias);
  auto y = solid ? at::conv3d(flat, weight, bias, stride, padding, dilation)
                 : at::conv2d(flat, weight, bias, stride, padding, dilation);
  TapeEntry entry{
      .kind = TapeEntry::Kind::kConvolution, .weight = layer.weight, .bias = layer.bias, .input = {}, .output = {}};
  if (tape_ == nullptr || (tape_->wanted && !tape_->wanted(entry))) {
    return back(y);
  }
  y = y.requires_grad() ? y : y.detach().requires_grad_(true);
  const bool alone = each == 1 && !solid;
  if (dilated || !alone) {  // what each place of it saw, as one column of an image of 1 x 1 filters
    const c10::NoGradGuard no_gradient;
    const auto seen = seen_by_places(flat.detach(), weight.sizes().slice(2), stride, padding, dilation);
    entry.input = seen.unflatten(0, {examples, each}).transpose(1, 2).flatten(2).unsqueeze(-1);
    entry.kernel = {1, 1};
    entry.padding = {0, 0};
    entry.stride = {1, 1};
  } else {
    entry.input = flat.detach();
    entry.kernel = weight.sizes().slice(2).vec();
    entry.padding = padding;
    entry.stride = stride;
  }
  if (alone) {
    entry.output = y;
    tape_->entries.push_back(std::move(entry));
    return back(y);
  }
  const auto sizes = y.sizes().vec();
  entry.output = y.unflatten(0, {examples, each}).transpose(1, 2).flatten(2).unsqueeze(-1);  // [B, out, places, 1]
  tape_->entries.push_back(std::move(entry));
  const auto& out = tape_->entries.back().output;
  auto apart = sizes;  // [examples, out, each, …]
  apart.front() = each;
  std::swap(apart[0], apart[1]);
  apart.insert(apart.begin(), examples);
  return back(out.view(apart).transpose(1, 2).flatten(0, 1));
}

void LayerRunner::run(const Node& node, torch::jit::Stack& stack, const ProgramRun& run) {
  const auto found = layers_.layers.find(&node);
  if (found == layers_.layers.end()) {
    node.call(stack, run);
    if (examples_ != nullptr && node.output_written) {  // each example writes into its own
      for (auto& value : stack) {
        if (value.isTensor() && !examples_->differs(value.toTensor())) {
          value = examples_->seen(examples_->of_all(value.toTensor()).clone());
        }
      }
    }
    return;
  }
  const auto& layer = found->second;
  const auto input = [&] {  // what a tape keeps is not what a later node makes of it
    const auto x = physical(stack[static_cast<std::size_t>(layer.input)].toTensor());
    return tape_ != nullptr && node.input_written ? x.clone() : x;
  };
  at::Tensor out;
  switch (layer.form) {
    case ProgramLayer::Form::kLinear:
      out = run_linear(layer, input());
      break;
    case ProgramLayer::Form::kConvolution:
      out = run_convolution(layer, node, stack, input());
      break;
    case ProgramLayer::Form::kEmbedding:
      out = run_embedding(layer, node, stack);
      break;
    case ProgramLayer::Form::kNorm:
      out = run_norm(layer, node, stack, run);
      break;
  }
  stack.clear();
  stack.emplace_back(seen(node.output_written ? out.clone() : out));
}

at::Tensor record_copies(const std::string& name, const at::Tensor& value, const OneByOne& examples, Tape& tape) {
  TapeEntry entry{.kind = TapeEntry::Kind::kScale, .weight = "", .bias = name, .input = {}, .output = {}};
  if (tape.wanted && !tape.wanted(entry)) {
    return value;
  }
  constexpr double kMost = 2e9;
  const auto bytes = static_cast<double>(examples.examples()) * static_cast<double>(value.numel()) *
                     static_cast<double>(value.element_size());
  if (bytes > kMost) {
    throw InvalidArgument(fmt::format(
        "{}: no layer owns it, and a copy for each of {} examples takes {:.1f} GB: use a smaller --batch-size", name,
        examples.examples(), bytes / 1e9));
  }
  entry.output = value.detach().flatten().unsqueeze(0).repeat({examples.examples(), 1}).requires_grad_(true);
  entry.input = entry.output.detach();
  auto sizes = value.sizes().vec();
  sizes.insert(sizes.begin(), examples.examples());
  const auto out = examples.seen(entry.output.view(sizes));
  tape.entries.push_back(std::move(entry));
  return out;
}

}  // namespace whence::detail
