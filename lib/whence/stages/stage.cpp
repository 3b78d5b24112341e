#include "whence/stages/stage.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/core/described.h"
#include "whence/core/digest.h"
#include "whence/core/error.h"
#include "whence/models/addition.h"
#include "whence/models/ensemble.h"
#include "whence/models/language_model.h"
#include "whence/stages/detail/trajectory.h"
#include "whence/training/objective_digest.h"

namespace whence {
namespace {

/// The data for this stage must shape the body as the stage before left it.
void check_fit(const std::string& stage, const std::string& before, const ParameterSet& body,
               const ParameterSet& parent) {
  if (parent.empty()) {
    throw InvalidArgument(
        fmt::format("stage {}: this model has no body, so stage {} hands nothing on to it", stage, before));
  }
  for (std::size_t i = 0; i < body.size(); ++i) {
    const auto& name = body.names()[i];
    const auto& value = body.values()[i];
    if (!parent.contains(name)) {
      throw InvalidArgument(
          fmt::format("stage {}: its model has {}, which stage {} does not hand on", stage, name, before));
    }
    if (value.sizes() != parent.at(name).sizes()) {
      throw InvalidArgument(fmt::format("stage {}: {} would be [{}] for its data, but stage {} hands on [{}]", stage,
                                        name, fmt::join(value.sizes(), ", "), before,
                                        fmt::join(parent.at(name).sizes(), ", ")));
    }
  }
}

/// The layers that one example goes through, on a body and the fresh head.
Tape pass_on(const Model& model, const ParameterSet& body, const ParameterSet& fresh, const Dataset& data) {
  const c10::NoGradGuard no_gradient;
  Tape tape;
  model.output(body.empty() ? fresh : body.join(model.head().of(fresh).without(body)), data.batch(0, 1), &tape);
  return tape;
}

/// Tasks, and where the inner loop starts on a primed stage's body.
InnerStage inner_stage(const StageParts& parts, const ParameterSet& body, const ParameterSet& fresh,
                       const Random& random) {
  const auto& priming = *parts.priming;
  if (static_cast<std::int64_t>(parts.tasks.size()) != parts.data.size()) {
    throw InvalidArgument(fmt::format("priming: the tasks of {} examples are named, expected those of all {}",
                                      parts.tasks.size(), parts.data.size()));
  }
  std::shared_ptr<const Tuning> tuning = create<Tuning>(priming.inner());
  const auto pass = [&] { return pass_on(*parts.model, body, fresh, parts.data); };
  auto start = tuning->trainable({fresh, body, parts.model->head(), pass}, random.stream("inner"));
  for (const auto& name : start.names()) {
    if (body.contains(name)) {
      throw InvalidArgument(
          fmt::format("priming: inner = {} trains {}, which is the outer loop's: expected head or one that adds to the "
                      "body",
                      priming.inner(), name));
    }
    if (name.ends_with(".lora_magnitude_vector")) {
      throw InvalidArgument(fmt::format(
          "priming: inner = {} starts from lengths of the body, which the outer loop moves: expected one without dora",
          priming.inner()));
    }
  }
  return {parts.priming, std::move(tuning), std::move(start),
          split_tasks(parts.tasks, priming.support(), random.stream("support"))};
}

/// Throws InvalidArgument where mean_prediction() would not be what the loss compares with: it is told classes from
/// values by the targets alone.
void check_ensemble(const Stage& stage) {
  const auto& objective = stage.objective;
  const auto wants = objective.loss().wants();
  const bool classes = objective.data().target_kind() == TargetKind::kClasses;
  if (ensemble_of(objective.trained()) > 0 &&
      ((wants == TargetKind::kProbabilities && classes) || (wants == TargetKind::kClasses && !classes))) {
    throw InvalidArgument(
        fmt::format("stage {}: its tuning predicts with an ensemble, expected inference=midpoint where a loss of {}",
                    stage.name, classes ? "events compares with classes" : "classes compares with shares of them"));
  }
}

}  // namespace

Stage begin_stage(StageParts parts, const Chain& before, Random random) {
  if (!parts.model || !parts.loss || !parts.tuning || !parts.optimizer || parts.data.size() == 0) {
    throw InvalidArgument(
        fmt::format("stage {}: expected a model, a loss, a tuning, an optimizer and data", parts.name));
  }
  const auto& data = parts.data;
  const auto fresh =
      parts.model->initial(data.input_shape(), data.head_outputs(), random).to(data.dtype(), data.device());
  ParameterSet parent;
  if (!before.empty()) {
    parent = before.back().handed_on();
    check_fit(parts.name, before.back().name, parts.model->head().body(fresh), parent);
  } else if (parts.starts_trained && parts.tuning->remembers_parent()) {
    parent = parts.model->head().body(fresh);
  }
  const auto pass = [&] { return pass_on(*parts.model, parent, fresh, data); };
  ParameterSet trained;
  std::shared_ptr<const InnerStage> inner;
  try {
    trained = parts.tuning->trainable({fresh, parent, parts.model->head(), pass}, random);
    if (parts.priming) {
      const auto head = parts.model->head();
      trained = head.body(trained);
      if (trained.empty() || parts.tuning->merge_uses_parent()) {
        throw InvalidArgument("a primed stage trains the body, all of it: expected tuning full and a model with one");
      }
      inner = std::make_shared<const InnerStage>(
          inner_stage(parts, parts.tuning->hand_on(head, parent, trained), fresh, random));
    }
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("stage {}: {}", parts.name, error.what()));
  }
  Objective objective(std::move(parts.model), std::move(parts.loss), std::move(parts.tuning), std::move(parts.data),
                      parts.weight_decay, trained, parent, parts.batch_size);
  if (inner) {
    objective = objective.with_inner(std::move(inner));
  }
  // shared, not copied: nothing writes into parameters, optimizers put new ones in their place
  Stage out{std::move(parts.name), std::move(objective), std::move(parts.optimizer), trained.values(), parent.values()};
  check_room(out, out.objective.data());
  check_ensemble(out);
  return out;
}

