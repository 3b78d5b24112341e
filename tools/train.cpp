#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cli.h"
#include "json.h"
#include "run_record.h"
#include "say.h"
#include "whence/core/output.h"
#include "whence/models/checkpoint.h"
#include "whence/models/loss.h"
#include "whence/stages/unfinished.h"

namespace whence::cli {
namespace po = boost::program_options;
namespace {

/// What becomes of a stage, decided before any is trained.
struct Plan {
  bool train = false;
  std::string changes;  ///< What its checkpoint was trained with that is otherwise today.
  std::string kept;     ///< Why its checkpoint stays.
};

Plan plan_for(const Pipeline& pipeline, std::size_t stage, bool force, bool named) {
  Plan out;
  if (!pipeline.is_trained(stage) ||
      (!force && std::filesystem::exists(unfinished_path(pipeline.stages()[stage].checkpoint)))) {
    out.train = true;  // perhaps to its end: an interrupted --force
  } else if (force && (named || is_whence_checkpoint(pipeline.stages()[stage].checkpoint))) {
    out.train = true;
  } else {
    out.kept = force ? "has a checkpoint from elsewhere, which is never trained over" : "has a checkpoint";
    out.changes = changes_text(pipeline, stage);
  }
  return out;
}

/// Whoever names a model's folder may think that it holds the model: said with --quiet too.
void warn_of_random_start(const Pipeline& pipeline) {
  const auto files = pipeline.model_files();  // none for a built-in model, which always starts so
  if (!files.empty() && files.front().extension() != ".safetensors" && !is_exported(files.front())) {
    warn(fmt::format("{}: no weights there, so stage {} starts at random", files.front().parent_path().string(),
                     pipeline.stages().front().name));
  }
}

/// What whence rank would say of the queries after hours of training.
std::vector<std::string> query_doubts(const Pipeline& pipeline) {
  std::vector<std::string> out;
  for (const auto& split : pipeline.query_splits()) {
    try {
      pipeline.queries(split);
    } catch (const InvalidArgument& error) {
      out.emplace_back(error.what());
    } catch (const DataError& error) {
      out.emplace_back(error.what());
    }
  }
  return out;
}

/// What to know of a classifier that is no better than the shares of its classes, without a look at the example: what
/// is ranked for it explains little. Empty where it is better. Cost: where the objective, with its penalty, is not
/// below theirs the chain is loaded.
std::string guessing_text(const Pipeline& pipeline, std::size_t k, double objective) {
  const auto& description = pipeline.stages()[k];
  const auto& data = pipeline.training_data(k);
  if (description.loss != "cross-entropy" || !description.priming.empty() ||
      data.target_kind() != TargetKind::kClasses) {
    return {};
  }
  const auto counts = at::bincount(data.targets().flatten().to(at::kCPU)).to(at::kDouble);
  const auto shares = counts / counts.sum();
  const double guess = -at::xlogy(shares, shares).sum().item<double>();
  if (objective < guess || guess == 0) {
    return {};
  }
  const auto chain = pipeline.load(k + 1);
  const auto& stage = chain.back();
  const double loss = objective - stage.objective.penalty(stage.theta, stage.parent).item<double>();
  return loss < guess
             ? std::string()
             : fmt::format(
                   "stage {}: its mean loss {:.3g} is no lower than that of guessing by how frequent each class is "
                   "({:.3g}), so that there is little to explain: change the optimizer's learning-rate or raise its "
                   "epochs "
                   "and train with --force",
                   description.name, loss, guess);
}

std::string text(const std::string& stage, const std::string& how, const std::optional<StageTraining>& training) {
  if (!training) {
    return fmt::format("{:<12} {}  from elsewhere: whence rank tells how far it is from a minimum", stage, how);
  }
  const auto& at = training->stationarity;
  return fmt::format(
      "{:<12} {}  {} examples, {} parameters  objective {:.6g}  |gradient| {:.1e} ({:.1e} of an "
      "example's)",
      stage, how, training->examples, training->parameters, at.objective, at.gradient_norm, at.relative_gradient_norm);
}

Json to_json(const StageDescription& stage, bool trained, const std::string& message,
             const std::optional<StageTraining>& training) {
  Json out{{"stage", stage.name}, {"trained", trained}, {"message", message}};
  if (training) {
    out["iterations"] = training->summary.iterations;
    out["seconds"] = trained ? training->summary.seconds : 0;
    out["objective"] = training->stationarity.objective;
    out["gradient-norm"] = training->stationarity.gradient_norm;
    out["relative-gradient-norm"] = training->stationarity.relative_gradient_norm;
    if (auto validation = validation_of(training); !validation.is_null()) {
      out["validation"] = std::move(validation);
    }
  }
  out["checkpoint"] = stage.checkpoint.string();
  return out;
}

}  // namespace

int train(const std::vector<std::string>& arguments) {
  CommandLine line("train", "PIPELINE [--stage NAME] [--force]",
                   "Trains the stages that have no checkpoint yet, in order, and says how far each is from a minimum. "
                   "What is trained stays; where the pipeline has changed since, that is said.");
  line.positional("PIPELINE", "the pipeline file");
  line.add()("stage", po::value<std::string>(), "train this stage only")("force", po::bool_switch(),
                                                                         "train again what whence trained before");
  if (!line.parse(arguments)) {
    return kDone;
  }
  const Pipeline pipeline(line.text("PIPELINE"), line.run_options());
  const auto progress = terminal_progress(line.flag("quiet"));
  std::size_t begin = 0, end = pipeline.stages().size();
  if (line.has("stage")) {
    begin = pipeline.stage_index(line.text("stage"));
    end = begin + 1;
  }
  bool doubtful = false;
  const auto doubt = [&](const std::string& sentence) {
    doubtful = true;
    warn(sentence);
  };
  std::vector<Plan> plans;
  bool any = false;
  for (auto k = begin; k < end; ++k) {
    plans.push_back(plan_for(pipeline, k, line.flag("force"), line.has("stage")));
    any = any || plans.back().train;
    if (!plans.back().changes.empty()) {
      doubt(plans.back().changes);
    }
  }
  for (auto k = begin; k < end; ++k) {
    if (plans[k - begin].train) {
      pipeline.disregard_checkpoint(k);
    }
  }
  if (any && end > 1) {  // before hours of training, not after
    for (const auto& sentence : disconnections(pipeline.untrained(end))) {
      doubt(sentence);
    }
  }
  std::size_t kept = 0;  // before the first that is trained
  bool foreign = false;  // whence vouches for the data of those that it trained
  for (; kept < end && pipeline.is_trained(kept) && (kept < begin || !plans[kept - begin].train); ++kept) {
    foreign = foreign || !pipeline.training(kept);
  }
  if (foreign) {
    pipeline.load(kept);
  }
  for (auto k = begin; k < end; ++k) {
    const auto& plan = plans[k - begin];
    if (!plan.train && plan.changes.empty()) {
      continue;
    }
    const auto& data = pipeline.training_data(k);  // of a stage that is kept too: what changed may not be there
    if (plan.train) {
      for (const auto& text :
           input_doubts(pipeline.stages()[k].name, data, pipeline.options().dtype, /*trained=*/false)) {
        doubt(text);
      }
    }
  }
  if (end == pipeline.stages().size() && (plans.back().train || foreign)) {  // whose columns and classes queries have
    for (const auto& sentence : query_doubts(pipeline)) {
      doubt(sentence);
    }
  }
  if (begin == 0 && plans.front().train) {
    warn_of_random_start(pipeline);
  }
  auto out = Json::array();
  for (auto k = begin; k < end; ++k) {
    const auto& plan = plans[k - begin];
    const auto& stage = pipeline.stages()[k];
    std::optional<StageTraining> training;
    auto how = plan.kept;
    if (plan.train) {
      training = pipeline.train(k, progress, line.flag("force"));
      end_progress();
      how = fmt::format("trained, {} iterations in {:.1f} s: {}", training->summary.iterations,
                        training->summary.seconds, training->summary.message);
    } else {
      OutputLock::clear_beside(stage.checkpoint);
      training = pipeline.training(k);
    }
    out.push_back(to_json(stage, plan.train, plan.train ? training->summary.message : plan.kept, training));
    if (!line.flag("json")) {
      say("{}\n", text(stage.name, how, training));
      std::fflush(stdout);
    }
    if (training && training->stationarity.relative_gradient_norm > kFarFromMinimum) {
      doubt(far_from_minimum_text(
          stage.name, training->stationarity, training,
          fmt::format("{} {} and train with --force",
                      stage.priming.empty() && create<Loss>(stage.loss)->is_of_output()
                          ? "whence rank then takes a Gauss-Newton curvature, which needs no minimum; for the exact "
                            "Hessian"
                          : "whence rank then takes the Hessian with a damping that outweighs its negative curvature; "
                            "for a smaller one",
                      stage.validation.is_null() ? "raise the optimizer's max-iterations or epochs"
                                                 : "leave the validation out")));
      const auto guesses = plan.train ? guessing_text(pipeline, k, training->stationarity.objective) : std::string();
      if (!guesses.empty()) {
        doubt(guesses);
      }
    }
  }
  if (line.flag("json")) {
    say("{}\n", Ready{json_text(out, 2)});
  }
  return doubtful && line.flag("strict") ? kStrict : kDone;
}

}  // namespace whence::cli
