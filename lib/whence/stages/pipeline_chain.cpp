// The part of Pipeline that puts stages together: as they start training, and from their checkpoints.
#include <fmt/format.h>

#include <algorithm>

#include "whence/core/operation_count.h"
#include "whence/models/checkpoint.h"
#include "whence/stages/detail/training_record.h"
#include "whence/stages/detail/trajectory.h"
#include "whence/stages/head_start.h"
#include "whence/stages/pipeline.h"

namespace whence {
namespace {

/// Texts go through the model so many tokens at a time at most, so that the activations of a small model's batch fit
/// the caches ...
constexpr std::int64_t kTokensPerBatch = 4096;
/// ... and so many that the graph of a second derivative takes about this, of a large model too: enough for its
/// matrices to be multiplied at speed.
constexpr double kGraphBytes = 2e9, kGraphBytesOfGpu = 1.6e10;

/// Bytes that a token takes in such a graph, about: what goes into and out of each matrix, six times over.
double graph_bytes_per_token(const Objective& objective, const ParameterSet& merged, std::int64_t vocabulary) {
  const bool predicts_tokens = objective.data().head_outputs() == 0;
  std::int64_t entries = 0;
  for (const auto& value : merged.values()) {
    if (value.dim() == 2 && (predicts_tokens || value.size(0) != vocabulary)) {  // else an embedding that is looked up
      entries += value.size(0) + value.size(1);
    }
  }
  return 6.0 * static_cast<double>(entries) * static_cast<double>(merged.values().front().element_size());
}

/// Bytes that an example that is no text takes in such a graph, about: what its forward pass goes over, so many times
/// (measured on ResNet-20 by ekfac: 37 MB an image, of which that pass goes over 1.9). Cost: that pass.
double graph_bytes_per_example(const Stage& stage) {
  constexpr double kTimes = 20;
  const at::NoGradGuard no_gradient;
  const auto one = stage.objective.data().batch(0, 1);
  return kTimes * count_operations([&] { stage.objective.output(stage.theta, stage.parent, one); }).bytes;
}

std::int64_t batch_size_for(const Stage& stage, const LanguageModel* model, const RunOptions& options) {
  const auto& data = stage.objective.data();
  const double graph_bytes = options.device.is_cpu() ? kGraphBytes : kGraphBytesOfGpu;
  if (!data.is_text()) {
    const double most = graph_bytes / std::max(1.0, graph_bytes_per_example(stage));
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(std::min(most, 1e9)), 1, options.batch_size);
  }
  auto tokens = kTokensPerBatch;
  if (model != nullptr) {
    const auto merged = stage.objective.merge(stage.theta, stage.parent);
    const double most = graph_bytes / graph_bytes_per_token(stage.objective, merged, model->vocabulary());
    tokens = std::min(tokens, static_cast<std::int64_t>(most));
  }
  return std::clamp<std::int64_t>(tokens / data.longest(), 1, options.batch_size);
}

}  // namespace

/// What trains a stage, by its validation where it has one.
std::shared_ptr<const Optimizer> Pipeline::optimizer(std::size_t stage) const {
  const auto& description = file_.stages.at(stage);
  auto plain = create<Optimizer>(description.optimizer);
  return description.validation.is_null() ? std::move(plain) : stopping_early(std::move(plain), validation(stage));
}

/// A stage's validation, which reads its data when it is asked for them: by a pipeline of its own, since the stage may
/// outlive this one.
Validation Pipeline::validation(std::size_t stage) const {
  const auto& description = file_.stages.at(stage);
  return {.data = [own = std::make_shared<const Pipeline>(*this), stage] { return *own->validation_data(stage); },
          .patience = description.patience,
          .every = description.validation_every,
          .draws = description.validation_draws,
          .by_accuracy = description.validation_by == "accuracy"};
}

/// Throws InvalidArgument, before hours of training, where its validation does not go with a stage.
void Pipeline::check_validation(std::size_t stage, const Stage& untrained) const {
  const auto* data = validation_data(stage);
  if (data == nullptr) {
    return;
  }
  try {
    check_room(untrained, *data);
    whence::check_validation(validation(stage), *data, untrained.objective, untrained.theta, untrained.parent);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: stage {}: {}", file_.path.string(), untrained.name, error.what()));
  }
}

Stage Pipeline::untrained(std::size_t stage, const Chain& before) const {
  const auto& description = file_.stages.at(stage);
  const auto& data = training_data(stage);
  try {
    auto out = begin_stage({.name = description.name,
                            .model = model_,
                            .loss = create<Loss>(description.loss),
                            .tuning = create<Tuning>(description.tuning),
                            .optimizer = optimizer(stage),
                            .data = data,
                            .weight_decay = description.weight_decay,
                            .batch_size = options_.batch_size,
                            .priming = description.priming.empty() ? nullptr : create<Priming>(description.priming),
                            .tasks = tasks(stage),
                            .starts_trained = model_->is_trained()},
                           before, Random(seed_).stream("stage " + description.name));
    out.objective = out.objective.with_batch_size(batch_size_for(out, language_model_, options_));
    return out;
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: {}", file_.path.string(), error.what()));
  }
}

