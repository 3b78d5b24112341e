#include "attribution_run.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "attribution_options.h"
#include "json.h"
#include "memory_limit.h"
#include "plan.h"
#include "query_split.h"
#include "removal_doubts.h"
#include "result.h"
#include "say.h"
#include "score_tables.h"
#include "verdict.h"
#include "whence/attribution/self_influence.h"
#include "whence/attribution/started.h"
#include "whence/attribution/unrolled_source.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/memory.h"
#include "whence/store/score_store.h"
#include "whence/store/self_scores.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace {

std::string required_pipeline(const CommandLine& line) {
  if (!line.has("PIPELINE")) {
    throw UsageError(fmt::format("PIPELINE is missing; `whence {} --help` tells the arguments", line.command()));
  }
  return line.text("PIPELINE");
}

/// --stage, or the only stage there is.
std::string stage_of(const CommandLine& line, const Pipeline& pipeline) {
  if (line.has("stage")) {
    return line.text("stage");
  }
  std::vector<std::string> names;
  for (const auto& stage : pipeline.stages()) {
    names.push_back(stage.name);
  }
  if (names.size() == 1) {
    return names.front();
  }
  throw UsageError(fmt::format("--stage is missing: whose examples? {} has {}, or all: --stage {}",
                               pipeline.path().string(), fmt::join(names, ", "), names.back()));
}

/// Throws for flags that response unrolled has no place for.
void check_unrolled(const CommandLine& line) {
  if (line.flag("self")) {
    throw UsageError(
        "--response unrolled takes a training for every block of queries, and --self makes a query of every example: "
        "give --queries, or leave out --response");
  }
  for (const auto& other : inverse_flags()) {
    if (line.given(other)) {
      throw UsageError(fmt::format(
          "--response unrolled goes through training itself and inverts no curvature: leave out --{}", other));
    }
  }
}

/// Where a stage from `first` on ended at no minimum and all could be gone again: the flag for that, and what it takes.
std::string unrolled_advice(const Pipeline& pipeline, const Chain& chain, std::size_t first) {
  try {
    Unrolled(chain, training_runs(pipeline, chain, first)).check(first);
  } catch (const InvalidArgument&) {
    return {};
  }
  return "--response unrolled, about four trainings a query";
}

}  // namespace

AttributionRun::AttributionRun(const CommandLine& line)
    : line_(line),
      pipeline_(required_pipeline(line), line.run_options()),
      measurement_(parse_measurement(line.text("measurement"))),
      normalization_(parse_normalization(line.text("normalize"))),
      query_block_(line.whole("query-block", 1)),
      record_(line, pipeline_) {
  const auto stage = stage_of(line, pipeline_);
  if (stage == kEveryStage) {
    for (std::size_t k = 0; k < pipeline_.stages().size(); ++k) {
      stages_.push_back(k);
    }
  } else {
    stages_.push_back(pipeline_.stage_index(stage));
  }
  line.whole("limit-queries", 0);
  asked_ = inverse_request(line);
  auto& options = record_.json()["options"];
  options["stage"] = stage;
  if (line.flag("self")) {
    for (const char* other : {"queries", "limit-queries", "queries-wrong", "measurement", "normalize"}) {
      if (line.given(other)) {
        throw UsageError(fmt::format("--self scores examples for their own losses: leave out --{}", other));
      }
    }
    options["self"] = true;
  } else {
    split_ = required_query_split(line, pipeline_, ", or --self to score each example for its own loss");
    options["queries"] = split_;
    options["limit-queries"] = line.get<std::int64_t>("limit-queries");
    if (line.flag("queries-wrong")) {
      options["queries-wrong"] = true;
    }
  }
  options["measurement"] = to_string(measurement_);
  options["method"] = resolved_spec<Attributor>(line.text("method"));
  options["normalize"] = to_string(normalization_);
  attributor_ = create<Attributor>(line.text("method"));
  if (attributor_->uses_curvature()) {
    options["response"] = line.text("response");
    if (line.text("response") == kUnrolled) {
      check_unrolled(line);
      unrolled_ = true;
      attributor_ = std::make_shared<UnrolledInfluence>(
          [this](const Chain& chain) { return training_runs(pipeline_, chain, stages_.front()); });
    } else {
      options["inversion"] = to_string(asked_.options.inversion);
      record_.add_request(asked_);
    }
  } else {
    auto unused = inverse_flags();
    unused.emplace_back("response");
    line.note_unused(unused, fmt::format("--method {} inverts no curvature", line.text("method")));
  }
}

