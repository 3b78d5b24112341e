#include <algorithm>
#include <set>

#include "whence/models/exported/detail/layers.h"

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
  if (op == "permute") {
    const auto& dims = node.inputs[1];
    const auto value = dims.reads().empty() ? dims.value({}, {}, &node.schema->arguments()[1]) : c10::IValue();
    return value.isIntList() && value.toIntVector() == std::vector<std::int64_t>{1, 0};
  }
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
  const bool either = op == "convolution";  // as run_decompositions() writes both
  if (op == "conv1d" || op == "conv2d" || op == "conv3d" || (either && is_fixed(node, "transposed", 0))) {
    return ProgramLayer{Form::kConvolution, "", "", false, place("input"), place("weight"), place("bias")};
  }
  if (op.starts_with("conv_transpose") || (either && is_fixed(node, "transposed", 1))) {
    return ProgramLayer{Form::kTransposed, "", "", false, place("input"), place("weight"), place("bias")};
  }
  if (op == "embedding" && is_fixed(node, "scale_grad_by_freq", 0)) {
    return ProgramLayer{Form::kEmbedding, "", "", false, place("indices"), place("weight"), -1};
  }
  if (op == "layer_norm" || op == "batch_norm" || op == "group_norm" || op == "rms_norm" || op == "instance_norm") {
    return ProgramLayer{Form::kNorm, "", "", false, place("input"), place("weight"), place("bias")};
  }
  return std::nullopt;
}

/// The slots of a recurrent node's parameters: weights of inputs and of states, then their biases, of each layer and
/// direction. Empty for any other node, and for one whose cells have more than that (projections).
std::vector<int> recurrent_slots(const Node& node) {
  const auto op = node.operation();
  const bool cell = op.ends_with("_cell");
  const auto kind = cell ? op.substr(0, op.size() - 5) : op;
  if (node.schema == nullptr || (kind != "lstm" && kind != "gru" && kind != "rnn_tanh" && kind != "rnn_relu")) {
    return {};
  }
  std::vector<int> out;
  const auto add = [&](const char* name) {
    const auto slots = node.inputs[static_cast<std::size_t>(node.argument(name))].reads();
    out.insert(out.end(), slots.begin(), slots.end());
  };
  if (cell) {
    for (const auto* name : {"w_ih", "w_hh", "b_ih", "b_hh"}) {
      add(name);
    }
    return out.size() == 2 || out.size() == 4 ? out : std::vector<int>();
  }
  if (node.argument("batch_first") < 0) {  // packed sequences
    return {};
  }
  add("params");
  const auto fixed = [&](const char* name) {
    const auto& operand = node.inputs[static_cast<std::size_t>(node.argument(name))];
    return operand.slot() < 0 && operand.constant().isScalar() ? operand.constant().toScalar().toLong() : -1;
  };
  const auto cells = fixed("num_layers") * (fixed("bidirectional") == 1 ? 2 : 1);
  const auto each = fixed("has_biases") == 1 ? 4 : 2;
  return cells > 0 && std::ssize(out) % each == 0 && std::ssize(out) / each == cells ? out : std::vector<int>();
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
    if (const auto slots = recurrent_slots(node); !slots.empty()) {
      ProgramLayer layer{.form = ProgramLayer::Form::kRecurrent, .input = node.argument("input")};
      for (const auto slot : slots) {
        if (const auto found = sources.find(slot); found != sources.end() && !found->second.flipped) {
          layer.parameters.push_back(found->second.name);
        }
      }
      if (layer.parameters.size() == slots.size()) {
        for (const auto& input : node.inputs) {  // a state that is a parameter
          for (const auto slot : input.reads()) {
            if (sources.contains(slot) && std::find(slots.begin(), slots.end(), slot) == slots.end()) {
              others.insert(sources.at(slot).name);
            }
          }
        }
        out.layers.emplace(&node, std::move(layer));
        continue;
      }
    }
    auto layer = form_of(node);
    const auto* weight = layer ? source_at(layer->weight_place) : nullptr;
    const auto* bias = layer ? source_at(layer->bias_place) : nullptr;
    const bool has_bias =
        layer && layer->bias_place >= 0 && (node.inputs[static_cast<std::size_t>(layer->bias_place)].slot() >= 0);
    const bool turnable = layer && layer->form == ProgramLayer::Form::kLinear;
    const auto dims = weight == nullptr ? 0 : theta.at(weight->name).dim();
    const bool filters =
        layer && (layer->form == ProgramLayer::Form::kConvolution || layer->form == ProgramLayer::Form::kTransposed);
    const bool fits = weight != nullptr && (!turnable || dims == 2) && (!filters || (dims >= 3 && dims <= 5));
    if (fits && (!has_bias || (bias != nullptr && !bias->flipped)) && (turnable || !weight->flipped) &&
        source_at(layer->input) == nullptr) {
      layer->weight = weight->name;
      layer->bias = bias == nullptr ? "" : bias->name;
      layer->transposed = layer->transposed != weight->flipped;
      layer->parameters = {layer->weight};
      if (!layer->bias.empty()) {
        layer->parameters.push_back(layer->bias);
      }
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
      const auto& names = layer->second.parameters;
      if (std::any_of(names.begin(), names.end(), [&](const std::string& name) { return others.count(name) > 0; })) {
        others.insert(names.begin(), names.end());
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

}  // namespace whence::detail
