#include "verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "attribution_options.h"
#include "result.h"
#include "trainings.h"
#include "whence/core/quoted.h"
#include "whence/curvature/curvature.h"
#include "whence/evaluate/statistics.h"

namespace whence::cli {
namespace fs = std::filesystem;

Interval interval_of(const JsonView& json, const char* key) {
  const auto end = [&](std::size_t i) {
    return json.contains(key) && json[key][i].is_number() ? json[key][i].get<double>() : StageEvidenceSummary::kUnknown;
  };
  return {end(0), end(1)};
}

namespace {

/// The example whose removal was predicted worst, and the correlation of the others: of the points of leave-one-out.
std::pair<std::int64_t, double> apart_of(const JsonView& evaluation) {
  std::map<std::int64_t, double> errors;
  std::vector<std::tuple<std::int64_t, double, double>> points;
  for (const auto& point : evaluation.list("points")) {
    points.emplace_back(point["example"].get<std::int64_t>(), number_of(point, "predicted"),
                        number_of(point, "actual"));
    const auto& [example, predicted, actual] = points.back();
    errors[example] = std::max(errors[example], std::abs(predicted - actual));
  }
  if (errors.empty()) {
    return {-1, 0};
  }
  const auto worst = std::max_element(errors.begin(), errors.end(), [](const auto& a, const auto& b) {
                       return a.second < b.second;
                     })->first;
  std::vector<double> predicted, actual;
  for (const auto& [example, foretold, found] : points) {
    if (example != worst) {
      predicted.push_back(foretold);
      actual.push_back(found);
    }
  }
  return {worst, pearson(predicted, actual)};
}

std::string name_of(const std::string& spec) { return spec.substr(0, spec.find(':')); }

/// By its numbers alone.
Verdict verdict_of_numbers(const JsonView& evaluation) {
  const double seconds = number_of(evaluation, "seconds-a-training", 0);
  if (evaluation["against"] == "lds") {
    auto verdict = judge(SubsetAgreement{.score = number_of(evaluation, "lds"),
                                         .interval = interval_of(evaluation, "lds-interval-95"),
                                         .subsets = evaluation["subsets"].get<std::int64_t>(),
                                         .seconds = seconds});
    if (const double share = number_of(evaluation, "share-of-ceiling"); std::isfinite(share)) {
      verdict.text += "; " + share_text(share, interval_of(evaluation, "share-interval-95"));
    }
    return verdict;
  }
  const auto [apart, without] = apart_of(evaluation);
  return judge(Agreement{.pearson = number_of(evaluation, "pearson"),
                         .interval = interval_of(evaluation, "pearson-interval-95"),
                         .spearman = number_of(evaluation, "spearman"),
                         .slope = number_of(evaluation, "slope"),
                         .sizes = evaluation.value("predicts-removal", true),
                         .examples = evaluation["examples"].get<std::int64_t>(),
                         .available = evaluation.value("available-examples", std::int64_t{0}),
                         .apart = apart,
                         .without = without,
                         .seconds = seconds});
}

}  // namespace

Verdict verdict_of_evaluation(const JsonView& evaluation) {
  auto out = verdict_of_numbers(evaluation);
  if (evaluation.contains("goes-on-by")) {
    out.text += "; of training that goes on from the checkpoint by " + evaluation["goes-on-by"].get<std::string>();
  }
  if (const auto reservation = reservation_text(evaluation); !reservation.empty()) {
    if (out.level == Verdict::Level::kTrusted || out.level == Verdict::Level::kNot) {
      out = {Verdict::Level::kCare, "with care" + out.text.substr(out.text.find(": "))};
    }
    out.text += "; " + reservation;
  }
  return out;
}

std::vector<JsonView> evaluations_of(const Result& result) {
  std::vector<JsonView> out;
  for (const char* name : {"evaluation.json", "evaluation-lds.json"}) {
    if (result.has(name) && fs::exists(result.folder() / name)) {
      out.push_back(JsonView::read(result.file(name)));
    }
  }
  return out;
}

std::optional<JsonView> evaluation_of(const Result& result) {
  const auto found = evaluations_of(result);
  return found.empty() ? std::nullopt : std::optional(found.front());
}

std::string check_text(const JsonView& run, const std::string& stage, const fs::path& folder) {
  const auto options = run["options"];
  const auto pipeline = shell_word(fs::path(run["pipeline"].get<std::string>()).filename().string());
  const auto stages = run["stages"].items();
  std::string of = stage;
  std::optional<std::string> elsewhere;  // whose checkpoint retraining would not lead back to ...
  std::string by;                        // ... and its optimizer
  bool met = stage == kEveryStage;
  for (const auto& [name, told] : stages) {
    met = met || name == stage;
    if (met && told.contains("trained-elsewhere-by") && (!elsewhere || by != "")) {
      of = stage == kEveryStage ? name : stage;
      elsewhere = name;
      by = told["trained-elsewhere-by"].get<std::string>();
    }
  }
  if (!elsewhere) {
    const bool every = stage == kEveryStage;
    const auto evaluate = fmt::format("whence evaluate {}{} --scores {}", pipeline, every ? " --stage NAME" : "",
                                      folder.empty() ? "DIR" : shell_word(folder.string()));
    return !folder.empty() ? evaluate
           : every         ? "rank again with --out DIR, then " + evaluate
                           : "rank again with --spot-check 20, or with --out DIR and then " + evaluate;
  }
  const auto spec = options["method"].get<std::string>();
  const bool inverted = create<Attributor>(spec)->uses_curvature() && options.contains("curvature");
  const auto limit = options.value("limit-queries", std::int64_t{0});
  const auto measurement = options.value("measurement", "loss");
  const auto dtype = options.value("dtype", "float32");
  const auto command = fmt::format(
      "whence evaluate {}{} --queries {}{}{}{} --methods {} --against further-training --out DIR", pipeline,
      stages.size() > 1 ? " --stage " + of : "", options["queries"].get<std::string>(),
      limit > 0 ? fmt::format(" --limit-queries {}", limit) : "",
      measurement == "loss" ? "" : " --measurement " + measurement, dtype == "float32" ? "" : " --dtype " + dtype,
      name_of(inverted ? options["curvature"].get<std::string>() : spec));
  return by.empty() ? fmt::format("{}, and type {}", say_optimizer_text(*elsewhere), command) : command;
}

std::string share_text(double share, const Interval& interval) {
  return fmt::format(
      "{:.2f}{} of what retraining itself reaches with another seed", share,
      std::isfinite(interval.low) ? fmt::format(" (95 % {:.2f} to {:.2f})", interval.low, interval.high) : "");
}

std::string reservation_text(const JsonView& evaluation) {
  if (evaluation.contains("goes-on-by")) {
    const bool favours =
        !evaluation.value("as-trained", true) && name_of(evaluation["goes-on-by"].get<std::string>()) == "sgd";
    return favours ? fmt::format(
                         "steps of sgd go along examples' gradients, which favours grad-dot; better by the "
                         "optimizer that trained it, said in [[stage]] {}, without --optimizer",
                         evaluation["stage"].get<std::string>())
                   : "";
  }
  constexpr double kElsewhere = 0.1;
  const double apart = number_of(evaluation, "reference-apart", 0);
  return apart > kElsewhere ? fmt::format(
                                  "trained again with every example it ends far from its checkpoint (the "
                                  "queries' measurements differ by {:.2g} of their size)",
                                  apart)
                            : "";
}

Verdict verdict_of_ranking(const JsonView& run, const std::optional<JsonView>& evaluation, const fs::path& folder) {
  const auto options = run["options"];
  const auto method = create<Attributor>(options["method"].get<std::string>());
  RankingEvidence evidence{.method = name_of(options["method"].get<std::string>()),
                           .claim = method->claim(),
                           .curved = method->uses_curvature()};
  const auto response = evidence.curved ? response_traits(options["response"].get<std::string>())
                                        : ResponseTraits{.assumes_minimum = true};
  evidence.assumes_minimum = response.assumes_minimum;
  if (evidence.curved && response.inverts) {
    const auto curvature = create<Curvature>(name_of(options["curvature"].get<std::string>()));
    evidence.hessian = curvature->family() == CurvatureFamily::kHessian;
  }
  for (const auto& [name, stage] : run["stages"].items()) {
    if (evidence.curved && !stage.contains("relative-gradient-norm") && !stage.contains("solves")) {
      continue;  // before those that were scored: nothing was solved there, and nothing rests on it
    }
    StageEvidenceSummary told{.stage = name,
                              .relative_gradient = number_of(stage, "relative-gradient-norm"),
                              .damping = number_of(stage, "damping", 0),
                              .mean_eigenvalue = number_of(stage, "mean-eigenvalue")};
    const bool own_end = is_self(run) || !response.inverts;  // a loss of one's own is taken at one's own end
    told.through = own_end ? "" : stage.value("through", "");
    told.beyond_range = stage.contains("queries-beyond-range");
    told.more_damping = stage.value("more-damping", "");
    told.gauss_newton = stage.value("gauss-newton", true);
    told.guesses = stage.contains("no-better-than-guess");
    told.stopped_early = stage.contains("validation") && stage["validation"].value("stopped-early", false);
    if (stage.contains("leverages")) {
      const auto& worst = stage["leverages"][0];
      told.leverage = number_of(worst, "leverage");
      told.leans_on = worst["example"].get<std::int64_t>();
    }
    if (stage.contains("solves")) {
      told.solves = static_cast<std::int64_t>(stage["solves"].size());
      told.unconverged = stage["unconverged-solves"].get<std::int64_t>();
      told.approximate = stage["approximate-solves"].get<std::int64_t>();
      told.residual = number_of(stage, "largest-relative-residual");
    }
    told.approximate += stage.value("approximate-self-influence", false) ? 1 : 0;
    evidence.stages.push_back(std::move(told));
  }
  evidence.passes = options.value("dtype", "");
  evidence.warnings = run["warnings"].get<std::vector<std::string>>();
  for (const auto& [name, stage] : run["stages"].items()) {
    constexpr double kUnstable = 1e4;
    if (const double growth = adjoint_growth(stage); growth > kUnstable) {
      evidence.warnings.push_back(
          fmt::format("derivatives grew {:.1g}-fold on their way back through the training of {}, which is unstable: "
                      "they may hold for small changes alone",
                      growth, name));
    }
  }
  if (evaluation) {
    evidence.evaluated = verdict_of_evaluation(*evaluation);
  }
  const auto stage = options["stage"].get<std::string>();
  if (!is_self(run)) {  // else there is no query to retrain for
    evidence.check = check_text(run, stage, folder);
  }
  auto out = judge(evidence);
  const auto guesses = std::find_if(evidence.stages.begin(), evidence.stages.end(),
                                    [](const StageEvidenceSummary& told) { return told.guesses; });
  if (guesses != evidence.stages.end() && evidence.claim != Claim::kNothing) {
    const auto look_at = run["stages"][guesses->stage]["no-better-than-guess"].value("look-at", "");
    out.text += look_at.empty() ? "" : "; look at " + look_at;
  }
  if (is_self(run)) {
    return out;
  }
  if (!response.inverts && !evaluation && out.level == Verdict::Level::kTrusted) {
    out.level = Verdict::Level::kCare;
    out.text = fmt::format(
        "with care: exact of small changes of this very training, and where units switch, as relu's do, leaving an "
        "example out may be none; to check: {}",
        evidence.check);
  } else if (run.contains("instead") && !evaluation && out.level != Verdict::Level::kTrusted) {
    out.text += fmt::format("; back through the very training, for smooth activations rather than relu: {}",
                            run["instead"].get<std::string>());
  }
  return out;
}

}  // namespace whence::cli