Json AttributionRun::plan() {
  const double program = resident_bytes();
  load();
  record_.add_inputs(pipeline_, queries_);  // as the run does, which takes time and memory
  within_memory([&] { choose(); });
  if (self()) {
    Json told;
    for (const auto k : stages_) {
      told["self-influence"][chain_[k].name] = self_influence_plan(self_task(k));
    }
    return told;
  }
  const bool curved = attributor_->uses_curvature();
  auto out = make_plan({chain_, *attributor_, choice_.options, stages_, queries_, measurement_, normalization_,
                        std::min(query_block_, queries_.size()), *source_, curved ? choice_.curvature : "",
                        curved ? choice_.solver : "", pipeline_.options().dtype == at::kDouble ? 8. : 4., program});
  if (curved && !choice_.reason.empty()) {
    out["chosen"] = choice_text(choice_, {}, chain_);
  }
  return out;
}

void AttributionRun::run(const fs::path& folder, std::int64_t top) {
  top_ = top;
  out_.emplace(folder, outputs());
  check_kind(*out_, kAttributionCommands);
  record_.phase("load");
  load();
  record_.add_inputs(pipeline_, queries_);
  check_spares_inputs(record_.view(), folder, outputs());
  within_memory([&] { measurements_ = measure_all(measurement_, chain_.back(), queries_); });
  check_finite(measurements_, "a query's measurement");
  record_.phase("check");
  within_memory([&] { choose(); });
  if (reuse()) {
    if (out_->finished(record_.key(), {"ranking.jsonl"}) != nullptr) {
      keep_tokens(read_rankings(out_->find("ranking.jsonl")));
    }
    within_memory([&] { score_tokens({}); });
    return;
  }
  give_back_freed_memory();  // of loading and checking, which may have taken more than what is left to do
  const auto* held = out_->finished(record_.key(), {});  // whose evaluation stays beside what is made again
  const auto judged = held != nullptr ? evaluation_of(*held) : std::nullopt;
  within_memory([&] {
    solve([&] {
      score();
      if (attributor_->predicts_removal(normalization_)) {
        doubt_removals();
      }
    });
  });
  record_.json()["verdict"] = verdict_of_ranking(record_.view(), judged, line_.has("out") ? folder : fs::path()).text;
}

void AttributionRun::publish() {
  if (!reused_) {
    record_.phase("");
  }
  out_->publish(record_.key(), record_.json());
}

void AttributionRun::within_memory(const std::function<void()>& work) {
  for (bool again = false;; again = true) {
    try {
      if (again && source_) {
        set_choice(InverseChoice(choice_));  // to be made ready anew
      }
      return work();
    } catch (const std::exception& error) {
      const bool one = query_block_ == 1 && std::all_of(chain_.begin(), chain_.end(), [](const auto& stage) {
                         return stage.objective.batch_size() == 1;
                       });
      if (std::isinf(memory_limit()) || !is_out_of_memory(error) || one) {
        throw;
      }
    }
    const auto half = [](std::int64_t count, std::int64_t most) { return (std::min(count, most) + 1) / 2; };
    query_block_ = half(query_block_, self() ? query_block_ : queries_.size());
    std::int64_t largest = 1;
    for (auto& stage : chain_) {
      const auto& whole = stage.objective;
      stage.objective = whole.with_batch_size(half(whole.batch_size(), whole.data().size()));
      largest = std::max(largest, stage.objective.batch_size());
    }
    record_.json()["options"]["batch-size"] = largest;
    forget_peak();  // which gives freed memory back
    keep_reserve();
    if (!line_.flag("quiet")) {
      end_progress();
      note(fmt::format("--query-block {} --batch-size {}, to stay within --memory-limit", query_block_, largest));
    }
  }
}

void AttributionRun::solve(const std::function<void()>& score) {
  const auto attempt = [&] {
    if (attributor_->uses_curvature() || unrolled_) {
      if (!self()) {  // which prepares for itself, a stage at a time
        const auto progress = terminal_progress(line_.flag("quiet"));
        const ProgressScope scope(progress, {"prepare to solve", 0, 0, ""});
        source_->make_ready(stages_);
      }
      tell_choice();
    } else {
      record_.add_stages(pipeline_, chain_, stages_.front(), {}, false, "");
    }
    record_.phase("attribute", "solve and score");
    score();
    tell_tests();
  };
  try {
    attempt();
  } catch (const IndefiniteCurvature&) {
    if (!asked_.curvature_is_open() || asked_.indefinite) {
      throw;
    }
    asked_.indefinite = true;  // the few products that looked for it did not meet it
    out_->abandon();
    set_choice(choose_inverse(chain_, stages_.front(), solved_for(), asked_, terminal_progress(line_.flag("quiet"))));
    attempt();
  }
}

void AttributionRun::tell_tests() {
  if (auto* tested = dynamic_cast<TestedSource*>(source_.get()); tested != nullptr && !self()) {
    for (const auto& text : tested->warnings(stages_)) {
      record_.warning(text);
    }
    for (const auto& text : tested->notes(stages_)) {
      record_.doubt(text);
    }
  }
}

