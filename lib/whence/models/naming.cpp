#include "whence/models/naming.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "whence/core/error.h"

namespace whence {
namespace {

/// Tensors of one layer: those whose names share what is before the last dot.
struct Layer {
  std::string name;
  std::map<std::string, at::Tensor> parts;  // "weight", "bias"

  std::string shape() const {
    std::string out;
    for (const auto& [part, value] : parts) {
      out += fmt::format("{}{} [{}]", out.empty() ? "" : ", ", part, fmt::join(value.sizes(), ", "));
    }
    return out;
  }
};

std::pair<std::string, std::string> split_name(const std::string& name) {
  const auto dot = name.rfind('.');
  return dot == name.npos ? std::pair(std::string(), name) : std::pair(name.substr(0, dot), name.substr(dot + 1));
}

/// A name with its numbers taken out, and those numbers.
std::pair<std::string, std::vector<std::int64_t>> pattern_of(const std::string& name) {
  std::pair<std::string, std::vector<std::int64_t>> out;
  for (std::size_t at = 0; at < name.size();) {
    if (std::isdigit(static_cast<unsigned char>(name[at])) == 0) {
      out.first += name[at++];
      continue;
    }
    std::int64_t number = 0;
    for (; at < name.size() && std::isdigit(static_cast<unsigned char>(name[at])) != 0; ++at) {
      number = std::min<std::int64_t>(number * 10 + (name[at] - '0'), INT32_MAX);
    }
    out.first += '#';
    out.second.push_back(number);
  }
  return out;
}

/// In the order in which their names first appear.
std::vector<Layer> layers_of(const ParameterSet& set) {
  std::vector<Layer> out;
  for (std::size_t i = 0; i < set.size(); ++i) {
    const auto [layer, part] = split_name(set.names()[i]);
    auto found = std::find_if(out.begin(), out.end(), [&, layer = layer](const Layer& l) { return l.name == layer; });
    if (found == out.end()) {
      out.push_back({layer, {}});
      found = out.end() - 1;
    }
    found->parts[part] = set.values()[i];
  }
  return out;
}

/// By the numbers in their names: 2 before 10.
void sort_by_number(std::vector<Layer>& layers) {
  std::stable_sort(layers.begin(), layers.end(),
                   [](const Layer& a, const Layer& b) { return pattern_of(a.name) < pattern_of(b.name); });
}

std::string listed(const std::vector<Layer>& layers) {
  std::vector<std::string> out;
  for (const auto& layer : layers) {
    out.push_back(fmt::format("{}: {}", layer.name, layer.shape()));
  }
  return fmt::format("{}", fmt::join(out, "; "));
}

bool same_names(const ParameterSet& a, const ParameterSet& b) {
  return a.size() == b.size() &&
         std::all_of(b.names().begin(), b.names().end(), [&](const std::string& name) { return a.contains(name); });
}

/// The built-in model whose layers these are, as far as shapes tell; empty where none.
std::string spec_of(std::vector<Layer> layers) {
  sort_by_number(layers);
  std::vector<std::int64_t> filters, widths;
  std::int64_t kernel = 3;
  for (const auto& layer : layers) {
    const auto weight = layer.parts.find("weight");
    if (weight == layer.parts.end() || (weight->second.dim() != 2 && weight->second.dim() != 4) ||
        (weight->second.dim() == 4 && !widths.empty())) {
      return {};
    }
    const auto& w = weight->second;
    if (w.dim() == 2 && !widths.empty() && w.size(1) != widths.back()) {
      return {};
    }
    (w.dim() == 4 ? filters : widths).push_back(w.size(0));
    kernel = w.dim() == 4 ? w.size(2) : kernel;
  }
  if (widths.empty() || (!filters.empty() && widths.size() > 2)) {
    return {};
  }
  widths.pop_back();  // the head's
  if (!filters.empty()) {
    return fmt::format("convnet:channels={},kernel={}{}", fmt::join(filters, "/"), kernel,
                       widths.empty() ? "" : fmt::format(",dense={}", widths[0]));
  }
  return widths.empty() ? "linear" : fmt::format("mlp:widths={}", fmt::join(widths, "/"));
}

class Namer {
 public:
  Namer(const ParameterSet& expected, std::string where) : expected_(expected), where_(std::move(where)) {}

  /// What `rename` says; a layer's name stands for its tensors.
  ParameterSet renamed(const ParameterSet& found, const Renaming& rename) {
    std::set<std::string> used;
    ParameterSet out;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto& name = found.names()[i];
      const auto [layer, part] = split_name(name);
      auto to = name;
      if (rename.count(name) > 0) {
        used.insert(name);
        to = rename.at(name);
      } else if (rename.count(layer) > 0) {
        used.insert(layer);
        to = rename.at(layer) + "." + part;
      }
      if (to != name && !expected_.contains(to)) {
        throw DataError(fmt::format("{}: rename gives \"{}\" the name \"{}\": {}", where_, name, to,
                                    unknown_name("tensor", to, expected_.names())));
      }
      if (out.contains(to)) {
        throw DataError(fmt::format("{}: rename gives two tensors the name \"{}\"", where_, to));
      }
      out.add(to, found.values()[i]);
    }
    for (const auto& [from, to] : rename) {
      if (used.count(from) == 0) {
        throw DataError(fmt::format("{}: rename: {}", where_, unknown_name("tensor", from, found.names())));
      }
    }
    return out;
  }

