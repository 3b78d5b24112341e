#include "plan.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <set>

#include "say.h"
#include "whence/stages/cost.h"

namespace whence::cli {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double bytes_of(const at::Tensor& x) { return static_cast<double>(x.numel()) * static_cast<double>(x.element_size()); }
double bytes_of(const TensorList& x) {
  double total = 0;
  for (const auto& t : x) {
    total += bytes_of(t);
  }
  return total;
}

double query_seconds(const PlannedRun& run) {
  const auto one = [&] { measurement_gradients(run.measurement, run.chain.back(), run.queries, 0, 1); };
  one();
  const auto start = Clock::now();
  one();
  return seconds_since(start);
}

struct Layers {
  std::set<std::string> parameters;  ///< Of the layers that a pass records.
  double bytes_an_example = 0;       ///< Of their inputs and outputs.
};

Layers layers_of(const Stage& stage) {
  Tape tape;
  stage.objective.output(detach(stage.theta), detach(stage.parent), stage.objective.data().batch(0, 1), &tape);
  Layers out;
  for (const auto& entry : tape.entries) {
    out.parameters.insert(entry.weight);
    out.parameters.insert(entry.bias);
    out.bytes_an_example += bytes_of(entry.input) + bytes_of(entry.output);
  }
  return out;
}

Json coverage(const Stage& stage, const std::vector<std::string>& looked_at, const Layers& layers) {
  const auto merged = stage.objective.merge(stage.theta, stage.parent);
  const auto& trained = stage.objective.trained();
  std::int64_t attributed = 0;
  auto missing = Json::array();
  for (std::size_t i = 0; i < trained.size(); ++i) {
    const auto& name = trained.names()[i];
    const auto count = trained.values()[i].numel();
    const bool taped =
        layers.parameters.contains(name) || !merged.contains(name);  // a tuning's own: by the layer it moves
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

double data_bytes(const Dataset& data) {
  const auto one = data.batch(0, 1);
  return (bytes_of(one.inputs) + bytes_of(one.targets)) * static_cast<double>(data.size());
}

std::string readable_bytes(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(units); ++unit) {
    bytes /= 1024;
  }
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, units[unit]);
}

}  // namespace

double resident_bytes() {
  double all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

Json make_plan(const PlannedRun& run) {
  const auto queries = static_cast<double>(run.queries.size());
  const double blocks = std::ceil(queries / static_cast<double>(run.query_block));
  const double one_query = query_seconds(run);
  const bool solves = !run.solver.empty();
  constexpr double kPassesToCheck = 4;  // how far the checkpoint is from a minimum
  double data = data_bytes(run.queries), model = 0, graph = 0, method = 0, scores = 0, vectors = 0, low = 0, high = 0;
  bool known = true;
  Json stages = Json::array(), passes;
  for (std::size_t k = 0; k < run.chain.size(); ++k) {
    const auto& stage = run.chain[k];
    data += data_bytes(stage.objective.data());
    model += bytes_of(stage.theta) + bytes_of(stage.parent);
    for (const auto& snapshot : stage.trajectory) {
      model += bytes_of(snapshot.theta) + bytes_of(snapshot.preconditioner);
    }
    const double pass = gradient_seconds(stage);
    passes[stage.name] = pass;
    low += kPassesToCheck * pass;
    high += kPassesToCheck * pass;
    const bool scored = std::find(run.stages.begin(), run.stages.end(), k) != run.stages.end();
    const bool solved = solves && k >= run.stages.front();
    if (!scored && !solved) {
      continue;
    }
    const auto layers = layers_of(stage);
    // a graph keeps what layers saw, and its backward pass as much again; that of a product twice both
    graph =
        std::max(graph, layers.bytes_an_example * (solved ? 4 : 2) *
                            static_cast<double>(std::min(stage.objective.batch_size(), stage.objective.data().size())));
    if (scored) {
      const auto cost = run.source.cost(k, run.query_block);
      const double normalizing = run.normalization == Normalization::kNone ? 0 : 1;
      const double seconds = pass * (cost.passes_once + blocks * (cost.passes_a_block + normalizing)) +
                             queries * cost.gradients_a_query * one_query;
      low += seconds;
      high += seconds;
      method += cost.bytes;
      const auto examples = static_cast<double>(stage.objective.data().size());
      scores += queries * examples * run.score_bytes;
      vectors += queries * cost.bytes_a_query;
      stages.push_back(coverage(stage, run.source.parameters(k), layers));
    }
    if (solved) {
      const bool spectral = is_spectral(run.curvature);
      const double fit = spectral ? fit_seconds(stage, pass) : 0;
      low += fit;
      high += fit;
      const auto products = product_count(run.solver, run.curvature, stage, run.inversion);
      low += (products.low * queries + products.once) * kPassesAProduct * pass;
      high += (products.high * queries + products.once) * kPassesAProduct * pass;
      known = known && products.known;
    }
  }
  Json out{{"queries", run.queries.size()}, {"query-block", run.query_block}};
  out["memory-bytes"] = {{"program", run.program_bytes},
                         {"data", data},
                         {"model", model},
                         {"graph", graph},
                         {"method", method},
                         {"peak", run.program_bytes + data + model + graph + method}};
  out["disk-bytes"] = {{"scores", scores}, {"vectors", vectors}};
  out["seconds"] = {{"low", low}, {"high", known ? Json(high) : Json(nullptr)}, {"gradient-pass", passes}};
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
  say("memory  {} at the peak: program {}, data {}, model {}, one batch's graph {}, queries' vectors {}\n",
      bytes(memory["peak"]), bytes(memory["program"]), bytes(memory["data"]), bytes(memory["model"]),
      bytes(memory["graph"]), bytes(memory["method"]));
  say("disk    scores {}, vectors until the run is done {}\n", bytes(plan["disk-bytes"]["scores"]),
      bytes(plan["disk-bytes"]["vectors"]));
  const auto& seconds = plan["seconds"];
  const double low = seconds["low"];
  if (seconds["high"].is_null()) {
    say("time    more than {}: how many products this solver takes is not known before\n", seconds_text(low));
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
