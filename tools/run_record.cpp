#include "run_record.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>

#include "json.h"
#include "whence/core/files.h"
#include "whence/core/parallel.h"
#include "whence/data/coarse_inputs.h"
#include "whence/data/training_checks.h"
#include "whence/models/addition.h"
#include "whence/models/checkpoint.h"
#include "whence/store/result_folder.h"
#include "whence/training/steps.h"
#include "whence/version.h"

namespace whence::cli {
namespace fs = std::filesystem;

RunRecord::RunRecord(const CommandLine& line, const Pipeline& pipeline) : RunRecord(line, pipeline.seed()) {
  json_["pipeline"] = fs::absolute(pipeline.path()).string();
}

RunRecord::RunRecord(const CommandLine& line, std::uint64_t seed) {
  progress_ = terminal_progress(line.flag("quiet"));
  json_["command"] = line.command();
  json_["arguments"] = line.arguments();
  json_["options"] = Json::object();
  json_["options"]["dtype"] = line.text("dtype");
  json_["options"]["device"] = line.text("device");
  json_["options"]["batch-size"] = line.run_options().batch_size;
  json_["options"]["threads"] = threads();
  json_["seed"] = seed;
  json_["versions"] = {{"whence", WHENCE_VERSION}, {"torch", TORCH_VERSION}};
  json_["inputs"] = Json::object();
  json_["warnings"] = Json::array();
}

void RunRecord::warning(const std::string& message) {
  told_warning(message);
  warn(message);
}

namespace {

/// A run that begins anew, on other grounds or with less memory, says some things again.
void add_once(Json& list, const std::string& message) {
  if (std::find(list.begin(), list.end(), message) == list.end()) {
    list.push_back(message);
  }
}

}  // namespace

void RunRecord::told_warning(const std::string& message) {
  strict_ = true;
  add_once(json_["warnings"], message);
}

void RunRecord::doubt(const std::string& message) {
  add_once(json_["doubts"], message);
  warn(message);
}

void RunRecord::repeat(const JsonView& earlier) {
  for (const auto& message : earlier.list("warnings")) {
    warning(message.get<std::string>());
  }
  for (const auto& message : earlier.list("doubts")) {
    doubt(message.get<std::string>());
  }
  json_ = earlier.json();
}

void RunRecord::phase(const std::string& name, const std::string& words) {
  const auto now = std::chrono::steady_clock::now();
  if (!phase_.empty()) {
    json_["seconds"][phase_] = std::chrono::duration<double>(now - phase_begin_).count();
  }
  phase_ = name;
  phase_begin_ = now;
  if (name.empty()) {
    end_progress();
  } else {
    report(progress_, {words.empty() ? name : words, 0, 0, ""});
  }
}

void RunRecord::warn_of_changes(const Pipeline& pipeline) {
  for (const auto& text : changes_texts(pipeline)) {
    warning(text);
  }
}

void RunRecord::add_inputs(const Pipeline& pipeline, const Dataset& queries) {
  auto files = pipeline.model_files();
  files.insert(files.begin(), pipeline.path());
  for (std::size_t k = 0; k < pipeline.stages().size(); ++k) {
    const auto checkpoint = checkpoint_files(pipeline.stages()[k].checkpoint);
    files.insert(files.end(), checkpoint.begin(), checkpoint.end());
    const auto snapshots = pipeline.snapshot_files(k);
    files.insert(files.end(), snapshots.begin(), snapshots.end());
    const auto& data = pipeline.training_data(k).files();
    files.insert(files.end(), data.begin(), data.end());
    const auto from = pipeline.trained_from(k);  // what ended its training too
    files.insert(files.end(), from.begin(), from.end());
  }
  files.insert(files.end(), queries.files().begin(), queries.files().end());
  add_inputs(files);
  json_["notes"] = pipeline.notes();
}

void RunRecord::add_inputs(const std::vector<fs::path>& files) {
  for (const auto& file : files) {
    const auto name = fs::absolute(file).lexically_normal().string();
    if (!json_["inputs"].contains(name)) {
      report(progress_, {"read " + file.filename().string(), 0, 0, ""});
      json_["inputs"][name] = digest_if_there(file);
    }
  }
}

Json validation_of(const std::optional<StageTraining>& training) {
  if (!training || training->summary.validation.empty()) {
    return nullptr;
  }
  const auto& summary = training->summary;
  Json out{{"iterations", summary.iterations},
           {"kept-after", summary.kept},
           {"stopped-early", summary.stopped_early},
           {"measurements", Json::array()}};
  for (const auto& at : summary.validation) {
    out["measurements"].push_back({{"iteration", at.iteration}, {"loss", at.loss}});
    if (!std::isnan(at.accuracy)) {
      out["measurements"].back()["accuracy"] = at.accuracy;
    }
  }
  return out;
}

std::string far_from_minimum_text(const std::string& stage, const Stationarity& at,
                                  const std::optional<StageTraining>& training, const std::string& remedy) {
  std::string why;
  if (training && !training->summary.validation.empty()) {
    const auto& summary = training->summary;
    why = fmt::format("; its validation {} and kept the parameters after {} of {}",
                      summary.stopped_early ? "stopped training early" : "did not stop training", summary.kept,
                      summary.iterations);
  }
  return fmt::format(
      "stage {}: the checkpoint is not at a minimum: |gradient| = {:.2e}, {:.1e} of an example's gradient (expected at "
      "most {:.0e}){}{}{}",
      stage, at.gradient_norm, at.relative_gradient_norm, kFarFromMinimum, why, remedy.empty() ? "" : "; ", remedy);
}

std::string choice_text(const InverseChoice& choice, const std::vector<StageEvidence>& evidence, const Chain& chain) {
  const auto name_of = [](const std::string& spec) { return spec.substr(0, spec.find(':')); };
  std::vector<std::string> solvers, dampings;
  for (std::size_t k = 0; k < evidence.size(); ++k) {
    if (!evidence[k].solved) {
      continue;
    }
    const auto picked = name_of(evidence[k].solver.empty() ? choice.solver : evidence[k].solver);
    if (std::find(solvers.begin(), solvers.end(), picked) == solvers.end()) {
      solvers.push_back(picked);
    }
    dampings.push_back(fmt::format("{}{:.3g}", chain.size() > 1 ? chain[k].name + " " : "", evidence[k].damping));
  }
  if (solvers.empty()) {
    solvers.push_back(name_of(choice.solver));
  }
  const double relative = choice.options.relative_damping;
  const bool trained = !choice.options.least_damping.empty();
  const auto damping = relative > 0 || trained
                           ? fmt::format("{:g} x mean eigenvalue{}{}", relative, trained ? " or by training time" : "",
                                         dampings.empty() ? "" : fmt::format(" ({})", fmt::join(dampings, ", ")))
                           : fmt::format("{:.3g}", choice.options.damping);
  const bool iterative = create<Solver>(choice.solver)->picks() &&
                         std::all_of(solvers.begin(), solvers.end(),
                                     [](const auto& s) { return s == "cg" || create<Solver>(s)->picks(); });
  return fmt::format("curvature {}, solver {}, damping {}: {}; {}{}", name_of(choice.curvature),
                     fmt::join(solvers, " and "), damping, choice.reason, choice.otherwise,
                     iterative ? ", --solver cg:relative-tolerance=1e-6 for more digits" : "");
}

void RunRecord::add_request(const InverseRequest& asked) {
  auto& options = json_["options"];
  options["curvature"] = asked.curvature;
  options["solver"] = asked.solver;
  options["damping"] = asked.damping ? Json(*asked.damping) : "auto";
  options["relative-damping"] = asked.relative_damping.value_or(0);
  if (asked.relative_damping) {
    options["damping"] = 0;
  }
  options["asked"] = {{"curvature", asked.curvature}, {"solver", asked.solver}, {"damping", options["damping"]}};
  if (asked.relative_damping) {
    options["asked"]["relative-damping"] = *asked.relative_damping;
  }
  if (asked.training_damping) {
    options["asked"]["training-damping"] = true;
  }
}

void RunRecord::add_choice(const InverseChoice& choice) {
  auto& options = json_["options"];
  options["curvature"] = resolved_spec<Curvature>(choice.curvature);
  options["solver"] = resolved_spec<Solver>(choice.solver);
  options["damping"] = choice.options.damping;
  options["relative-damping"] = choice.options.relative_damping;
  if (!choice.options.least_damping.empty()) {
    options["training-damping"] = choice.options.least_damping;
  }
  if (!choice.reason.empty()) {
    json_["chosen"] = {{"reason", choice.reason}, {"otherwise", choice.otherwise}};
  }
}

std::optional<InverseChoice> RunRecord::choice_of(const JsonView& earlier) const {
  const auto differ = [](const Json& a, const Json& b) {  // whatever the order
    return nlohmann::json(a) != nlohmann::json(b);
  };
  for (const char* key : {"inputs", "seed", "versions"}) {
    if (!earlier.contains(key) || differ(earlier[key].json(), json_.at(key))) {
      return std::nullopt;
    }
  }
  if (!earlier.contains("options") || !earlier["options"].contains("asked")) {
    return std::nullopt;
  }
  const auto chosen = earlier["options"];
  auto asked = json_.at("options"), before = chosen.json();
  for (auto* options : {&asked, &before}) {
    for (const char* key :
         {"curvature", "solver", "damping", "relative-damping", "training-damping", "threads", "batch-size"}) {
      options->erase(key);
    }
  }
  if (differ(asked, before) || chosen["relative-damping"].is_string() || !chosen["damping"].is_number()) {
    return std::nullopt;
  }
  InverseChoice out;
  out.curvature = chosen["curvature"].get<std::string>();
  out.solver = chosen["solver"].get<std::string>();
  out.options.damping = chosen["damping"].get<double>();
  out.options.relative_damping = chosen["relative-damping"].get<double>();
  out.options.least_damping = chosen.value("training-damping", std::vector<double>());
  if (earlier.contains("chosen")) {
    out.reason = earlier["chosen"]["reason"].get<std::string>();
    out.otherwise = earlier["chosen"]["otherwise"].get<std::string>();
  }
  return out;
}

std::vector<std::string> input_doubts(const std::string& stage, const Dataset& data, at::ScalarType dtype,
                                      bool trained) {
  std::vector<std::string> out;
  for (const auto& text :
       {coarse_inputs_text(coarse_inputs(data, dtype), data.columns(), dtype, trained), input_scale_text(data)}) {
    if (!text.empty()) {
      out.push_back(fmt::format("stage {}: {}", stage, text));
    }
  }
  return out;
}

std::string changes_text(const Pipeline& pipeline, std::size_t stage) {
  const auto changes = pipeline.changes(stage);
  if (changes.empty()) {
    return {};
  }
  const auto& description = pipeline.stages()[stage];
  return fmt::format(
      "stage {}: its checkpoint {} was trained otherwise ({}) and is kept; whence train {} --stage {} --force trains "
      "it "
      "again",
      description.name, description.checkpoint.string(), fmt::join(changes, "; "), pipeline.path().string(),
      description.name);
}

std::vector<std::string> changes_texts(const Pipeline& pipeline) {
  std::vector<std::string> out;
  for (std::size_t k = 0; k < pipeline.stages().size(); ++k) {
    if (auto text = changes_text(pipeline, k); !text.empty()) {
      out.push_back(std::move(text));
    }
  }
  return out;
}

bool tell_changes(const Pipeline& pipeline) {
  const auto texts = changes_texts(pipeline);
  for (const auto& text : texts) {
    warn(text);
  }
  return !texts.empty();
}

namespace {

/// What may be why a model is no better than a guess on a stage's examples.
std::string look_at_text(const Stage& stage, const BesideGuess& beside) {
  return fmt::format("how their inputs are scaled ({}), at {}, and at whether these are the trained weights",
                     stage.objective.data().is_text() ? "tokenizer" : "mean, std, standardize",
                     std::isfinite(beside.accuracy) ? "the order of the classes" : "the scale of the targets");
}

}  // namespace

std::string guessing_text(const Stage& stage, const std::optional<BesideGuess>& beside) {
  if (!beside) {
    return {};
  }
  const bool classes = std::isfinite(beside->accuracy);
  return fmt::format(
      "stage {}: its checkpoint is no better than a guess on its own examples: mean loss {:.3g}, and {:.3g} by {} "
      "alone{} "
      "({} of {} examples): look at {}",
      stage.name, beside->loss, beside->guess, classes ? "how frequent each class is" : "the mean of the targets",
      classes ? fmt::format("; {:.0f} % are right, and the most frequent class is {:.0f} %", 100 * beside->accuracy,
                            100 * beside->most_frequent)
              : "",
      beside->examples, stage.objective.data().size(), look_at_text(stage, *beside));
}

void RunRecord::add_stages(const Pipeline& pipeline, const Chain& chain, std::size_t first,
                           const std::vector<std::optional<Stationarity>>& stationarity, bool assumes_minimum,
                           const std::string& remedy) {
  for (std::size_t k = 0; k < chain.size(); ++k) {
    const auto& stage = chain[k];
    auto& told = json_["stages"][stage.name];
    told = {{"examples", stage.objective.data().size()}, {"trained-parameters", stage.objective.trained().entries()}};
    for (const auto& text : input_doubts(stage.name, stage.objective.data(), stage.theta.front().scalar_type(),
                                         /*trained=*/true)) {
      warning(text);
    }
    const auto training = pipeline.training(k);
    if (auto validation = validation_of(training); !validation.is_null()) {
      told["validation"] = std::move(validation);
    }
    const bool measured = !stationarity.empty() && stationarity[k];
    if (!training && !(measured && stationarity[k]->relative_gradient_norm <= kFarFromMinimum)) {
      const auto& description = pipeline.stages()[k];
      const bool steps = dynamic_cast<const SteppingOptimizer*>(stage.optimizer.get()) != nullptr;
      if (steps || !description.says_optimizer) {
        told["trained-elsewhere-by"] = steps ? description.optimizer : "";
      }
    }
    if (const auto beside = training || k < first ? std::nullopt : no_better_than_guess(stage)) {
      told["no-better-than-guess"] = {{"examples", beside->examples},
                                      {"loss", beside->loss},
                                      {"loss-of-guess", beside->guess},
                                      {"look-at", look_at_text(stage, *beside)}};
      if (std::isfinite(beside->accuracy)) {
        told["no-better-than-guess"].update(
            {{"accuracy", beside->accuracy}, {"most-frequent-class", beside->most_frequent}});
      }
      warning(guessing_text(stage, beside));
    }
    if (!measured) {
      continue;
    }
    const auto& at = *stationarity[k];
    told["objective"] = at.objective;
    told["gradient-norm"] = at.gradient_norm;
    for (auto later = chain.size() - 1; later > k; --later) {
      if (!chain[later].objective.trained().select(kAddedPrefix).empty()) {
        told["through"] = chain[later].name;
      }
    }
    told["relative-gradient-norm"] = at.relative_gradient_norm;
    if (!stage.objective.has_gauss_newton()) {
      told["gauss-newton"] = false;
    }
    if (!assumes_minimum) {
      continue;
    }
    if (at.relative_gradient_norm > kFarFromMinimum) {
      const auto text = far_from_minimum_text(stage.name, at, training, remedy);
      remedy.empty() ? told_warning(text) : warning(text);
    }
  }
  if (!stationarity.empty() && assumes_minimum) {
    for (const auto& sentence : disconnections(chain)) {
      warning(sentence);
    }
  }
}

void RunRecord::add_solves(const std::vector<AttributionSolves>& solves, const std::vector<StageEvidence>& evidence,
                           const Chain& chain) {
  for (std::size_t k = 0; k < evidence.size(); ++k) {
    if (evidence[k].solved) {
      auto& told = json_["stages"][chain[k].name];
      told["damping"] = evidence[k].damping;
      if (!evidence[k].solver.empty()) {
        told["solver"] = evidence[k].solver;
      }
      const auto of_stage =
          std::find_if(solves.begin(), solves.end(), [&](const auto& s) { return s.stage == chain[k].name; });
      told["products"] = of_stage == solves.end() ? evidence[k].products : of_stage->products;
      told["points"] = evidence[k].points;
      if (evidence[k].mean_eigenvalue >= 0) {
        told["mean-eigenvalue"] = evidence[k].mean_eigenvalue;
      }
    }
  }
  for (const auto& [stage, summaries, products] : solves) {
    if (summaries.empty()) {
      continue;
    }
    auto list = Json::array();
    std::int64_t unconverged = 0, approximate = 0;
    double worst = -1, growth = -1, smallest = NAN, largest = NAN;
    const auto& told_of = summaries.front().residual_of;  // of the exact matrix, where any was measured of it
    for (const auto& summary : summaries) {
      Json solve{{"termination", to_string(summary.termination)},
                 {"iterations", summary.iterations},
                 {"relative-residual", summary.relative_residual},
                 {"residual-of", summary.residual_of},
                 {"products", summary.products},
                 {"seconds", summary.seconds}};
      if (summary.energy_growth >= 0) {
        solve["energy-growth"] = summary.energy_growth;
        growth = std::max(growth, summary.energy_growth);
      }
      if (!std::isnan(summary.smallest_ritz)) {
        solve["smallest-ritz-value"] = summary.smallest_ritz;
        solve["largest-ritz-value"] = summary.largest_ritz;
      }
      solve["message"] = summary.message;
      list.push_back(std::move(solve));
      if (summary.residual_of == told_of) {
        worst = std::max(worst, summary.relative_residual);
      }
      smallest = std::fmin(smallest, summary.smallest_ritz);
      largest = std::fmax(largest, summary.largest_ritz);
      approximate += summary.termination == Termination::kApproximate ? 1 : 0;
      unconverged +=
          summary.termination == Termination::kConverged || summary.termination == Termination::kApproximate ? 0 : 1;
    }
    auto& told = json_["stages"][stage];
    told["largest-relative-residual"] = worst;
    told["residual-of"] = told_of;
    if (growth >= 0) {
      told["largest-energy-growth"] = growth;
    }
    told["unconverged-solves"] = unconverged;
    told["approximate-solves"] = approximate;
    if (!std::isnan(smallest)) {
      told["smallest-ritz-value"] = smallest;
      told["largest-ritz-value"] = largest;
    }
    told["solves"] = list;
    if (unconverged > 0) {
      const auto first = std::find_if(summaries.begin(), summaries.end(), [](const auto& s) {
        return s.termination != Termination::kConverged && s.termination != Termination::kApproximate;
      });
      warning(fmt::format("stage {}: {} of {} solves did not converge, the largest relative residual is {:.1e} ({})",
                          stage, unconverged, summaries.size(), worst, first->message));
    }
  }
}

std::string RunRecord::key(const std::vector<std::string>& without) const {
  auto options = json_["options"];
  options.erase("threads");
  options.erase("batch-size");
  options.erase("asked");
  for (const auto& name : without) {
    options.erase(name);
  }
  const auto text = json_text(Json{
      {"options", options}, {"seed", json_["seed"]}, {"inputs", json_["inputs"]}, {"versions", json_["versions"]}});
  return digest(std::as_bytes(std::span(text)));
}

}  // namespace whence::cli
