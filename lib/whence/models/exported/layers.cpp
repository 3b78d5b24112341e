#include "whence/models/exported/detail/layers.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/core/printable.h"
#include "whence/models/addition.h"
#include "whence/models/ops.h"

namespace whence::detail {
namespace {

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
  if (out.size() != sides) {
    throw InvalidArgument(fmt::format("{} numbers for a filter of {} sides", out.size(), sides));
  }
  if (sides == 1) {
    out.insert(out.begin(), first);
  }
  return out;
}

/// What padding = "same" and "valid" say: zeros on each side, and where filters are even one more behind, as
/// constant_pad_nd takes them; empty: none. As torch's own conv2d has it.
struct NamedPadding {
  std::vector<std::int64_t> each_side, behind;
};
NamedPadding padding_named(const std::string& name, at::IntArrayRef kernel, const std::vector<std::int64_t>& stride,
                           const std::vector<std::int64_t>& dilation) {
  if (name != "same" && name != "valid") {
    throw InvalidArgument(fmt::format("padding = \"{}\", expected same or valid", printable(name)));
  }
  const bool same = name == "same";
  NamedPadding out;
  for (std::size_t i = 0; i < kernel.size(); ++i) {
    const auto all = same ? dilation[i] * (kernel[i] - 1) : 0;
    if (same && stride[i] != 1) {
      throw InvalidArgument(fmt::format("padding = \"same\" with a stride of {}, expected 1", stride[i]));
    }
    out.each_side.push_back(all / 2);
    out.behind.insert(out.behind.begin(), {0, all % 2});  // the last side first
  }
  const auto none = std::all_of(out.behind.begin(), out.behind.end(), [](std::int64_t more) { return more == 0; });
  out.behind = none ? std::vector<std::int64_t>() : out.behind;
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

/// What a convolution sees, as images: [examples, images an example, channels, sides…].
struct Images {
  at::Tensor all;
  bool batched = true, single = false;  ///< Whether x had examples, and no other images than one each.

  Images(const at::Tensor& x, std::int64_t sides, bool examples)
      : all(examples ? x : x.unsqueeze(0)), batched(examples), single(all.dim() == sides + 2) {
    all = single ? all.unsqueeze(1) : all;
  }
  std::int64_t examples() const { return all.size(0); }
  std::int64_t each() const { return all.size(1); }
  /// [examples each, …] as x was.
  at::Tensor back(const at::Tensor& y) const {
    auto out = y.unflatten(0, {examples(), each()});
    out = single ? out.squeeze(1) : out;
    return batched ? out : out.squeeze(0);
  }
  /// x [examples each, C, places…] as [examples, C, each places, 1].
  at::Tensor places(const at::Tensor& x) const {
    return x.unflatten(0, {examples(), each()}).transpose(1, 2).flatten(2).unsqueeze(-1);
  }
};

/// Sums what each place of a transposed convolution's input puts into its output. z [B, out, kernel…, images, sides…]
/// is what it puts there; [B, out, images, sides…].
at::Tensor put_together(const at::Tensor& z, at::IntArrayRef kernel, at::IntArrayRef stride, at::IntArrayRef padding,
                        at::IntArrayRef more, at::IntArrayRef dilation) {
  const auto sides = kernel.size();
  std::vector<std::int64_t> sizes{z.size(0), z.size(1), z.size(2 + static_cast<std::int64_t>(sides))};
  const auto inputs = z.sizes().slice(3 + sides);
  for (std::size_t i = 0; i < sides; ++i) {
    sizes.push_back((inputs[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 + more[i]);
  }
  auto out = at::zeros(sizes, z.options());
  const auto flat = z.flatten(2, 1 + static_cast<std::int64_t>(sides));  // [B, out, kernel, images, sides…]
  for (std::int64_t k = 0; k < flat.size(2); ++k) {
    auto there = out;
    auto rest = k;
    for (auto i = sides; i-- > 0;) {
      const auto first = rest % kernel[i] * dilation[i];
      rest /= kernel[i];
      there = there.slice(static_cast<std::int64_t>(3 + i), first, first + (inputs[i] - 1) * stride[i] + 1, stride[i]);
    }
    there.add_(flat.select(2, k));
  }
  for (std::size_t i = 0; i < sides; ++i) {
    const auto side = static_cast<std::int64_t>(3 + i);
    out = out.narrow(side, padding[i], out.size(side) - 2 * padding[i]);
  }
  return out;
}

}  // namespace

void LayerRunner::set_rows(std::int64_t rows, const at::Tensor& like) {
  if (tape_ != nullptr) {
    tape_->rows = row_map(examples_->examples(), rows, like);
  }
}

void LayerRunner::refuse_additions(std::string_view module) const {
  if (theta_.additions() && theta_.additions()->count(module) > 0) {
    throw InvalidArgument(
        fmt::format("layer {}: nothing can be added at a convolution of this form, expected equal strides, equal "
                    "padding, no dilation and no groups",
                    module));
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
  auto weight = theta_.at(layer.weight);
  const auto given = static_cast<std::size_t>(weight.dim() - 2);
  const bool line = given == 1, solid = given == 3;
  const auto stride = of_sides(value("stride"), given, 1), dilation = of_sides(value("dilation"), given, 1);
  const auto groups = value("groups").toInt();
  const auto square = [](const std::vector<std::int64_t>& sides) { return sides[0] == sides[1]; };
  const Images images(x, static_cast<std::int64_t>(given), examples_ != nullptr);
  auto flat = line ? images.all.flatten(0, 1).unsqueeze(-2) : images.all.flatten(0, 1);
  weight = line ? weight.unsqueeze(-2) : weight;
  std::vector<std::int64_t> padding;
  if (value("padding").isString()) {
    const auto pads = padding_named(value("padding").toStringRef(), weight.sizes().slice(2), stride, dilation);
    padding = pads.each_side;
    flat = pads.behind.empty() ? flat : at::constant_pad_nd(flat, pads.behind);
  } else {
    padding = of_sides(value("padding"), given, 0);
  }
  const auto back = [&](const at::Tensor& y) { return images.back(line ? y.squeeze(-2) : y); };
  const auto examples = images.examples(), each = images.each();
  const bool dilated = std::any_of(dilation.begin(), dilation.end(), [](std::int64_t d) { return d != 1; });
  const std::string module(layer_module(layer.weight));
  const bool plain = !line && !solid && !dilated && groups == 1 && square(stride) && square(padding) &&
                     module != layer.weight && (each == 1 || tape_ == nullptr);
  if (plain && (layer.bias == module + ".bias" || (layer.bias.empty() && !theta_.contains(module + ".bias")))) {
    set_rows(examples, flat);
    return back(convolution(theta_, module, flat, stride[0], padding[0], tape_));
  }
  refuse_additions(module);
  const auto bias = layer.bias.empty() ? std::optional<at::Tensor>() : theta_.at(layer.bias);
  auto y = solid ? at::conv3d(flat, weight, bias, stride, padding, dilation, groups)
                 : at::conv2d(flat, weight, bias, stride, padding, dilation, groups);
  TapeEntry entry{
      .kind = TapeEntry::Kind::kConvolution, .weight = layer.weight, .bias = layer.bias, .input = {}, .output = {}};
  entry.groups = groups;
  if (tape_ == nullptr || (tape_->wanted && !tape_->wanted(entry))) {
    return back(y);
  }
  y = y.requires_grad() ? y : y.detach().requires_grad_(true);
  const bool alone = each == 1 && !solid;
  if (dilated || !alone) {  // what each place of it saw, as one column of an image of 1 x 1 filters
    const c10::NoGradGuard no_gradient;
    entry.input = images.places(seen_by_places(flat.detach(), weight.sizes().slice(2), stride, padding, dilation));
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
  entry.output = images.places(y);  // [B, out, places, 1]
  tape_->entries.push_back(std::move(entry));
  const auto& out = tape_->entries.back().output;
  auto apart = sizes;  // [examples, out, each, …]
  apart.front() = each;
  std::swap(apart[0], apart[1]);
  apart.insert(apart.begin(), examples);
  return back(out.view(apart).transpose(1, 2).flatten(0, 1));
}

at::Tensor LayerRunner::run_transposed(const ProgramLayer& layer, const Node& node, const torch::jit::Stack& stack,
                                       const at::Tensor& x) {
  const auto& weight = theta_.at(layer.weight);
  const auto sides = weight.dim() - 2;
  const auto of_each_side = [&](const char* name) {
    auto out = stack[static_cast<std::size_t>(node.argument(name))].toIntVector();
    out.resize(static_cast<std::size_t>(sides), out.at(0));
    return out;
  };
  const auto stride = of_each_side("stride"), padding = of_each_side("padding"), more = of_each_side("output_padding"),
             dilation = of_each_side("dilation");
  const auto groups = stack[static_cast<std::size_t>(node.argument("groups"))].toInt();
  refuse_additions(layer_module(layer.weight));
  const Images images(x, sides, examples_ != nullptr);
  const auto flat = images.all.flatten(0, 1);
  TapeEntry entry{.kind = TapeEntry::Kind::kConvolution, .weight = layer.weight, .bias = "", .input = {}, .output = {}};
  entry.transposed = true;
  entry.groups = groups;
  entry.kernel = entry.stride = {1, 1};
  entry.padding = {0, 0};
  at::Tensor y;
  if (tape_ == nullptr || (tape_->wanted && !tape_->wanted(entry))) {
    y = at::convolution(flat, weight, std::nullopt, stride, padding, dilation, /*transposed=*/true, more, groups);
  } else {  // at each place a product with the matrix, whose columns are then put where they belong
    const auto seen = images.places(flat);
    const auto shares = seen.squeeze(-1).unflatten(1, {groups, -1});  // [B, groups, in / groups, places]
    const auto filters = weight.flatten(1).unflatten(0, {groups, -1}).transpose(1, 2);
    const auto put = at::matmul(filters, shares).flatten(1, 2).unsqueeze(-1);
    entry.input = seen.detach();
    entry.output = put.requires_grad() ? put : put.detach().requires_grad_(true);
    tape_->entries.push_back(std::move(entry));
    const auto kernel = weight.sizes().slice(2);
    auto sizes = std::vector<std::int64_t>{images.examples(), groups * weight.size(1)};
    sizes.insert(sizes.end(), kernel.begin(), kernel.end());
    sizes.push_back(images.each());
    sizes.insert(sizes.end(), flat.sizes().begin() + 2, flat.sizes().end());
    y = put_together(tape_->entries.back().output.view(sizes), kernel, stride, padding, more, dilation)
            .transpose(1, 2)
            .flatten(0, 1);
  }
  if (!layer.bias.empty()) {
    const auto rows = y.movedim(1, -1);
    const auto flat_rows = rows.reshape({-1, rows.size(-1)});
    set_rows(flat_rows.size(0), flat_rows);
    y = scaled(theta_, "", layer.bias, flat_rows, tape_).view(rows.sizes()).movedim(-1, 1);
  }
  return images.back(y);
}

TensorList LayerRunner::run_recurrent(const ProgramLayer& layer, const Node& node, const torch::jit::Stack& stack,
                                      const at::Tensor& given) {
  const auto op = node.operation();
  const bool cell = op.ends_with("_cell"), lstm = op.starts_with("lstm"), gru = op.starts_with("gru");
  const auto flag = [&](const char* name) { return stack[static_cast<std::size_t>(node.argument(name))].toBool(); };
  const bool batch_first = !cell && flag("batch_first");
  const std::int64_t directions = !cell && flag("bidirectional") ? 2 : 1;
  const bool biased = cell ? layer.parameters.size() == 4 : flag("has_biases");
  const std::int64_t each = biased ? 4 : 2, cells = std::ssize(layer.parameters) / each;
  auto x = examples_ == nullptr ? given.unsqueeze(0) : given;
  const bool single = x.dim() == (cell ? 2 : 3);  // no batch within an example
  x = cell ? x.unsqueeze(-2) : x;
  x = single ? x.unsqueeze(1) : cell || batch_first ? x : x.transpose(1, 2);
  const auto examples = x.size(0), sequences = x.size(1), steps = x.size(2);  // [examples, sequences, steps, inputs]
  const auto state = [&](const at::Tensor& h) {                               // [cells, examples sequences, width]
    auto all = examples_ == nullptr ? physical(h).unsqueeze(0) : physical(h);
    all = cell ? all.unsqueeze(1) : all;
    all = single ? all.unsqueeze(2) : all;
    return all.transpose(0, 1).flatten(1, 2);
  };
  const auto& start = stack[static_cast<std::size_t>(node.argument("hx"))];
  const auto starts = start.isTensor() ? std::vector<at::Tensor>{start.toTensor()} : start.toTensorVector();
  const auto first_h = state(starts.at(0)), first_c = lstm ? state(starts.at(1)) : at::Tensor();
  TensorList last_h, last_c;
  for (std::int64_t k = 0; k < cells; k += directions) {
    TensorList sides;
    for (auto number = k; number < k + directions; ++number) {
      const auto* names = &layer.parameters[static_cast<std::size_t>(number * each)];
      const LinearNames of_input{names[0], biased ? names[2] : ""}, of_state{names[1], biased ? names[3] : ""};
      const auto rows = x.reshape({-1, x.size(-1)});
      set_rows(rows.size(0), rows);
      const auto seen = linear(theta_, of_input, rows, tape_).view({examples * sequences, steps, -1});
      auto h = first_h[number], c = lstm ? first_c[number] : at::Tensor();
      for (const auto* weight : {&theta_.at(names[0]), &theta_.at(names[1])}) {
        if (weight->size(0) != (lstm ? 4 : gru ? 3 : 1) * h.size(1)) {
          throw InvalidArgument(fmt::format("a cell of {} units with a weight of {} rows", h.size(1), weight->size(0)));
        }
      }
      set_rows(h.size(0), h);
      TensorList out(static_cast<std::size_t>(steps));
      for (std::int64_t step = 0; step < steps; ++step) {
        const auto t = number > k ? steps - 1 - step : step;
        const auto from_input = seen.select(1, t), from_state = linear(theta_, of_state, h, tape_);
        if (lstm) {
          const auto gates = (from_input + from_state).chunk(4, 1);  // input, forget, cell, output
          c = gates[1].sigmoid() * c + gates[0].sigmoid() * gates[2].tanh();
          h = gates[3].sigmoid() * c.tanh();
        } else if (gru) {
          const auto a = from_input.chunk(3, 1), b = from_state.chunk(3, 1);  // reset, update, new
          const auto fresh = (a[2] + (a[0] + b[0]).sigmoid() * b[2]).tanh();
          h = fresh + (a[1] + b[1]).sigmoid() * (h - fresh);
        } else {
          h = op.starts_with("rnn_tanh") ? (from_input + from_state).tanh() : (from_input + from_state).relu();
        }
        out[static_cast<std::size_t>(t)] = h;
      }
      sides.push_back(at::stack(out, 1));
      last_h.push_back(h);
      last_c.push_back(c);
    }
    x = at::cat(sides, 2).view({examples, sequences, steps, -1});
  }
  const auto in_place = [&](at::Tensor y) {  // of [examples, …]
    return examples_ == nullptr ? y.squeeze(0) : y;
  };
  const auto end = [&](const TensorList& states) {
    const auto all = at::stack(states).unflatten(1, {examples, sequences}).transpose(0, 1);
    const auto narrow = single ? all.squeeze(2) : all;
    return in_place(cell ? narrow.squeeze(1) : narrow);
  };
  TensorList out;
  if (!cell) {
    out.push_back(in_place(single ? x.squeeze(1) : batch_first ? x : x.transpose(1, 2)));
  }
  out.push_back(end(last_h));
  if (lstm) {
    out.push_back(end(last_c));
  }
  return out;
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
  TensorList out;
  switch (layer.form) {
    case ProgramLayer::Form::kLinear:
      out = {run_linear(layer, input())};
      break;
    case ProgramLayer::Form::kConvolution:
      out = {run_convolution(layer, node, stack, input())};
      break;
    case ProgramLayer::Form::kTransposed:
      out = {run_transposed(layer, node, stack, input())};
      break;
    case ProgramLayer::Form::kEmbedding:
      out = {run_embedding(layer, node, stack)};
      break;
    case ProgramLayer::Form::kNorm:
      out = {run_norm(layer, node, stack, run)};
      break;
    case ProgramLayer::Form::kRecurrent:
      out = run_recurrent(layer, node, stack, input());
      break;
  }
  stack.clear();
  for (const auto& value : out) {
    stack.emplace_back(seen(node.output_written ? value.clone() : value));
  }
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
