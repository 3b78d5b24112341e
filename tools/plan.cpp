#include "plan.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "json.h"
#include "memory_limit.h"
#include "say.h"
#include "whence/core/error.h"
#include "whence/core/memory.h"
#include "whence/core/progress.h"
#include "whence/core/seconds.h"
#include "whence/models/addition.h"
#include "whence/stages/cost.h"

namespace whence::cli {
namespace {

/// The option of a curvature that is called `name`; NaN where there is none, or no number.
double option(const std::string& curvature, std::string_view name) {
  const auto [method, given] = find_method<Curvature>(curvature);
  for (const auto& option : method->options(given)) {
    char* end = nullptr;
    const double value = std::strtod(option.value.c_str(), &end);
    if (option.name == name && end != option.value.c_str()) {
      return value;
    }
  }
  return NAN;
}

/// The spec of the solver that will be at work at the stage with the most parameters.
std::string rehearsed_solver(const PlannedRun& run) {
  if (run.solver.empty()) {
    return "cg";  // which will have nothing to solve
  }
  const auto largest = std::max_element(
      run.chain.begin() + static_cast<std::ptrdiff_t>(run.stages.front()), run.chain.end(),
      [](const auto& a, const auto& b) { return a.objective.trained().entries() < b.objective.trained().entries(); });
  return solver_at_work(run.solver, run.curvature, *largest, run.inverse.effective_inversion());
}

/// The spec of a curvature without its option `factors`, since a rehearsal's are not to be found by a run, and with
/// nothing kept between products unless `keeps`.
std::string rehearsed_spec(const std::string& spec, bool keeps) {
  const auto [method, given] = find_method<Curvature>(spec);
  std::string out(method->name);
  char separator = ':';
  for (const auto& option : method->options(given)) {
    if (option.name != "factors" && !option.value.empty()) {
      out += separator + option.name + '=' + (keeps || option.name != "graph-bytes" ? option.value : "0");
      separator = ',';
    }
  }
  return out;
}

/// A rehearsal has lasted long enough.
class Enough : public Interrupted {};

struct Rehearsed {
  double peak = 0;              ///< Bytes, without the part of the data that was copied for it.
  double held = 0;              ///< Bytes that are allocated once all is ready for the queries.
  double ready = 0, block = 0;  ///< Seconds for what does not depend on the queries, and for one block of them.
  bool whole = true;            ///< It came to its end.
};

/// Runs the first block of queries on parts of the data.
class Rehearsal {
 public:
  Rehearsal(const PlannedRun& run, bool keeps)
      : run_(run),
        curvature_(create<Curvature>(run.curvature.empty() ? "hessian" : rehearsed_spec(run.curvature, keeps))),
        solver_(create<Solver>(rehearsed_solver(run))),
        block_(std::min(run.query_block, run.queries.size())) {}

  /// On `share` of every stage's examples, in batches of `batch_share` of what a whole batch has.
  Rehearsed at(double share, double batch_share) const {
    const double before = allocated_bytes();
    auto chain = run_.chain;
    for (auto k = run_.stages.front(); k < chain.size(); ++k) {
      const auto& whole = run_.chain[k].objective;
      const auto n = whole.terms(), batch = std::min(n, whole.batch_size());
      const auto part = part_of(n, share, std::min<std::int64_t>(n, 2));
      const auto size = std::min(part, part_of(batch, batch_share, 1));
      chain[k].objective = (part == n ? whole : whole.over(at::arange(part))).with_batch_size(size);
    }
    const double copied = allocated_bytes() - before;
    forget_peak();
    Rehearsed out;
    const auto source = run_.attributor.prepare(chain, {curvature_, solver_, run_.inverse});
    class Nowhere : public ScoreSink {
      bool has(std::int64_t, std::int64_t, std::int64_t, std::int64_t) const override { return false; }
      void block(std::int64_t, std::int64_t, const at::Tensor&) override {}
    } nowhere;
    const auto start = Clock::now();
    const double begun = thread_seconds();
    const Progress watch = [&](const ProgressEvent&) {
      if (thread_seconds() - begun > kPatience) {
        throw Enough();
      }
    };
    try {
      const ProgressScope scope(watch, {"rehearse", 0, 0, ""});
      source->make_ready(run_.stages);
      out.ready = seconds_since(start);
      out.held = allocated_bytes() - copied;
      const auto queries = run_.queries.take(at::arange(block_));
      attribute({chain, run_.stages, std::vector<ScoreSink*>(run_.stages.size(), &nowhere), queries, run_.measurement,
                 block_, run_.normalization},
                *source, {}, watch);
    } catch (const Enough&) {
      out.whole = false;
    } catch (const NumericalError&) {  // of a part of the data: the whole may do
      out.whole = false;
    }
    out.block = seconds_since(start) - out.ready;
    out.peak = peak_bytes() - copied;
    return out;
  }
  /// The least share, from `least` on, that fills two batches of every stage: what a batch held lies in the heap while
  /// the next is made.
  double fills_batches(double least) const {
    for (auto k = run_.stages.front(); k < run_.chain.size(); ++k) {
      const auto& whole = run_.chain[k].objective;
      least = std::max(least, 2 * static_cast<double>(whole.batch_size()) / static_cast<double>(whole.data().size()));
    }
    return std::min(1.0, least);
  }

