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

std::vector<std::string> split(std::string_view text, char by) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const auto end = std::min(text.find(by), text.size());
    out.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(text.size(), end + 1));
  }
  return out;
}

/// Whether a module is meant by a name: it is it, or ends in it.
bool is_named(std::string_view module, std::string_view name) {
  return module == name || (module.ends_with(name) && module[module.size() - name.size() - 1] == '.');
}

std::vector<std::string> modules_of(const std::vector<Target>& layers) {
  std::vector<std::string> out;
  for (const auto& layer : layers) {
    out.push_back(layer.module);
  }
  return out;
}

}  // namespace

ParameterSet AddedTuning::trainable(const TuningStart& begin, const Random& random) const {
  if (begin.parent.empty()) {
    throw InvalidArgument(fmt::format(
        "{}: it adds to a body that it leaves as it is, and needs a stage before it that hands one on", name()));
  }
  const auto layers = body_layers(begin);
  std::vector<Target> chosen;
  if (targets() == kAllTargets) {
    std::copy_if(layers.begin(), layers.end(), std::back_inserter(chosen),
                 [&](const Target& t) { return among_all(t.site); });
    if (chosen.empty()) {
      throw InvalidArgument(fmt::format("{}: no {} in the body, whose layers are {}", name(), fitting(),
                                        fmt::join(modules_of(layers), ", ")));
    }
  } else {
    for (const auto& word : split(targets(), '+')) {
      const auto before = chosen.size();
      for (const auto& layer : layers) {
        const bool new_one =
            std::none_of(chosen.begin(), chosen.end(), [&](const Target& t) { return t.module == layer.module; });
        if (!is_named(layer.module, word) || !new_one) {
          continue;
        }
        if (!fits(layer.site)) {
          throw InvalidArgument(
              fmt::format("{}: targets = {}, but {} is no {}", name(), targets(), layer.module, fitting()));
        }
        chosen.push_back(layer);
      }
      if (chosen.size() == before) {
        throw InvalidArgument(
            fmt::format("{}: {}", name(), unknown_name("layer among targets", word, modules_of(layers))));
      }
    }
  }
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

at::Tensor AddedTuning::penalty(const ParameterSet&, const ParameterSet& tuned, double weight_decay) const {
  auto total = at::zeros({}, tuned.values().front().options());
  for (std::size_t i = 0; i < tuned.size(); ++i) {
    const auto& named = tuned.names()[i];
    const double middle = named.starts_with(kTuning) ? neutral(named) : 0;
    total = total + 0.5 * weight_decay * (tuned.values()[i] - middle).square().sum();
  }
  return total;
}

}  // namespace whence::detail