void check_room(const Stage& stage, const Dataset& texts) {
  const auto* language = dynamic_cast<const LanguageModel*>(&stage.objective.model());
  if (language == nullptr || !texts.is_text()) {
    return;
  }
  std::int64_t before = 0;
  for (const auto* parameters : {&stage.objective.trained(), &stage.objective.parent_layout()}) {
    before += prefix_length(*parameters);
    for (std::size_t i = 0; i < parameters->size(); ++i) {
      const auto& name = parameters->names()[i];
      before += is_added(name) && name.ends_with(".prompt") ? parameters->values()[i].size(0) : 0;
    }
  }
  if (before > 0 && before + texts.longest() > language->context()) {
    throw InvalidArgument(fmt::format(
        "stage {}: a text of {} tokens behind {} of a prefix or prompt, expected at most {} together: lower "
        "its length or the length of the data",
        stage.name, texts.longest(), before, language->context()));
  }
}

std::vector<std::int64_t> segment_ends(std::string_view optimizer, std::int64_t terms, std::int64_t count) {
  std::vector<std::int64_t> out;
  if (count == 0) {
    return out;
  }
  std::int64_t total = 0;
  try {
    total = create<Optimizer>(optimizer)->planned_iterations(terms);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("snapshots = {} with optimizer {}: {}", count, optimizer, error.what()));
  }
  if (total < count) {
    throw InvalidArgument(fmt::format("snapshots = {}, expected at most training's {} iterations", count, total));
  }
  for (std::int64_t k = 1; k <= count; ++k) {
    out.push_back(total / count * k + total % count * k / count);
  }
  return out;
}

void tell_inverse_time(const Optimizer& optimizer, const TrainingState& state, TrainingSummary& summary) {
  summary.inverse_time = optimizer.inverse_time(state);
  for (const auto& at : summary.validation) {
    if (at.iteration == summary.kept && at.time > 0) {  // it kept what was there before its end
      summary.inverse_time *= state.time / at.time;
    }
  }
}

TrainingSummary train(Stage& stage, const Random& random, const Progress& progress,
                      const std::vector<std::int64_t>& kept_after) {
  TrainingState state{stage.theta, 0, {}};
  std::vector<Snapshot> trajectory;
  const auto keep = [&](const ProgressEvent& event) {
    if (trajectory.size() < kept_after.size() && state.iteration == kept_after[trajectory.size()]) {
      trajectory.push_back(detail::snapshot_of(stage, state, trajectory.empty() ? Snapshot{} : trajectory.back()));
    }
    report(progress, event);
  };
  auto summary = stage.optimizer->minimise(stage.objective, stage.parent, state, random, keep);
  tell_inverse_time(*stage.optimizer, state, summary);
  stage.theta = detach(state.theta);
  stage.inverse_time = summary.inverse_time;
  stage.trajectory = std::move(trajectory);
  return summary;
}

std::string stationarity_key(const Stage& stage) {
  Digest digest;
  digest.add(objective_digest(stage.objective));
  for (const auto* values : {&stage.theta, &stage.parent}) {
    digest.add(std::to_string(values->size()));
    for (const auto& value : *values) {
      digest.add(value);
    }
  }
  return digest.text();
}

Stationarity stationarity(const Stage& stage) {
  if (stage.measured && stage.measured->of == stationarity_key(stage)) {
    return stage.measured->value;
  }
  try {
    return stationarity(stage.objective, stage.theta, stage.parent);
  } catch (const NumericalError& error) {
    throw in_stage(stage, error);
  }
}

NumericalError in_stage(const Stage& stage, const NumericalError& error) {
  const auto* described = dynamic_cast<const Described*>(&stage.objective.tuning());
  const auto options = described == nullptr ? std::string() : described->description();
  return NumericalError(fmt::format("stage {}: {}{}", stage.name, error.what(),
                                    options.empty() ? "" : fmt::format("; its tuning has {}", options)));
}

std::vector<std::string> disconnections(const Chain& chain) {
  std::vector<std::string> out;
  for (std::size_t k = 0; k < chain.size(); ++k) {
    const auto& stage = chain[k];
    if (k + 1 < chain.size() && stage.objective.model().head().body(stage.objective.trained()).empty()) {
      out.push_back(fmt::format(
          "stage {}: it trains its own head alone and hands that on to nobody, so every score of its examples is 0",
          stage.name));
    }
    if (k > 0 && !stage.objective.tuning().remembers_parent()) {
      out.push_back(
          fmt::format("stage {}: nothing in its objective depends on stage {}, so at its minimum every score of the "
                      "stages before is 0; give it tuning = \"full:proximity=0.1\" or \"head\"",
                      stage.name, chain[k - 1].name));
    }
  }
  return out;
}

}  // namespace whence
