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

/// The examples with what the head sees of them for inputs, [N, width], where it is one linear layer, of a weight and a
/// bias, that makes the model's output; else nothing.
std::optional<Dataset> seen_by_head(const Objective& objective, const TensorList& theta, const TensorList& parent) {
  const auto& data = objective.data();
  const auto head = objective.model().head();
  TensorList parts;
  for (std::int64_t begin = 0; begin < data.size(); begin += objective.batch_size()) {
    const auto end = std::min(data.size(), begin + objective.batch_size());
    Tape tape;
    tape.wanted = [&](const TapeEntry& entry) {
      return entry.weight == head.qualified("weight") && entry.bias == head.qualified("bias");
    };
    check_interruption(begin, data.size());
    const auto output = objective.output(theta, parent, data.batch(begin, end), &tape);
    if (tape.entries.size() != 1 || tape.entries[0].kind != TapeEntry::Kind::kLinear || tape.entries[0].transposed ||
        !at::equal(tape.entries[0].output, output)) {
      return std::nullopt;
    }
    parts.push_back(tape.entries[0].input);
  }
  Dataset::Contents contents;
  contents.inputs = at::cat(parts).cpu();
  contents.targets = data.targets();
  contents.ids = data.ids();
  contents.classes = data.classes();
  return Dataset(std::move(contents)).to(theta.front().scalar_type(), theta.front().device());
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
  TrainingState state{detach(head.values()), 0, {}};
  const auto minimise = [&](const Objective& of, const TensorList& parent) {
    create<Optimizer>("lbfgs:max-iterations=500,tolerance=1e-6")->minimise(of, parent, state, Random(0), progress);
  };
  const std::vector<std::string> layer{of_stage.qualified("weight"), of_stage.qualified("bias")};
  if (const auto seen = head.names() == layer ? seen_by_head(alone, head.values(), body.values()) : std::nullopt) {
    ParameterSet linear;
    linear.add("head.weight", head.values()[0]);
    linear.add("head.bias", head.values()[1]);
    minimise(Objective(create<Model>("linear"), borrowed(objective.loss()), create<Tuning>("full"), *seen, weight_decay,
                       linear, {}, objective.batch_size()),
             {});
  } else {
    minimise(alone, body.values());
  }
  const auto found = head.with(detach(state.theta));
  for (std::size_t i = 0; i < trained.size(); ++i) {
    if (const auto& name = trained.names()[i]; found.contains(name)) {
      stage.theta[i] = found.at(name);
    }
  }
}

}  // namespace whence