bool AttributionRun::near_minimum(std::size_t stage) const {
  const auto& at = choice_.stationarity;
  return stage < at.size() && at[stage] && at[stage]->relative_gradient_norm <= kFarFromMinimum;
}

void AttributionRun::doubt_removals() {
  const auto scores = read_scores(out_->find("scores.safetensors"));
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    const auto& stage = chain_[stages_[s]];
    const auto held = scores.stages.at(s).scores.to(at::kDouble);
    const auto n = static_cast<double>(held.size(1));
    doubt_beyond_range({stage, held / -n, scores.stages.at(s).example_ids, queries_, measurements_, measurement_,
                        attributor_->uses_curvature() ? &choice_.options : nullptr},
                       record_);
    if (!near_minimum(stages_[s])) {
      continue;
    }
    double products = 0, solves = 0;
    for (const auto& done : solves_) {
      for (const auto& summary : done.summaries) {
        const bool here = done.stage == stage.name;
        products += here ? std::max(0.0, summary.products) : 0;
        solves += here ? 1 : 0;
      }
    }
    const auto leverages = find_leverages(chain_, stages_[s], *source_, largest_removals(held, kLookedForLeverage),
                                          queries_, measurement_, products, solves);
    doubt_leverages(stage, leverages, queries_, record_);
  }
}

void AttributionRun::choose() {
  if (!attributor_->uses_curvature()) {
    set_choice({"hessian", "cg", {}, "", "", {}});  // which the method does not look at
    return;
  }
  // what cannot be had is refused before anything is worked out
  const auto curvature = asked_.curvature_is_open() ? "hessian" : asked_.curvature;
  attributor_->prepare(chain_, {create<Curvature>(curvature), create<Solver>("cg"), {}})
      ->check(stages_, measurement_, normalization_);
  for (const auto& record : out_ ? out_->earlier() : std::vector<JsonView>()) {
    if (auto earlier = record_.choice_of(record)) {
      earlier->options.response = asked_.options.response;
      earlier->options.time = asked_.options.time;
      earlier->options.steps = asked_.options.steps;
      earlier->options.inversion = asked_.options.inversion;
      set_choice(std::move(*earlier));
      return;
    }
  }
  set_choice(choose_inverse(chain_, stages_.front(), solved_for(), asked_, terminal_progress(line_.flag("quiet"))));
  end_progress();
}

void AttributionRun::set_choice(InverseChoice choice) {
  choice_ = std::move(choice);
  source_.reset();
  curvature_ = create<Curvature>(choice_.curvature);
  solver_ = create<Solver>(choice_.solver);
  source_ = attributor_->prepare(chain_, {curvature_, solver_, choice_.options});
  source_->check(stages_, measurement_, normalization_);
  if (attributor_->uses_curvature()) {
    record_.add_choice(choice_);
  }
}

void AttributionRun::tell_choice() {
  const bool tells = !choice_.reason.empty() && !line_.flag("quiet");
  if (tells) {
    end_progress();
    remark("whence: {}\n", choice_text(choice_, source_->evidence(), chain_));
  }
  if (choice_.stationarity.empty()) {  // an earlier run's choice
    choice_.stationarity.resize(chain_.size());
    for (auto k = stages_.front(); k < chain_.size(); ++k) {
      choice_.stationarity[k] = stationarity(chain_[k]);
    }
  }
  const bool needs_none = curvature_->family() == CurvatureFamily::kGaussNewton &&
                          (choice_.options.damping > 0 || choice_.options.relative_damping > 0);
  const auto remedy =
      needs_none && tells && asked_.curvature_is_open() ? std::string()
      : needs_none
          ? "scores are those of its proximal Bregman objective (--response proximal-bregman asks for just that)"
      : have_gauss_newton(chain_, 0)
          ? "scores assume a minimum: type --curvature gauss-newton --damping training, which needs none"
          : "scores assume a minimum, and no Gauss-Newton matrix, which would need none, is to be had of this "
            "objective";
  std::string advice;
  for (auto k = stages_.front(); k < chain_.size() && advice.empty() && !unrolled_; ++k) {
    if (!near_minimum(k) && normalization_ == Normalization::kNone && !self()) {
      advice = unrolled_advice(pipeline_, chain_, stages_.front());
    }
  }
  if (!advice.empty()) {
    record_.json()["instead"] = advice;
  }
  record_.add_stages(
      pipeline_, chain_, stages_.front(), choice_.stationarity,
      !unrolled_ && choice_.options.response == Response::kStationary,
      remedy.empty() || advice.empty()
          ? remedy
          : fmt::format("{}; back through the very training, for smooth activations rather than relu: {}", remedy,
                        advice));
}

bool AttributionRun::reuse() {
  const auto* earlier = out_->finished(record_.key(), {"scores.safetensors"});
  if (earlier == nullptr) {
    return false;
  }
  reused_ = true;
  record_.repeat(earlier->run());
  return true;
}

