#include "whence/stages/head_start.h"

#include <fmt/format.h>

#include <memory>

#include "whence/core/error.h"

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
  const auto borrowed = [](const auto& of) {  // which outlives this function
    return std::shared_ptr<const std::remove_cvref_t<decltype(of)>>(std::shared_ptr<void>(), &of);
  };
  const Objective alone(borrowed(objective.model()), borrowed(objective.loss()), create<Tuning>("head"),
                        objective.data(), weight_decay, head, body, objective.batch_size());
  TrainingState state{head.values(), 0, {}};
  create<Optimizer>("lbfgs:max-iterations=500,tolerance=1e-6")
      ->minimise(alone, body.values(), state, Random(0), progress);
  const auto found = head.with(detach(state.theta));
  for (std::size_t i = 0; i < trained.size(); ++i) {
    if (const auto& name = trained.names()[i]; found.contains(name)) {
      stage.theta[i] = found.at(name);
    }
  }
}

}  // namespace whence
