#include "whence/curvature/detail/layer_layout.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "whence/models/addition.h"

namespace whence::detail {
namespace {

/// The layer's weights in x [K, P] as a view [K, outputs, inputs].
at::Tensor weights_of(const LayerLayout::Layer& layer, const at::Tensor& x) {
  const auto part = x.narrow(1, layer.weight, layer.outputs * layer.inputs);
  if (layer.transposed) {
    return part.unflatten(1, {layer.inputs, layer.outputs}).transpose(1, 2);
  }
  return part.unflatten(1, {layer.outputs, layer.inputs});
}

}  // namespace

std::optional<LayerLayout> LayerLayout::of(const Objective& objective, const ParameterSet& merged,
                                           const std::vector<std::string>& names, const TensorList& values,
                                           Beside beside, std::int64_t widest) {
  Tape tape;
  const auto batch = objective.data().batch(0, 1);
  const auto output = objective.model().output(merged.with(detach(merged.values())), batch, &tape);
  if (output.dim() != 2) {
    return std::nullopt;
  }
  std::set<std::string> tied;                   // matrices that the forward pass uses in more than one way
  std::set<std::string> with_biases;            // those that it adds one bias to here, and another or none there
  std::map<std::string, const TapeEntry*> met;  // the first use
  for (const auto& entry : tape.entries) {
    const auto& first = *met.emplace(entry.weight, &entry).first->second;
    if (first.multiplies() != entry.multiplies() || first.transposed != entry.transposed) {
      tied.insert(entry.weight);
    }
    if (first.bias != entry.bias) {
      with_biases.insert(entry.weight);
    }
  }
  LayerLayout out;
  out.beside_ = beside;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto& name = names[i];
    const auto entry = std::find_if(tape.entries.begin(), tape.entries.end(), [&](const TapeEntry& e) {
      const auto sources = weight_sources(e);
      return e.bias == name || std::find(sources.begin(), sources.end(), name) != sources.end();
    });
    if (entry == tape.entries.end() || !merged.contains(name) || merged.at(name).data_ptr() != values[i].data_ptr()) {
      return std::nullopt;
    }
    const bool source = entry->made_by && entry->bias != name;
    // a bias alone, one of several of a weight, or what a weight is made of
    bool row = entry->weight.empty() || source || (entry->bias == name && with_biases.count(entry->weight) > 0);
    bool diagonal = false;
    if (!row) {
      const auto& weight = merged.at(entry->weight);
      const auto side =
          weight.dim() > 1 ? std::max(weight.size(0) / entry->groups, weight.numel() / weight.size(0)) : 0;
      diagonal = tied.count(entry->weight) > 0 || (beside == Beside::kDiagonal && side > widest);
      row = !diagonal && !entry->multiplies();
    }
    if (row || diagonal) {
      if (beside == Beside::kNothing || (diagonal && beside == Beside::kRows)) {
        return std::nullopt;
      }
      out.others_.push_back({name, offset, values[i].numel()});
      offset += values[i].numel();
      continue;
    }
    const auto& weight = merged.at(entry->weight);
    auto layer = std::find_if(out.layers_.begin(), out.layers_.end(),
                              [&](const Layer& l) { return l.weight_name == entry->weight; });
    if (layer == out.layers_.end()) {
      for (std::int64_t group = 0; group < entry->groups; ++group) {
        const auto number = entry->groups > 1 ? fmt::format("[{}]", group) : std::string();
        out.layers_.push_back({.name = entry->weight + number, .weight_name = entry->weight, .group = group});
      }
      layer = out.layers_.end() - entry->groups;
    }
    for (std::int64_t group = 0; group < entry->groups; ++group, ++layer) {
      layer->transposed = entry->transposed;
      layer->outputs = entry->outputs(weight);
      const auto share = values[i].numel() / entry->groups;
      if (name == entry->weight) {
        layer->weight = offset + group * share;
        layer->inputs = share / layer->outputs;
      } else {
        layer->bias = offset + group * share;
      }
    }
    offset += values[i].numel();
  }
  out.entries_ = offset;
  return out;
}

at::Tensor LayerLayout::gather(const Layer& layer, const at::Tensor& x) {
  TensorList parts;
  if (layer.weight >= 0) {
    parts.push_back(weights_of(layer, x));
  }
  if (layer.bias >= 0) {
    parts.push_back(x.narrow(1, layer.bias, layer.outputs).unsqueeze(2));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 2);
}

void LayerLayout::add(const Layer& layer, const at::Tensor& part, at::Tensor& out) {
  if (layer.weight >= 0) {
    weights_of(layer, out).add_(part.narrow(2, 0, layer.inputs));
  }
  if (layer.bias >= 0) {
    out.narrow(1, layer.bias, layer.outputs).add_(part.select(2, layer.inputs));
  }
}

std::string outside_layers(const CurvaturePoint& point, LayerLayout::Beside beside, std::int64_t widest) {
  const auto& objective = point.objective;
  if (objective.inner() != nullptr) {
    return "what a primed stage trains, which goes through the model once a step";
  }
  const auto& names = objective.trained().names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!LayerLayout::of(objective, objective.merge(point.theta, point.parent), {names[i]}, {point.theta[i]}, beside,
                         widest)) {
      return names[i];
    }
  }
  return "a part of what the stage trains";
}

std::optional<LayerLayout> trained_layout(const CurvaturePoint& point, LayerLayout::Beside beside,
                                          std::int64_t widest) {
  const auto& objective = point.objective;
  if (objective.inner() != nullptr) {
    return std::nullopt;  // what is trained goes through the model once a step
  }
  return LayerLayout::of(objective, objective.merge(point.theta, point.parent), objective.trained().names(),
                         point.theta, beside, widest);
}

std::optional<LayerLayout> parent_layout(const CurvaturePoint& point) {
  const auto& objective = point.objective;
  const auto& before = objective.parent_layout();
  if (objective.tuning().merge_uses_parent() && before.without(objective.trained()).size() < before.size()) {
    return std::nullopt;  // a layer is made of what is trained in place of the parent's
  }
  return LayerLayout::of(objective, objective.merge(point.theta, point.parent), objective.parent_layout().names(),
                         point.parent, LayerLayout::Beside::kRows);
}

}  // namespace whence::detail

namespace whence {

bool covered_by_layers(const CurvaturePoint& point) {
  return point.objective.has_gauss_newton() && detail::trained_layout(point).has_value();
}

bool has_rows(const CurvaturePoint& point) {
  return detail::trained_layout(point, detail::LayerLayout::Beside::kRows).has_value();
}

}  // namespace whence
