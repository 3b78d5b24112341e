#include "whence/tuning/detail/added_tuning.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "whence/core/memory.h"

namespace whence::detail {
namespace {

/// The layers of the body, each once, in the order of the forward pass.
std::vector<Target> body_layers(const TuningStart& start) {
  std::vector<Target> out;
  auto tape = start.pass();
  for (auto& entry : tape.entries) {
    const auto name = entry.weight;
    const bool again = std::any_of(out.begin(), out.end(), [&](const Target& t) { return t.site.weight == name; });
    if (again || start.head.holds(name) || is_added(name) || !start.parent.contains(name)) {
      continue;
    }
    entry.input = entry.output = at::Tensor();
    entry.rows = {};
    out.push_back({std::string(layer_module(name)), std::move(entry), start.parent.at(name)});
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

std::int64_t flat_in_product(std::int64_t rank, std::int64_t outputs, std::int64_t inputs, bool decayed) {
  const auto k = std::min({rank, outputs, inputs});
  const auto rotations = [](std::int64_t n) { return n * (n - 1) / 2; };
  return decayed ? rotations(rank) - rotations(rank - k) : rank * (outputs + inputs) - k * (outputs + inputs - k);
}

void check_size(std::string_view tuning, std::string_view option, std::int64_t value, double numbers) {
  const double bytes = numbers * sizeof(double), most = most_bytes();  // start() makes them in float64
  if (bytes > most) {
    throw InvalidArgument(fmt::format(
        "{}: option {} = {}, expected at most {:.0f}, with which what is trained fills the memory of {:.1f} GiB",
        tuning, option, value, std::floor(static_cast<double>(value) * most / bytes), most / (1 << 30)));
  }
}

void check_ranks(std::string_view tuning, const std::vector<Target>& chosen,
                 const std::function<std::int64_t(const Target&)>& rank) {
  constexpr std::int64_t kSmallRank = 64;  // which costs little anywhere, so that defaults do for small layers
  double numbers = 0;
  std::int64_t largest = 1;
  for (const auto& target : chosen) {
    const auto r = rank(target), most = std::max({target.outputs(), target.inputs(), kSmallRank});
    if (r > most) {
      throw InvalidArgument(fmt::format("{}: option rank = {}, expected at most {} at {}, of {} x {}", tuning, r, most,
                                        target.module, target.outputs(), target.inputs()));
    }
    numbers += static_cast<double>(r) * static_cast<double>(target.inputs() + target.outputs());
    largest = std::max(largest, r);
  }
  check_size(tuning, "rank", largest, numbers);
}

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

std::vector<std::pair<std::string, double>> numbers_of_layers(std::string_view tuning, std::string_view option,
                                                              std::string_view list) {
  std::vector<std::pair<std::string, double>> out;
  for (const auto& word : split(list, '+')) {
    const auto colon = std::min(word.rfind(':'), word.size());
    double value = 0;
    const auto* end = word.data() + word.size();
    const auto [stop, error] = std::from_chars(word.data() + std::min(colon + 1, word.size()), end, value);
    if (error != std::errc() || stop != end || !(value > 0) || !std::isfinite(value)) {
      throw InvalidArgument(fmt::format("{}: option {} = {}, expected LAYER:NUMBER with a number > 0, joined by +",
                                        tuning, option, word));
    }
    out.emplace_back(word.substr(0, colon), value);
  }
  return out;
}

namespace {

/// The parameters of a body that `also` names, as they are.
ParameterSet trained_whole(std::string_view tuning, std::string_view also, const TuningStart& begin) {
  ParameterSet out;
  for (const auto& word : split(also, '+')) {
    bool any = false;
    std::string of_head;
    for (const auto& name : begin.fresh.names()) {
      if (!is_among(name, word)) {
        continue;
      }
      if (!begin.parent.contains(name)) {
        of_head = name;
        continue;
      }
      any = true;
      if (!out.contains(name)) {
        out.add(name, begin.parent.at(name));
      }
    }
    if (!any && !of_head.empty()) {
      throw InvalidArgument(fmt::format(
          "{}: also = {} means {} of the stage's head, which is trained anyway: leave it out", tuning, word, of_head));
    }
    if (!any) {
      throw InvalidArgument(
          fmt::format("{}: {}", tuning, unknown_name("parameter among also", word, begin.parent.names())));
    }
  }
  return out;
}

}  // namespace

ParameterSet InPlaceTuning::merge(const ParameterSet& parent, const ParameterSet& tuned) const {
  auto values = parent.values();
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (tuned.contains(parent.names()[i])) {
      values[i] = tuned.at(parent.names()[i]);
    }
  }
  return parent.with(std::move(values)).join(tuned.without(parent).with_additions(tuned.additions()));
}

at::Tensor InPlaceTuning::penalty(const ParameterSet& parent, const ParameterSet& tuned, double weight_decay) const {
  auto total = at::zeros({}, tuned.values().front().options());
  for (const auto& name : tuned.names()) {
    total = total + 0.5 * weight_decay * squared_distance(parent, tuned, name);
  }
  return total;
}

at::Tensor InPlaceTuning::squared_distance(const ParameterSet& parent, const ParameterSet& tuned,
                                           const std::string& name) const {
  const auto& value = tuned.at(name);
  return (parent.contains(name) ? value - parent.at(name) : value).square().sum();
}

ParameterSet AddedTuning::trainable(const TuningStart& begin, const Random& random) const {
  if (begin.parent.empty()) {
    throw InvalidArgument(fmt::format(
        "{}: it adds to a body that it leaves as it is, and needs a stage before it that hands one on", name()));
  }
  if (targets().empty()) {
    throw InvalidArgument(fmt::format("{}: targets is empty, expected {} or layers, a+b", name(), kAllTargets));
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
  auto out = begin.head.of(begin.fresh).without(begin.parent).join(trained_whole(name(), also(), begin));
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
    auto shape = target;
    shape.weight = target.weight.to(at::kMeta);  // an addition outlives the values
    additions[target.module].push_back(addition(shape));
    check_weight_is_free(name(), target, additions[target.module].back(), begin.parent);
  }
  return out.with_additions(std::make_shared<const Additions>(std::move(additions)));
}

ParameterSet AddedTuning::hand_on(const Head&, const ParameterSet& parent, const ParameterSet& tuned) const {
  const auto whole = merge(parent, tuned);
  TensorList values;
  for (const auto& name : parent.names()) {
    values.push_back(whole.at(name));
  }
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
        if (layer_module(parent.names()[i]) == module) {
          values[i] = folded.weight;
        } else if (parent.names()[i] == module + ".bias" && folded.bias.defined()) {
          values[i] = folded.bias;
        }
      }
    }
    if (kept.count(module) > 0) {
      beside = beside.join(tuned.select(added_name(module, "")));
    }
  }
  auto out = parent.with(std::move(values));
  return kept.empty() ? out : out.join(beside.with_additions(std::make_shared<const Additions>(std::move(kept))));
}

at::Tensor AddedTuning::squared_distance(const ParameterSet& parent, const ParameterSet& tuned,
                                         const std::string& name) const {
  return is_added(name) ? (tuned.at(name) - neutral(name)).square().sum()
                        : InPlaceTuning::squared_distance(parent, tuned, name);
}

}  // namespace whence::detail