std::int64_t AttributionRun::solved_for() const { return self() ? 1 : queries_.size(); }

std::vector<std::string> AttributionRun::outputs() const {
  auto names = table_files(*this, parse_formats(line_.text("format")));
  names.emplace_back("scores.safetensors");
  if (ranks()) {
    names.emplace_back("ranking.jsonl");
    if (line_.has("spot-check")) {
      names.emplace_back("evaluation.json");
      names.emplace_back("evaluation.svg");
    }
  }
  return names;
}

void AttributionRun::load() {
  record_.warn_of_changes(pipeline_);  // first: it may be why what follows fails
  chain_ = pipeline_.load();
  if (every_stage() && !chain_.front().parent.empty() && !line_.flag("quiet")) {
    note(fmt::format("stage {} tunes the model as its folder has it: nothing is scored for what that was trained on",
                     chain_.front().name));
  }
  if (const auto* started = dynamic_cast<const StartedAttributor*>(attributor_.get())) {
    std::map<std::string, StageStart> starts;
    for (const auto k : self() ? stages_ : std::vector{chain_.size() - 1}) {  // whose kernels are made
      auto& start = starts[chain_[k].name];
      try {
        start.theta = pipeline_.start(k, Chain(chain_.begin(), chain_.begin() + static_cast<std::ptrdiff_t>(k)));
      } catch (const InvalidArgument& error) {
        start.unknown = error.what();
      }
    }
    attributor_ = started->with_starts(std::move(starts));
  }
  if (!self()) {
    const auto limit = line_.get<std::int64_t>("limit-queries");
    queries_ = line_.flag("queries-wrong") ? wrong_queries(limit) : pipeline_.queries(split_, limit);
    check_room(chain_.back(), queries_);
  }
}

Dataset AttributionRun::wrong_queries(std::int64_t limit) const {
  const auto all = pipeline_.queries(split_);
  if (all.target_kind() != TargetKind::kClasses) {
    throw InvalidArgument(
        fmt::format("--queries-wrong: [queries.{}] asks for no classes, so none of them is wrong", split_));
  }
  const auto said = predict(chain_.back(), all);
  std::vector<std::int64_t> rows;
  for (std::size_t q = 0; q < said.size(); ++q) {
    if (said[q].predicted != said[q].expected) {
      rows.push_back(static_cast<std::int64_t>(q));
    }
  }
  if (rows.empty()) {
    throw InvalidArgument(
        fmt::format("--queries-wrong: the model gets none of the {} queries of [queries.{}] wrong: leave it out",
                    all.size(), split_));
  }
  if (!line_.flag("quiet")) {
    end_progress();
    remark("whence: the model gets {} of {} queries of [queries.{}] wrong\n", rows.size(), all.size(), split_);
  }
  if (limit > 0 && static_cast<std::size_t>(limit) < rows.size()) {
    rows.resize(static_cast<std::size_t>(limit));
  }
  return all.take(at::tensor(rows, at::kLong));
}

AttributionTask AttributionRun::task() const {
  return {chain_, stages_, {}, queries_, measurement_, query_block_, normalization_};
}

void AttributionRun::score() {
  std::vector<ScoreLayout> layouts;
  for (const auto k : stages_) {
    layouts.push_back({every_stage() ? "scores." + chain_[k].name : "scores", chain_[k].objective.data().ids()});
  }
  const bool wide = pipeline_.options().dtype == at::kDouble;
  ScoreStore store(out_->begin(record_.key(), record_.json()), layouts, queries_.ids(),
                   wide ? at::kDouble : at::kFloat);
  auto task = this->task();
  for (const auto& layout : layouts) {
    task.sinks.push_back(&store.sink(layout.name));
  }
  const VectorCache cache{
      [&](const std::string& block) { return store.load_vectors(block); },
      [&](const std::string& block, const ParameterSet& vectors) { store.save_vectors(block, vectors); }};
  const auto progress = terminal_progress(line_.flag("quiet"));
  solves_ = attribute(task, *source_, cache, progress);
  end_progress();
  record_.add_solves(solves_, source_->evidence(), chain_);
  if (const auto* unrolled = dynamic_cast<const UnrolledSource*>(source_.get()); unrolled != nullptr) {
    for (std::size_t k = 0; k < chain_.size(); ++k) {
      if (const auto& found = unrolled->steps()[k]; found.steps > 0) {
        record_.json()["stages"][chain_[k].name]["unrolled"] = {
            {"steps", found.steps}, {"replay-difference", found.replay_difference}, {"adjoint-growth", found.growth}};
      }
    }
  }
  store.write(out_->place("scores.safetensors"), record_.key());
  score_tokens(cache);
}

}  // namespace whence::cli