 private:
  static constexpr double kPatience = 10;  // of a processor: a busy machine's clock would end it before it held all
  static std::int64_t part_of(std::int64_t count, double share, std::int64_t least) {
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(share * static_cast<double>(count)), least, count);
  }
  const PlannedRun& run_;
  std::shared_ptr<const Curvature> curvature_;
  std::shared_ptr<const Solver> solver_;
  std::int64_t block_;
};

/// What is told of all the data.
struct Told {
  Foretold work;           ///< Of scoring.
  double kept = 0;         ///< Bytes that are kept of all examples, however many may be.
  double kept_beyond = 0;  ///< Of these and of the peak, what no rehearsal held.
  bool whole = true;       ///< The rehearsals came to their ends.
};

/// What a solver's matrix over the examples takes at most, which grows with their square; else nothing.
struct MatrixOverExamples {
  double seconds = 0, bytes = 0;
};

/// Tells time and memory of all the data. Batches are rehearsed as large as they will be, since their
/// passes take most of the memory and the peak is a max over them: to that comes what is kept of every example, by how
/// the peak, or what is held, grows from a `share` of them to twice as many. Time is told by what that growth in
/// examples and batches takes; both but for the `matrix`.
Told tell(const Rehearsal& rehearsal, double share, const MatrixOverExamples& matrix) {
  const double filled = rehearsal.fills_batches(2 * share);
  const auto wide = rehearsal.at(filled, 1);
  if (filled == 1 && wide.whole) {  // nothing is left to tell
    return {{wide.peak, wide.ready, wide.block}};
  }
  const auto small = rehearsal.at(share, share), more = rehearsal.at(2 * share, share),
             large = rehearsal.at(2 * share, 2 * share);
  const auto grown = [&](const Rehearsed& one, const Rehearsed& two, double from, double most_of_matrix = 0) {
    const double growth = std::max({0.0, two.peak - one.peak, two.held - one.held});
    const double square = std::min(growth, 3 * most_of_matrix * share * share);
    return (growth - square) * (1 - from) / share + square * (1 - from * from) / (3 * share * share);
  };
  Told out;
  out.kept = grown(small, more, 0, matrix.bytes);
  out.kept_beyond = grown(small, more, filled, matrix.bytes);
  auto& peak = out.work.peak_bytes;
  peak = wide.peak + out.kept_beyond;
  if (!wide.whole) {                               // its first products, which may have lacked what comes later
    const bool ended = more.whole && large.whole;  // else one may have stopped before its peak and the other behind it
    peak = std::max(
        {peak, small.peak, more.peak,
         large.peak + grown(small, more, 2 * share, matrix.bytes) + (ended ? grown(more, large, 2 * share) : 0)});
  }
  const auto all = [&](double one, double two) {  // of an amount for `share` and for twice that
    const double square = std::clamp((two - 2 * one) / 2, 0.0, matrix.seconds * share * share);
    return two + std::max(0.0, two - one - 3 * square) * (1 / share - 2) + square * (1 / (share * share) - 4);
  };
  out.work.seconds_once = all(small.ready, large.ready);
  out.work.seconds_a_block = all(small.block, large.block);
  out.whole = small.whole && more.whole && large.whole;
  return out;
}

/// Of the layers that a pass records.
std::set<std::string> layer_parameters(const Stage& stage) {
  Tape tape;
  stage.objective.output(detach(stage.theta), detach(stage.parent), stage.objective.data().batch(0, 1), &tape);
  std::set<std::string> out;
  for (const auto& entry : tape.entries) {
    for (auto& name : weight_sources(entry)) {
      out.insert(std::move(name));
    }
    out.insert(entry.bias);
  }
  return out;
}

Json coverage(const Stage& stage, const std::vector<std::string>& looked_at) {
  const auto layers = layer_parameters(stage);
  const auto merged = stage.objective.merge(stage.theta, stage.parent);
  const auto& trained = stage.objective.trained();
  std::int64_t attributed = 0;
  auto missing = Json::array();
  for (std::size_t i = 0; i < trained.size(); ++i) {
    const auto& name = trained.names()[i];
    const auto count = trained.values()[i].numel();
    const bool taped = layers.contains(name) || !merged.contains(name);  // a tuning's own: by the layer it moves
    if (taped && std::find(looked_at.begin(), looked_at.end(), name) != looked_at.end()) {
      attributed += count;
    } else {
      missing.push_back({{"name", name}, {"count", count}});
    }
  }
  return {{"stage", stage.name},
          {"examples", stage.objective.data().size()},
          {"trained-parameters", trained.entries()},
          {"attributed-parameters", attributed},
          {"attributed-percent", 100 * static_cast<double>(attributed) / static_cast<double>(trained.entries())},
          {"not-attributed", missing}};
}

/// What a run takes once its chain and queries are there.
struct Foreseen {
  Told told;
  double blocks = 0;           ///< Of queries.
  bool fixed = true;           ///< How many products are made is known before.
  Json pass = Json::object();  ///< Seconds of a stage's gradient.

