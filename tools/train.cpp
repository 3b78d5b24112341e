#include <fmt/format.h>

#include "cli.h"
#include "run_record.h"

namespace whence::cli {
namespace po = boost::program_options;

int train(const std::vector<std::string>& arguments) {
  CommandLine line("train", "PIPELINE [--stage NAME] [--force]",
                   "Trains the stages that have no checkpoint yet, in order, and says how far each is from a minimum.");
  line.positional("PIPELINE", "the pipeline file");
  line.add()("stage", po::value<std::string>(), "train this stage only")("force", po::bool_switch(),
                                                                         "train again what has a checkpoint");
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
  auto out = nlohmann::ordered_json::array();
  bool far = false;
  for (auto k = begin; k < end; ++k) {
    const auto& description = pipeline.stages()[k];
    const bool needed = line.flag("force") || !pipeline.is_trained(k);
    TrainingSummary summary;
    if (needed) {
      summary = pipeline.train(k, progress);
      end_progress();
    }
    const auto chain = pipeline.load(k + 1);
    const auto& stage = chain.back();
    const auto at = stationarity(stage.objective, stage.theta, stage.parent);
    out.push_back({{"stage", stage.name},
                   {"trained", needed},
                   {"iterations", summary.iterations},
                   {"seconds", summary.seconds},
                   {"message", needed ? summary.message : "has a checkpoint"},
                   {"objective", at.objective},
                   {"gradient-norm", at.gradient_norm},
                   {"relative-gradient-norm", at.relative_gradient_norm},
                   {"checkpoint", description.checkpoint.string()}});
    if (!line.flag("json")) {
      fmt::print(
          "{:<12} {}  {} examples, {} parameters  objective {:.6g}  |gradient| {:.1e} ({:.1e} of an example's)\n",
          stage.name,
          needed ? fmt::format("trained, {} iterations in {:.1f} s: {}", summary.iterations, summary.seconds,
                               summary.message)
                 : "has a checkpoint",
          stage.objective.data().size(), stage.objective.trained().entries(), at.objective, at.gradient_norm,
          at.relative_gradient_norm);
      std::fflush(stdout);
    }
    if (at.relative_gradient_norm > kFarFromMinimum) {
      far = true;
      warn(far_from_minimum_text(
          stage.name, at,
          "whence rank then takes a Gauss-Newton curvature, which needs no minimum; for the exact Hessian raise the "
          "optimizer's max-iterations or epochs and train with --force"));
    }
  }
  if (line.flag("json")) {
    fmt::print("{}\n", out.dump(2));
  }
  return far && line.flag("strict") ? kStrict : kDone;
}

}  // namespace whence::cli
