#include "whence/models/addition.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/core/rounding.h"

namespace whence {
namespace {

/// The weight as a function of `wanted`, some of its sources, which are leaves in algebra_type().
struct Made {
  at::Tensor weight;
  TensorList sources;
};
Made make(const ParameterSet& theta, const TapeEntry& entry, const std::vector<std::string>& wanted) {
  const auto names = entry.made_by->weight_sources();
  ParameterSet at;
  Made out;
  for (const auto& name : names) {
    const bool free = std::find(wanted.begin(), wanted.end(), name) != wanted.end();
    at.add(name, widened(theta.at(name).detach()).detach().requires_grad_(free));
  }
  for (const auto& name : wanted) {
    out.sources.push_back(at.at(name));
  }
  out.weight = entry.made_by->weight(at, entry);
  return out;
}

}  // namespace

std::string added_name(std::string_view module, std::string_view part) {
  return fmt::format("{}{}.{}", kAddedPrefix, module, part);
}

std::string_view layer_module(std::string_view weight) {
  constexpr std::string_view kWeight = ".weight";
  return weight.ends_with(kWeight) ? weight.substr(0, weight.size() - kWeight.size()) : weight;
}

at::Tensor Addition::before(const ParameterSet&, const TapeEntry&, const at::Tensor& x, Tape*) const { return x; }

at::Tensor Addition::after(const ParameterSet&, const TapeEntry&, const at::Tensor&, const at::Tensor& output,
                           Tape*) const {
  return output;
}

at::Tensor Addition::weight(const ParameterSet& theta, const TapeEntry& site) const { return theta.at(site.weight); }

Addition::Folded Addition::folded(const ParameterSet&) const {
  throw InvalidArgument("an addition that does not fold was asked for its folded weights");
}

const Prefix* prefix_at(const ParameterSet& theta, std::string_view module) {
  if (!theta.additions()) {
    return nullptr;
  }
  const auto found = theta.additions()->find(module);
  if (found == theta.additions()->end()) {
    return nullptr;
  }
  for (const auto& addition : found->second) {
    if (const auto* prefix = dynamic_cast<const Prefix*>(addition.get())) {
      return prefix;
    }
  }
  return nullptr;
}

std::int64_t prefix_length(const ParameterSet& theta) {
  if (theta.additions()) {
    for (const auto& [module, unused] : *theta.additions()) {
      if (const auto* prefix = prefix_at(theta, module)) {
        return prefix->length();
      }
    }
  }
  return 0;
}

std::string prompt_name(std::string_view module) { return added_name(module, "prompt"); }

ParameterSet in_batch(const ParameterSet& theta, const Batch& batch) {
  std::shared_ptr<Additions> changed;
  if (theta.additions()) {
    for (const auto& [module, here] : *theta.additions()) {
      for (std::size_t i = 0; i < here.size(); ++i) {
        if (auto own = here[i]->in_batch(batch)) {
          changed = changed ? changed : std::make_shared<Additions>(*theta.additions());
          changed->find(module)->second[i] = std::move(own);
        }
      }
    }
  }
  return changed ? theta.with_additions(std::move(changed)) : theta;
}

std::int64_t flat_directions(const ParameterSet& theta, bool decayed) {
  std::int64_t out = 0;
  for (const auto& [module, here] : theta.additions() ? *theta.additions() : Additions{}) {
    for (const auto& addition : here) {
      out += addition->flat_directions(theta, decayed);
    }
  }
  return out;
}

std::vector<std::string> weight_sources(const TapeEntry& entry) {
  return entry.made_by ? entry.made_by->weight_sources() : std::vector<std::string>{entry.weight};
}

at::Tensor push_to_weight(const ParameterSet& theta, const TapeEntry& entry, const Directions& directions) {
  if (!entry.made_by) {
    return directions.at(entry.weight);
  }
  const c10::AutoGradMode with_grad(true);
  const auto sources = entry.made_by->weight_sources();
  std::vector<std::string> wanted;
  for (const auto& name : directions.names()) {
    if (std::find(sources.begin(), sources.end(), name) != sources.end()) {
      wanted.push_back(name);
    }
  }
  const auto made = make(theta, entry, wanted);
  const auto count = directions.values().front().size(0);
  auto out = at::zeros(direction_shape(count, made.weight), made.weight.options().requires_grad(false));
  const auto cotangent = leaves({at::zeros_like(made.weight.detach())});
  // linear in the cotangent: its derivative is the push-forward
  const auto pulled = gradient(TensorList{made.weight}, made.sources, cotangent, true, true);
  for (std::int64_t k = 0; k < count; ++k) {
    TensorList one;
    for (const auto& name : wanted) {
      one.push_back(directions.at(name)[k].to(made.weight.scalar_type()));
    }
    out[k].copy_(gradient(pulled, cotangent, one, false, true)[0]);
  }
  return out;
}

Directions pull_from_weight(const ParameterSet& theta, const TapeEntry& entry, const at::Tensor& block,
                            const std::vector<std::string>& sources) {
  if (!entry.made_by) {
    return {{entry.weight, block}};
  }
  const c10::AutoGradMode with_grad(true);
  const auto made = make(theta, entry, sources);
  TensorList out;
  for (const auto& source : made.sources) {
    out.push_back(at::empty(direction_shape(block.size(0), source), block.options()));
  }
  for (std::int64_t k = 0; k < block.size(0); ++k) {
    const auto found =
        gradient(TensorList{made.weight}, made.sources, {block[k].to(made.weight.scalar_type())}, false, true);
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i][k].copy_(found[i]);
    }
  }
  Directions named;
  for (std::size_t i = 0; i < out.size(); ++i) {
    named.add(sources[i], out[i]);
  }
  return named;
}

}  // namespace whence
