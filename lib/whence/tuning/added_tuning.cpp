#include "whence/tuning/detail/added_tuning.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace whence::detail {
namespace {

constexpr std::string_view kTuning = "tuning.";

/// The layers of the body, each once, in the order of the forward pass.
std::vector<Target> body_layers(const TuningStart& start) {
  std::vector<Target> out;
  auto tape = start.pass();
  for (auto& entry : tape.entries) {
    const auto name = entry.weight;
    const bool again = std::any_of(out.begin(), out.end(), [&](const Target& t) { return t.site.weight == name; });
    if (again || start.head.holds(name) || name.starts_with(kTuning) || !start.parent.contains(name)) {
      continue;
    }
    constexpr std::string_view kWeight = ".weight";
    auto module = name.ends_with(kWeight) ? name.substr(0, name.size() - kWeight.size()) : name;
    entry.input = entry.output = at::Tensor();
    out.push_back({std::move(module), std::move(entry), start.parent.at(name)});
  }
  return out;
}

/// The words between the letters `by`.
std::vector<std::string> split(std::string_view text, char by) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const auto end = std::min(text.find(by), text.size());
    out.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(text.size(), end + 1));
  }
  return out;
}

std::vector<std::string> modules_of(const std::vector<Target>& layers) {
  std::vector<std::string> out;
  for (const auto& layer : layers) {
    out.push_back(layer.module);
  }
  return out;
}

bool makes_weight(const std::shared_ptr<const Addition>& addition) { return !addition->weight_sources().empty(); }

/// A weight that a stage before makes of the layer's own can neither be made again nor have anything folded into it.
void check_weight_is_free(std::string_view name, const Target& target, const std::shared_ptr<const Addition>& added,
                          const ParameterSet& parent) {
  if (!parent.additions() || !(added->folds() || makes_weight(added))) {
    return;
  }
  const auto found = parent.additions()->find(target.module);
  if (found != parent.additions()->end() && std::any_of(found->second.begin(), found->second.end(), makes_weight)) {
    throw InvalidArgument(
        fmt::format("{}: a stage before changes the weight of {} and, as the layer has no bias, could not fold that "
                    "into it: leave it out of targets",
                    name, target.module));
  }
}

}  // namespace

bool is_among(std::string_view module, std::string_view names) {
  const auto words = split(names, '+');
  return std::any_of(words.begin(), words.end(), [&](const std::string& name) {
    return module == name || (module.ends_with(name) && module[module.size() - name.size() - 1] == '.');
  });
}

std::vector<Target> named_layers(std::string_view tuning, std::string_view option, std::string_view names,
                                 const std::vector<Target>& layers) {
  std::vector<Target> out;
  for (const auto& word : split(names, '+')) {
    bool any = false;
    for (const auto& layer : layers) {
      const bool again = std::any_of(out.begin(), out.end(), [&](const Target& t) { return t.module == layer.module; });
      const bool meant = is_among(layer.module, word);
      any = any || meant;
      if (meant && !again) {
        out.push_back(layer);
      }
    }
    if (!any) {
      throw InvalidArgument(
          fmt::format("{}: {}", tuning, unknown_name(fmt::format("layer among {}", option), word, modules_of(layers))));
    }
  }
  return out;
}

ParameterSet AddedTuning::trainable(const TuningStart& begin, const Random& random) const {
  if (begin.parent.empty()) {
    throw InvalidArgument(fmt::format(
        "{}: it adds to a body that it leaves as it is, and needs a stage before it that hands one on", name()));
  }
  const auto layers = body_layers(begin);
  std::vector<Target> chosen;
  if (targets() == kAllTargets) {
    std::copy_if(layers.begin(), layers.end(), std::back_inserter(chosen),
                 [&](const Target& t) { return fits(t.site); });
    chosen = all(std::move(chosen));
    if (chosen.empty()) {
      throw InvalidArgument(fmt::format("{}: no {} in the body, whose layers are {}", name(), fitting(),
                                        fmt::join(modules_of(layers), ", ")));
    }
  } else {
    chosen = named_layers(name(), "targets", targets(), layers);
    for (const auto& layer : chosen) {
      if (!fits(layer.site)) {
        throw InvalidArgument(
            fmt::format("{}: targets = {}, but {} is no {}", name(), targets(), layer.module, fitting()));
      }
    }
  }
  check(chosen);
  auto out = begin.head.of(begin.fresh).without(begin.parent);
  const auto options = begin.fresh.values().front().options();
  Additions additions;
  for (const auto& target : chosen) {
    const auto added = start(target, random.stream(target.qualified(name())));
    for (std::size_t i = 0; i < added.size(); ++i) {
      const auto full = target.qualified(added.names()[i]);
      if (begin.parent.contains(full)) {
        throw InvalidArgument(fmt::format("{}: a stage before has added {} already, and hands it on", name(), full));
      }
      out.add(full, added.values()[i].to(options));
    }
    additions[target.module].push_back(addition(target));
    check_weight_is_free(name(), target, additions[target.module].back(), begin.parent);
  }
  return out.with_additions(std::make_shared<const Additions>(std::move(additions)));
}

ParameterSet AddedTuning::hand_on(const Head&, const ParameterSet& parent, const ParameterSet& tuned) const {
  const auto whole = merge(parent, tuned);
  auto values = parent.values();
  ParameterSet beside;
  Additions kept;
  for (const auto& [module, here] : *tuned.additions()) {
    for (const auto& addition : here) {
      if (!addition->folds()) {
        kept[module].push_back(addition);
        continue;
      }
      const auto folded = addition->folded(whole);
      for (std::size_t i = 0; i < parent.size(); ++i) {
        if (parent.names()[i] == module + ".weight" || parent.names()[i] == module) {
          values[i] = folded.weight;
        } else if (parent.names()[i] == module + ".bias" && folded.bias.defined()) {
          values[i] = folded.bias;
        }
      }
    }
    if (kept.count(module) > 0) {
      beside = beside.join(tuned.select(fmt::format("{}{}.", kTuning, module)));
    }
  }
  auto out = parent.with(std::move(values));
  return kept.empty() ? out : out.join(beside.with_additions(std::make_shared<const Additions>(std::move(kept))));
}

at::Tensor AddedTuning::squared_distance(const ParameterSet&, const ParameterSet& tuned,
                                         const std::string& name) const {
  return (tuned.at(name) - neutral(name)).square().sum();
}

at::Tensor AddedTuning::penalty(const ParameterSet& parent, const ParameterSet& tuned, double weight_decay) const {
  auto total = at::zeros({}, tuned.values().front().options());
  for (std::size_t i = 0; i < tuned.size(); ++i) {
    const auto& named = tuned.names()[i];
    const auto squared =
        named.starts_with(kTuning) ? squared_distance(parent, tuned, named) : tuned.values()[i].square().sum();
    total = total + 0.5 * weight_decay * squared;
  }
  return total;
}

}  // namespace whence::detail