  double seconds() const { return told.work.seconds_once + blocks * told.work.seconds_a_block; }
  /// Low and high; NaN where a rehearsal did not come to its end. A part of the data takes other numbers of products.
  SecondsRange range(double before) const {
    constexpr double kUnsure = 1.5;
    const double all = before + seconds();
    return {fixed || !told.whole ? all : all / kUnsure, !told.whole ? std::nan("") : fixed ? all : all * kUnsure};
  }
};

Foreseen foresee(const PlannedRun& run) {
  constexpr double kPassSeconds = 0.1;  // of the gradient of what is rehearsed on
  Foreseen out;
  double passes = 0;
  MatrixOverExamples matrix;
  auto fewest = std::numeric_limits<double>::infinity();
  const bool makes_matrix = !run.solver.empty() && create<Solver>(rehearsed_solver(run))->needs().rows;
  for (auto k = run.stages.front(); k < run.chain.size(); ++k) {
    const auto& stage = run.chain[k];
    const double seconds = gradient_seconds(stage);
    out.pass[stage.name] = seconds;
    passes += seconds;
    fewest = std::min(fewest, static_cast<double>(stage.objective.terms()));
    if (run.solver.empty()) {
      continue;
    }
    const auto products = product_count(run.solver, run.curvature, stage, run.inverse.effective_inversion());
    out.fixed = out.fixed && products.known && products.low == products.high;
    if (makes_matrix) {
      constexpr double kNumberBytes = 20;  // as it is made, and in double with its factor
      const auto rows = static_cast<double>(stage.objective.data().size() * stage.objective.data().outputs());
      matrix.seconds += solve_seconds(products, 0, seconds);
      matrix.bytes += kNumberBytes * rows * rows;
    }
  }
  const double share = std::min(0.25, std::max(2 / fewest, kPassSeconds / passes));
  const auto block = std::min(run.query_block, run.queries.size());
  out.blocks = static_cast<double>(run.queries.size()) / static_cast<double>(block);
  if (const auto own = run.source.rehearse({run.queries, run.measurement, 0, block}, run.stages)) {
    out.told.work = *own;
    out.blocks = std::ceil(out.blocks);  // which goes the training again for a few queries too
    return out;
  }
  Rehearsal(run, true).at(share, share);  // what only the first time pays
  out.told = tell(Rehearsal(run, true), share, matrix);
  if (!run.curvature.empty() && out.told.kept > keepable_bytes(option(run.curvature, "graph-bytes"))) {
    out.told = tell(Rehearsal(run, false), share, matrix);
  } else if (!run.curvature.empty() && create<Curvature>(run.curvature)->factored()) {
    constexpr double kMostKept = 1 << 30;  // kronecker.cpp
    out.told.work.peak_bytes -= std::clamp(out.told.kept - keepable_bytes(kMostKept), 0.0, out.told.kept_beyond);
  }
  return out;
}

}  // namespace

