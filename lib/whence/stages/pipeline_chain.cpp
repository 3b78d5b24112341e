// The part of Pipeline that puts stages together: as they start training, and from their checkpoints.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "whence/models/checkpoint.h"
#include "whence/stages/detail/trajectory.h"
#include "whence/stages/pipeline.h"

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

/// Texts go through the model so many tokens at a time at most: a batch's activations are to fit the caches.
constexpr std::int64_t kTokensPerBatch = 4096;

std::int64_t batch_size_for(const Dataset& data, std::int64_t asked) {
  return data.is_text() ? std::clamp<std::int64_t>(kTokensPerBatch / data.longest(), 1, asked) : asked;
}

}  // namespace

Stage Pipeline::untrained(std::size_t stage, const Chain& before) const {
  const auto& description = file_.stages.at(stage);
  const auto& data = training_data(stage);
  auto random = Random(seed_).stream("stage " + description.name);
  const auto fresh =
      model_->initial(data.input_shape(), data.head_outputs(), random).to(options_.dtype, options_.device);
  ParameterSet parent;
  if (!before.empty()) {
    const auto& previous = before.back();
    parent = previous.handed_on();
    check_fit(description.name, previous.name, model_->head().body(fresh), parent);
  }
  std::shared_ptr<const Tuning> tuning = create<Tuning>(description.tuning);
  ParameterSet trained;
  try {
    trained = tuning->trainable(fresh, parent, random);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: stage {}: {}", file_.path.string(), description.name, error.what()));
  }
  Objective objective(model_, create<Loss>(description.loss), std::move(tuning), data, description.weight_decay,
                      trained, parent, batch_size_for(data, options_.batch_size));
  // shared, not copied: nothing writes into parameters, optimizers put new ones in their place
  return {description.name, std::move(objective), create<Optimizer>(description.optimizer), trained.values(),
          parent.values()};
}

Chain Pipeline::untrained(std::size_t count) const {
  Chain chain;
  for (std::size_t i = 0; i < count; ++i) {
    chain.push_back(untrained(i, chain));
  }
  return chain;
}

Chain Pipeline::load() const { return load(file_.stages.size()); }

Chain Pipeline::load(std::size_t count) const {
  Chain chain;
  for (std::size_t i = 0; i < count; ++i) {
    const auto& description = file_.stages.at(i);
    if (!is_trained(i)) {
      throw DataError(fmt::format("stage {} has no checkpoint at {}: run whence train {}", description.name,
                                  description.checkpoint.string(), file_.path.string()));
    }
    auto stage = untrained(i, chain);
    const auto read = read_checkpoint(description.checkpoint, *model_, stage.objective.trained(), description.rename,
                                      fmt::format("{} (stage {})", description.checkpoint.string(), description.name));
    stage.theta = read.tensors.values();
    stage.objective = stage.objective.at(stage.theta, stage.parent);  // lets the fresh ones go
    if (!read.note.empty()) {
      note(language_model_ != nullptr ? read.note
                                      : fmt::format("{}; files do not tell activations: this is {}", read.note,
                                                    resolved_spec<Model>(model_spec_)));
    }
    const auto remedy = fmt::format("run whence train {} --stage {} --force", file_.path.string(), description.name);
    stage.trajectory = detail::read_trajectory(snapshot_files(i), stage, description.checkpoint, remedy);
    chain.push_back(std::move(stage));
  }
  return chain;
}

}  // namespace whence
