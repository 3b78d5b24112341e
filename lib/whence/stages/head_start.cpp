#include "whence/stages/head_start.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "whence/core/borrowed.h"
#include "whence/core/error.h"
#include "whence/models/tape.h"

namespace whence {
namespace {

struct RegressionOptions {
  double weight_decay = 0.01;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("weight-decay", self.weight_decay, kPositive, "of the head alone, while the regression is made");
  }
};

constexpr std::string_view kRegression = "regression";

/// The layer of a head that makes the model's output, where it is a linear one.
struct LastLayer {
  std::string weight, bias;  ///< No bias: empty.
  Dataset seen;              ///< The examples, with what the layer sees of them for inputs: [N, width].
};
std::optional<LastLayer> last_layer(const Objective& objective, const TensorList& theta, const TensorList& parent) {
  const auto& data = objective.data();
  const auto head = objective.model().head();
  LastLayer out;
  TensorList parts;
  for (std::int64_t begin = 0; begin < data.size(); begin += objective.batch_size()) {
    const auto end = std::min(data.size(), begin + objective.batch_size());
    Tape tape;
    tape.wanted = [&](const TapeEntry& entry) { return head.holds(entry.weight); };
    check_interruption(begin, data.size());
    const auto output = objective.output(theta, parent, data.batch(begin, end), &tape);
    if (tape.entries.empty()) {
      return std::nullopt;
    }
    const auto& last = tape.entries.back();
    if (last.kind != TapeEntry::Kind::kLinear || last.transposed || last.made_by || !at::equal(last.output, output)) {
      return std::nullopt;
    }
    out.weight = last.weight;
    out.bias = last.bias;
    parts.push_back(last.input);
  }
  Dataset::Contents contents;
  contents.inputs = at::cat(parts).cpu();
  contents.targets = data.targets();
  contents.ids = data.ids();
  contents.classes = data.classes();
  out.seen = Dataset(std::move(contents)).to(theta.front().scalar_type(), theta.front().device());
  return out;
}

}  // namespace

std::optional<double> parse_head_start(std::string_view spec) {
  const auto colon = spec.find(':');
  const auto name = spec.substr(0, colon);
  if (spec.empty() || spec == "random") {
    return std::nullopt;
  }
  if (name != kRegression) {
    throw InvalidArgument(fmt::format("head-start = \"{}\", expected random or regression[:weight-decay=X]", spec));
  }
  return parse<RegressionOptions>(colon == spec.npos ? std::string_view() : spec.substr(colon + 1), kRegression)
      .weight_decay;
}

void regress_head(Stage& stage, double weight_decay, const Progress& progress) {
  const auto& objective = stage.objective;
  const auto of_stage = objective.model().head();
  const auto trained = objective.trained().with(stage.theta);
  const auto head = of_stage.of(trained);
  if (head.empty() || objective.inner() != nullptr) {
    throw InvalidArgument(
        fmt::format("stage {}: head-start = \"regression\" is for a stage that trains a head, and "
                    "this one {}",
                    stage.name, head.empty() ? "has none" : "is primed"));
  }
  const auto body = stage.parent.empty() ? of_stage.body(trained) : objective.parent_layout().with(stage.parent);
  const Objective alone(borrowed(objective.model()), borrowed(objective.loss()), create<Tuning>("head"),
                        objective.data(), weight_decay, head, body, objective.batch_size());
  const auto minimise = [&](const Objective& of, const TensorList& from, const TensorList& parent) {
    TrainingState state{detach(from), 0, {}};
    create<Optimizer>("lbfgs:max-iterations=500,tolerance=1e-6")->minimise(of, parent, state, Random(0), progress);
    return detach(state.theta);
  };
  ParameterSet found;
  if (const auto last = last_layer(alone, head.values(), body.values())) {
    ParameterSet linear;
    linear.add("head.weight", head.at(last->weight));
    if (!last->bias.empty()) {
      linear.add("head.bias", head.at(last->bias));
    }
    const auto* model = last->bias.empty() ? "linear:bias=false" : "linear";
    const auto ended = minimise(Objective(create<Model>(model), borrowed(objective.loss()), create<Tuning>("full"),
                                          last->seen, weight_decay, linear, {}, objective.batch_size()),
                                linear.values(), {});
    found.add(last->weight, ended[0]);
    if (!last->bias.empty()) {
      found.add(last->bias, ended[1]);
    }
  } else {
    found = head.with(minimise(alone, head.values(), body.values()));
  }
  for (std::size_t i = 0; i < trained.size(); ++i) {
    if (const auto& name = trained.names()[i]; found.contains(name)) {
      stage.theta[i] = found.at(name);
    }
  }
}

}  // namespace whence