SecondsRange scoring_seconds(const PlannedRun& run) { return foresee(run).range(0); }

Json make_plan(const PlannedRun& run) {
  const double loaded_peak = peak_bytes();
  const double before = process_seconds();
  Json out{{"queries", run.queries.size()}, {"query-block", run.query_block}};
  double scores = 0, vectors = 0;
  Json stages = Json::array();
  for (const auto k : run.stages) {
    const auto& stage = run.chain[k];
    const auto queries = static_cast<double>(run.queries.size());
    scores += queries * static_cast<double>(stage.objective.data().size()) * run.score_bytes;
    vectors += queries * run.source.cost(k, run.query_block).bytes_a_query;
    stages.push_back(coverage(stage, run.source.parameters(k)));
  }
  const auto foreseen = foresee(run);
  const double peak = std::max(loaded_peak, foreseen.told.work.peak_bytes);
  out["memory-bytes"] = {{"program", run.program_bytes}, {"loaded", loaded_peak}, {"peak", peak}};
  out["disk-bytes"] = {{"scores", scores}, {"vectors", vectors}};
  const auto seconds = foreseen.range(before);
  out["seconds"] = {{"low", seconds.low}, {"high", json_number(seconds.high)}, {"gradient-pass", foreseen.pass}};
  out["stages"] = std::move(stages);
  return out;
}

void print_plan(const Json& plan) {
  const auto bytes = [](const Json& value) { return readable_bytes(value.get<double>()); };
  const auto& memory = plan["memory-bytes"];
  if (plan.contains("chosen")) {
    say("{}\n", plan["chosen"].get<std::string>());
  }
  say("{} queries in blocks of {}\n", plan["queries"].get<std::int64_t>(), plan["query-block"].get<std::int64_t>());
  const auto& seconds = plan["seconds"];
  say("memory  {}{} at the peak: the program {}, up to {} with model and data, the rest to solve and to score\n",
      seconds["high"].is_null() ? "at least " : "", bytes(memory["peak"]), bytes(memory["program"]),
      bytes(memory["loaded"]));
  say("disk    scores {}, vectors until the run is done {}\n", bytes(plan["disk-bytes"]["scores"]),
      bytes(plan["disk-bytes"]["vectors"]));
  const double low = seconds["low"];
  if (seconds["high"].is_null()) {
    say("time    more than {}: a rehearsal on a part of the data did not come to its end\n", seconds_text(low));
  } else if (seconds["high"] == seconds["low"]) {
    say("time    about {}\n", seconds_text(low));
  } else {
    say("time    {} to {}, as many products as the solves turn out to take\n", seconds_text(low),
        seconds_text(seconds["high"]));
  }
  for (const auto& stage : plan["stages"]) {
    std::string missing;
    constexpr std::size_t kNamed = 6;
    const auto& list = stage["not-attributed"];
    for (std::size_t i = 0; i < std::min(kNamed, list.size()); ++i) {
      missing += fmt::format("{} {} ({})", i == 0 ? "; not:" : ",", list[i]["name"].get<std::string>(),
                             list[i]["count"].get<std::int64_t>());
    }
    if (list.size() > kNamed) {
      missing += fmt::format(" and {} more", list.size() - kNamed);
    }
    say("{}: {} examples, {:.1f} % of parameters attributed{}\n", stage["stage"].get<std::string>(),
        stage["examples"].get<std::int64_t>(), stage["attributed-percent"].get<double>(), missing);
  }
}

}  // namespace whence::cli