Chain Pipeline::untrained(std::size_t count) const {
  Chain chain;
  for (std::size_t i = 0; i < count; ++i) {
    chain.push_back(untrained(i, chain));
    check_validation(i, chain.back());
  }
  return chain;
}

/// Throws InvalidArgument where a primed stage was trained with another seed: its objective would be another.
void Pipeline::check_seed(std::size_t stage) const {
  const auto& description = file_.stages.at(stage);
  const auto told = checkpoint_metadata(description.checkpoint, detail::kTrainedFrom);
  if (description.priming.empty() || told.empty()) {
    return;
  }
  const auto run = detail::table_in(detail::parse_record(told), "run");
  if (run.contains("seed") && run["seed"] != seed_) {
    throw InvalidArgument(
        fmt::format("stage {}: it was primed with seed {}, by which its tasks are split and start, "
                    "and the seed is {}: use --seed {}",
                    description.name, run["seed"].dump(), seed_, run["seed"].dump()));
  }
}

Stage Pipeline::begun(std::size_t stage, const Chain& before, const Progress& progress) const {
  auto out = untrained(stage, before);
  if (const auto weight_decay = parse_head_start(file_.stages.at(stage).head_start)) {
    const ProgressScope scope(progress, {"start the head of " + out.name, 0, 0, ""});
    try {
      regress_head(out, *weight_decay, progress);
    } catch (const InvalidArgument& error) {
      throw InvalidArgument(fmt::format("{}: {}", file_.path.string(), error.what()));
    }
  }
  return out;
}

std::optional<Stage> Pipeline::start_of_others(std::size_t stage, const Chain& before) const {
  const auto& description = file_.stages.at(stage);
  const auto told = checkpoint_metadata(description.checkpoint, detail::kTrainedFrom);
  if (!told.empty()) {
    detail::check_start(detail::parse_record(told), description, seed_);
    return std::nullopt;
  }
  auto fresh = untrained(stage, before);
  for (const auto& name : fresh.objective.trained().names()) {
    if (!fresh.objective.parent_layout().contains(name)) {
      throw InvalidArgument(fmt::format(
          "stage {}: where its training began is not known: {} was not trained by whence, and {}; give the weights "
          "that it began with as the checkpoint of a stage before it, or train it with whence",
          description.name, description.checkpoint.string(),
          stage == 0 ? fmt::format("no stage is before it that {} could come from", name)
                     : fmt::format("stage {} before it has no {}", file_.stages[stage - 1].name, name)));
    }
  }
  return fresh;
}

void Pipeline::check_start(std::size_t stage, const Chain& before) const { start_of_others(stage, before); }

TensorList Pipeline::start(std::size_t stage, const Chain& before) const {
  auto fresh = start_of_others(stage, before);
  return fresh ? std::move(fresh->theta) : begun(stage, before, {}).theta;
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
    check_seed(i);
    auto stage = untrained(i, chain);
    const auto where = fmt::format("{} (stage {})", description.checkpoint.string(), description.name);
    const auto remedy = fmt::format("run whence train {} --stage {} --force", file_.path.string(), description.name);
    const auto& trained = stage.objective.trained();
    const auto read = is_adapter(description.checkpoint)
                          ? NamedTensors{read_peft(description.checkpoint, *model_, trained,
                                                   stage.objective.parent_layout().with(stage.parent), where),
                                         {}}
                          : read_checkpoint(description.checkpoint, *model_, trained, description.rename, where);
    stage.theta = read.tensors.values();
    stage.objective = stage.objective.at(stage.theta, stage.parent);  // lets the fresh ones go
    if (is_adapter(description.checkpoint) && description.says_tuning && is_whence_checkpoint(description.checkpoint)) {
      try {
        check_written(as_adapter(i, stage, stage.theta), description.checkpoint);
      } catch (const InvalidArgument& error) {
        throw InvalidArgument(
            fmt::format("stage {}: tuning = \"{}\", {}: leave tuning out, and it is read from there, or {}",
                        description.name, description.tuning, error.what(), remedy));
      }
    }
    if (!read.note.empty()) {
      note(language_model_ != nullptr ? read.note
                                      : fmt::format("{}; files do not tell activations: this is {}", read.note,
                                                    resolved_spec<Model>(model_spec_)));
    }
    if (const auto told = training(i); told && !told->stationarity_of.empty()) {
      stage.measured = {told->stationarity_of, told->stationarity};
      stage.inverse_time = told->summary.inverse_time;
    }
    stage.trajectory = detail::read_trajectory(snapshot_files(i), stage, description.checkpoint, remedy);
    chain.push_back(std::move(stage));
  }
  return chain;
}

}  // namespace whence