  /// Without what all names begin with up to a dot, where they are then the expected ones; else empty.
  ParameterSet without_prefix(const ParameterSet& found) const {
    auto out = found;
    while (!out.empty()) {
      const auto& first = out.names().front();
      const auto prefix = first.substr(0, first.find('.') + 1);
      if (prefix.empty() || out.without(prefix).size() > 0) {
        return {};
      }
      ParameterSet shorter;
      for (std::size_t i = 0; i < out.size(); ++i) {
        shorter.add(out.names()[i].substr(prefix.size()), out.values()[i]);
      }
      out = std::move(shorter);
      if (same_names(expected_, out)) {
        return out;
      }
    }
    return {};
  }

  /// Layer by layer; says which went where.
  NamedTensors matched(const ParameterSet& found) const {
    const auto wanted = layers_of(expected_);
    auto held = layers_of(found);
    sort_by_number(held);
    const auto named = [](const std::vector<Layer>& layers, const Layer& like) {
      return std::find_if(layers.begin(), layers.end(),
                          [&](const Layer& layer) { return layer.name == like.name && layer.shape() == like.shape(); });
    };
    std::map<std::string, std::vector<std::size_t>> by_shape, wanted_by_shape;  // places, without the named ones
    for (std::size_t i = 0; i < held.size(); ++i) {
      if (named(wanted, held[i]) == wanted.end()) {
        by_shape[held[i].shape()].push_back(i);
      }
    }
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (named(held, wanted[i]) == held.end()) {
        wanted_by_shape[wanted[i].shape()].push_back(i);
      }
    }
    for (const auto& [shape, places] : wanted_by_shape) {
      if (by_shape[shape].size() != places.size()) {
        fail_shapes(wanted, held);
      }
      check_order(wanted, places, held, by_shape[shape]);
    }
    if (held.size() != wanted.size()) {
      fail_shapes(wanted, held);
    }
    std::map<std::string, std::size_t> taken;
    std::vector<std::string> moves;
    ParameterSet out;
    for (const auto& layer : wanted) {
      const auto own = named(held, layer);
      const auto& from = own != held.end() ? *own : held[by_shape.at(layer.shape())[taken[layer.shape()]++]];
      for (const auto& [part, value] : from.parts) {
        out.add(layer.name + "." + part, value);
      }
      if (from.name != layer.name) {
        moves.push_back(fmt::format("{} is {}", from.name.empty() ? "(no name)" : from.name, layer.name));
      }
    }
    return {std::move(out), fmt::format("{}: matched in order and by shape: {}; rename = {{ … }} in the stage says "
                                        "otherwise",
                                        where_, fmt::join(moves, ", "))};
  }

 private:
  /// Several layers of one shape must be told apart by numbers in otherwise equal names.
  void check_order(const std::vector<Layer>& wanted, const std::vector<std::size_t>& wanted_places,
                   const std::vector<Layer>& held, const std::vector<std::size_t>& held_places) const {
    std::set<std::string> patterns;
    std::vector<std::string> names, lines;
    for (std::size_t i = 0; i < held_places.size(); ++i) {
      const auto& name = held[held_places[i]].name;
      patterns.insert(pattern_of(name).first);
      names.push_back(name);
      lines.push_back(fmt::format("\"{}\" = \"{}\"", name, wanted[wanted_places[i]].name));
    }
    if (patterns.size() > 1) {
      throw DataError(
          fmt::format("{}: the layers {} have one shape ({}), and their names do not say which comes first: "
                      "say it in the stage, as rename = {{ {} }}",
                      where_, fmt::join(names, ", "), held[held_places[0]].shape(), fmt::join(lines, ", ")));
    }
  }

  [[noreturn]] void fail_shapes(const std::vector<Layer>& wanted, const std::vector<Layer>& held) const {
    const auto spec = spec_of(held);
    throw DataError(fmt::format(
        "{}: its layers ({}) are not those of the model ({}){}", where_, listed(held), listed(wanted),
        spec.empty() ? ": say which is which in the stage, as rename = { \"fc1\" = \"body.0\" }"
                     : fmt::format("; they look like [model] spec = \"{}\" with the activation that they were trained "
                                   "with",
                                   spec)));
  }

  const ParameterSet& expected_;
  std::string where_;
};

}  // namespace

NamedTensors with_expected_names(const ParameterSet& expected, const ParameterSet& found, const Renaming& rename,
                                 bool by_shape, const std::string& where) {
  Namer namer(expected, where);
  const auto renamed = rename.empty() ? found : namer.renamed(found, rename);
  if (same_names(expected, renamed)) {
    return {renamed, {}};
  }
  if (auto out = namer.without_prefix(renamed); !out.empty()) {
    const auto size = renamed.names().front().size() - out.names().front().size();
    return {std::move(out),
            fmt::format("{}: names are read without \"{}\"", where, renamed.names().front().substr(0, size))};
  }
  const bool some_known = std::any_of(renamed.names().begin(), renamed.names().end(),
                                      [&](const std::string& name) { return expected.contains(name); });
  return by_shape && (!rename.empty() || !some_known) ? namer.matched(renamed) : NamedTensors{renamed, {}};
}

}  // namespace whence
