#include "trainings.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "whence/core/digest.h"
#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/core/output.h"
#include "whence/core/parallel.h"
#include "whence/data/dataset_digest.h"
#include "whence/data/sealed_safetensors.h"
#include "whence/evaluate/training_bank.h"
#include "whence/evaluate/verdict.h"
#include "whence/stages/choice.h"
#include "whence/training/objective_digest.h"
#include "whence/training/steps.h"
#include "whence/version.h"

namespace whence::cli {
namespace {

Chain first_of(const Chain& chain, std::size_t count) {
  return {chain.begin(), chain.begin() + static_cast<std::ptrdiff_t>(count)};
}

BeginStage beginning_of(const Pipeline& pipeline) {
  return [&pipeline, mutex = std::make_shared<std::mutex>()](std::size_t stage, const Chain& before) {
    const std::lock_guard<std::mutex> lock(*mutex);  // a pipeline reads its data when it is first asked
    return pipeline.begun(stage, before);
  };
}

}  // namespace

Trainings::Trainings(What what)
    : what_(std::move(what)), optimizer_(what_.optimizer.empty() ? nullptr : create<Optimizer>(what_.optimizer)) {
  Digest digest;
  digest.add(WHENCE_VERSION).add(what_.optimizer).add(word());
  digest.add(to_string(what_.measurement)).add(dataset_digest(what_.queries));
  digest.add(what_.pipeline.options().device.str());
  for (const auto& tensor : what_.chain[what_.stage].parent) {
    digest.add(tensor);
  }
  for (auto k = what_.stage; k < what_.chain.size(); ++k) {
    const auto& stage = what_.pipeline.stages()[k];
    digest.add(objective_digest(what_.chain[k].objective));
    digest.add(json_text(nlohmann::json{stage.name, stage.optimizer, stage.head_start, stage.patience,
                                        stage.validation_every, stage.validation_draws, stage.validation_by}));
    if (const auto* validation = what_.pipeline.validation_data(k)) {
      digest.add(dataset_digest(*validation));
    }
    for (const auto& tensor : what_.from_start ? TensorList() : what_.chain[k].theta) {
      digest.add(tensor);
    }
  }
  base_key_ = digest.text();
}

std::string Trainings::unknown_start(const Pipeline& pipeline, const Chain& chain, std::size_t stage) {
  for (auto k = stage; k < chain.size(); ++k) {
    try {
      pipeline.check_start(k, first_of(chain, k));
    } catch (const InvalidArgument& error) {
      return error.what();
    }
  }
  return "";
}

std::string Trainings::key(std::uint64_t seed) const { return fmt::format("{} {}", base_key_, seed); }

Random Trainings::random(std::uint64_t other) const {
  const Random out(what_.pipeline.seed() + other);
  return what_.from_start ? out : out.stream("evaluate");
}

Trainings::Seed Trainings::seed(std::uint64_t other) {
  const auto seed = what_.pipeline.seed() + other;
  Seed out{nullptr, random(other), {}, training_bank(what_.bank, key(seed))};
  if (!what_.from_start) {
    return out;
  }
  if (other == 0) {
    out.begin = beginning_of(what_.pipeline);
    return out;
  }
  auto options = what_.pipeline.options();
  options.seed = seed;
  options.note = {};
  out.pipeline = std::make_shared<const Pipeline>(what_.pipeline.path(), options);
  out.begin = beginning_of(*out.pipeline);
  return out;
}

Retraining Trainings::run(const at::Tensor& weights, std::uint64_t other, const Progress& progress) {
  const auto from = seed(other);
  return retrain(what_.chain, what_.stage, weights, what_.queries, what_.measurement, optimizer_.get(), from.random,
                 progress, from.begin, from.cache);
}

std::int64_t Trainings::missing(const at::Tensor& weights, std::uint64_t other) {
  const auto cache = training_bank(what_.bank, key(what_.pipeline.seed() + other));
  std::int64_t out = 0;
  for (std::int64_t i = 0; i < weights.size(0); ++i) {
    out += cache.has(weights[i]) ? 0 : 1;
  }
  return out;
}

RetrainingTime Trainings::time(std::int64_t trainings, double limit) {
  const auto from = seed(0);
  return time_retraining(what_.chain, what_.stage,
                         at::ones({what_.chain[what_.stage].objective.data().size()}, at::kDouble), trainings,
                         optimizer_.get(), from.random, limit, from.begin);
}

Stage Trainings::begin(std::size_t stage, const Chain& before) {
  return what_.from_start ? beginning_of(what_.pipeline)(stage, before) : what_.chain[stage];
}

TrainingSummary Trainings::train(Stage& stage, const Progress& progress) {
  Digest digest;
  digest.add(key(what_.pipeline.seed())).add(objective_digest(stage.objective)).add("inverse-time");
  for (const auto& tensor : stage.theta) {
    digest.add(tensor);
  }
  const auto& description = what_.pipeline.stages()[what_.stage];
  const auto& optimizer = what_.optimizer.empty() ? description.optimizer : what_.optimizer;
  const auto kept_after = segment_ends(optimizer, stage.objective.terms(), description.snapshots);
  const auto place = what_.bank / (digest.text() + ".safetensors");
  const auto& layout = stage.objective.trained();
  TrainingSummary out;
  if (kept_after.empty() && std::filesystem::exists(place)) {
    const auto held = read_sealed(place);
    for (std::size_t i = 0; i < stage.theta.size(); ++i) {
      stage.theta[i] = held.tensors.at(layout.names()[i]).to(stage.theta[i].options());
    }
    out.gradient_norm = metadata_number<double>(held.metadata, "gradient-norm", place);
    out.converged = metadata_number<std::int64_t>(held.metadata, "converged", place) > 0;
    out.inverse_time = stage.inverse_time = metadata_number<double>(held.metadata, "inverse-time", place);
    return out;
  }
  const auto random = Random(what_.pipeline.seed());
  if (!what_.optimizer.empty()) {
    stage.optimizer = create<Optimizer>(what_.optimizer);
  }
  const double before = what_.from_start ? 0 : stage.inverse_time;
  out = whence::train(stage,
                      what_.from_start ? random.stream("training of stage " + stage.name) : random.stream("evaluate"),
                      progress, kept_after);
  if (before > 0 && out.inverse_time > 0) {  // it went on: times add up
    out.inverse_time = stage.inverse_time = 1 / (1 / before + 1 / out.inverse_time);
  }
  if (!kept_after.empty()) {
    return out;
  }
  keep_in_bank(place, layout.with(stage.theta),
               {{"gradient-norm", fmt::format("{}", out.gradient_norm)},
                {"converged", out.converged ? "1" : "0"},
                {"inverse-time", fmt::format("{}", out.inverse_time)}});
  return out;
}

double Trainings::apart(const at::Tensor& measurements) const {
  const auto own = measure_all(what_.measurement, what_.chain.back(), what_.queries);
  const double difference = (measurements - own).norm().item<double>();
  return difference == 0 ? 0 : difference / own.norm().item<double>();
}

std::string Trainings::untold() const {
  const auto& stages = what_.pipeline.stages();
  auto k = optimizer_ ? stages.size() : what_.stage;
  while (k < stages.size() && (stages[k].says_optimizer || what_.pipeline.training(k))) {
    ++k;
  }
  return k < stages.size() ? stages[k].name : "";
}

void Trainings::check_reference(const Progress& progress) {
  const auto stage = untold();
  if (stage.empty()) {
    return;
  }
  const auto found =
      run(at::ones({1, this->stage().objective.data().size()}, at::kDouble), 0, progress).measurements[0];
  end_progress();
  constexpr double kFar = 0.1;
  if (!(apart(found) <= kFar)) {
    const auto own = measure_all(what_.measurement, what_.chain.back(), what_.queries);
    throw InvalidArgument(fmt::format(
        "stage {}: how it was trained is not said, and the minimum that training goes on to is far from its checkpoint "
        "(the queries' mean {} is {:.3g} there, {:.3g} at the checkpoint), of which retraining would say nothing: {}",
        stage, to_string(what_.measurement), found.mean().item<double>(), own.mean().item<double>(),
        say_optimizer_text(stage)));
  }
}

Json Trainings::told() const {
  Json out{{"train-from", word()}};
  const auto& description = what_.pipeline.stages()[what_.stage];
  const auto* optimizer = optimizer_ ? optimizer_.get() : stage().optimizer.get();
  const bool others = optimizer_ || !what_.pipeline.training(what_.stage);
  if (!what_.from_start && others && dynamic_cast<const SteppingOptimizer*>(optimizer) != nullptr) {
    out["goes-on-by"] = optimizer_ ? what_.optimizer : description.optimizer;
    out["as-trained"] = !optimizer_ || what_.optimizer == description.optimizer;
  }
  return out;
}

TrainingsTime time_trainings(Trainings& trainings, std::int64_t missing, const Progress& progress) {
  report(progress, {"time a training", 0, 0, ""});
  constexpr double kLimit = 20;
  TrainingsTime out{trainings.time(missing, kLimit), std::clamp<std::int64_t>(missing, 1, threads()), 0, ""};
  end_progress();
  const bool known = !std::isnan(out.one.at_most);
  const auto rounds = std::ceil(static_cast<double>(missing) / static_cast<double>(out.at_once));
  out.seconds = rounds * (known ? out.one.at_most : out.one.seconds);
  out.told = fmt::format("{}about {}", known ? "" : "more than ", duration_words(out.seconds));
  return out;
}

void check_patience(const TrainingsTime& time, std::int64_t missing, const std::string& remedy) {
  constexpr double kUnaskedSeconds = 600;
  if (time.seconds > kUnaskedSeconds) {
    throw InvalidArgument(
        fmt::format("{} trainings would take {}, a training {}: {}", missing, time.told,
                    duration_words(std::isnan(time.one.at_most) ? time.one.seconds : time.one.at_most), remedy));
  }
}

std::string say_optimizer_text(const std::string& stage) {
  return fmt::format("say how it was trained in [[stage]] {}, as in optimizer = \"{}\"", stage, kOptimizerExample);
}

bool judged_from_start(const Pipeline& pipeline, const Chain& chain, std::size_t stage) {
  bool stepped = false;
  for (auto k = stage; k < chain.size() && !stepped; ++k) {
    stepped = dynamic_cast<const SteppingOptimizer*>(chain[k].optimizer.get()) != nullptr &&
              stationarity(chain[k]).relative_gradient_norm > kFarFromMinimum;
  }
  return stepped && Trainings::unknown_start(pipeline, chain, stage).empty();
}

}  // namespace whence::cli
