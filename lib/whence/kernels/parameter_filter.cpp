#include "whence/kernels/parameter_filter.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/models/addition.h"
#include "whence/models/language_model.h"

namespace whence {
namespace {

struct NamedFilter {
  const char* word;
  bool (*keeps)(const FilteredParameter&);
};
constexpr NamedFilter kFilters[] = {
    {"all", [](const FilteredParameter&) { return true; }},
    {"no-embeddings", [](const FilteredParameter& p) { return !p.embedding; }},
    {"no-head", [](const FilteredParameter& p) { return !p.head; }},
    {"biases", [](const FilteredParameter& p) { return p.bias; }},
    {"tuning", [](const FilteredParameter& p) { return p.tuning; }},
    {"body", [](const FilteredParameter& p) { return !p.tuning && !p.head; }},
};

}  // namespace

ParameterFilter parse_parameter_filter(std::string_view words) {
  std::vector<bool (*)(const FilteredParameter&)> all;
  for (std::string_view rest = words;;) {
    const auto word = rest.substr(0, rest.find('+'));
    const auto* found = std::find_if(std::begin(kFilters), std::end(kFilters),
                                     [&](const NamedFilter& filter) { return filter.word == word; });
    if (found == std::end(kFilters)) {
      std::vector<std::string> known;
      for (const auto& filter : kFilters) {
        known.emplace_back(filter.word);
      }
      throw InvalidArgument(unknown_name("filter of parameters", word, known));
    }
    all.push_back(found->keeps);
    if (word.size() == rest.size()) {
      break;
    }
    rest.remove_prefix(word.size() + 1);
  }
  return [all](const FilteredParameter& parameter) {
    return std::all_of(all.begin(), all.end(), [&](const auto& keeps) { return keeps(parameter); });
  };
}

std::vector<FilteredParameter> kernel_parameters(const Objective& objective, const TensorList& theta,
                                                 const TensorList& parent) {
  Tape tape;
  {
    const at::NoGradGuard no_gradient;
    objective.output(detach(theta), detach(parent), objective.data().batch(0, 1), &tape);
  }
  const auto* language = dynamic_cast<const LanguageModel*>(&objective.model());
  std::vector<FilteredParameter> out;
  for (const auto& name : objective.trained().names()) {
    FilteredParameter parameter{name};
    parameter.tuning = is_added(name);
    parameter.head = objective.model().head().holds(name);
    for (const auto& entry : tape.entries) {
      const auto sources = weight_sources(entry);
      const bool weight = std::find(sources.begin(), sources.end(), name) != sources.end();
      parameter.bias = parameter.bias || entry.bias == name;
      parameter.embedding = parameter.embedding || (weight && entry.kind == TapeEntry::Kind::kEmbedding);
      const bool logits = language != nullptr && entry.kind == TapeEntry::Kind::kLinear &&
                          entry.output.size(1) == language->vocabulary();
      parameter.head = parameter.head || (logits && !parameter.tuning && (weight || entry.bias == name));
    }
    out.push_back(std::move(parameter));
  }
  return out;
}

std::vector<std::string> filtered_parameters(const Objective& objective, const TensorList& theta,
                                             const TensorList& parent, std::string_view words) {
  const auto keeps = parse_parameter_filter(words);
  const auto all = kernel_parameters(objective, theta, parent);
  std::vector<std::string> out;
  for (const auto& parameter : all) {
    if (keeps(parameter)) {
      out.push_back(parameter.name);
    }
  }
  if (out.empty()) {
    throw InvalidArgument(
        fmt::format("kernel: the filter {} keeps none of the {} parameters that the stage trains, "
                    "{} first among them",
                    words, all.size(), all.empty() ? "none" : all.front().name));
  }
  return out;
}

}  // namespace whence
