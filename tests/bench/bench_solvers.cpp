// whence's half of the table of accuracy against cost: every solver on one trained stage, from the loaded model to the
// scores of all queries, fits included.
//   whence_bench solvers FOLDER QUERIES [SPEC ...]
// FOLDER holds pipeline.toml, trained, and `damping`; a SPEC is CURVATURE/SOLVER, the built-in list where none is
// given. Writes FOLDER/whence.jsonl and a file of scores each, as tests/bench/solvers/table.py reads them. Float32;
// seconds are wall time, `gradients` the same in units of one gradient over all examples, the median of 20. Keep the
// machine idle.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "whence/attribution/attribute.h"
#include "whence/core/parallel.h"
#include "whence/core/seconds.h"
#include "whence/data/safetensors.h"
#include "whence/stages/pipeline.h"

using namespace whence;

namespace {

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

const std::vector<std::string> kSpecs{
    "hessian/direct",
    "hessian/cg:relative-tolerance=1e-1",
    "hessian/cg:relative-tolerance=3e-2",
    "hessian/cg:relative-tolerance=1e-2",
    "hessian/cg:relative-tolerance=1e-4",
    "hessian/cg:preconditioner=diagonal,relative-tolerance=1e-2",
    "hessian/cg:preconditioner=ekfac,relative-tolerance=3e-1",
    "hessian/cg:preconditioner=ekfac,relative-tolerance=1e-1",
    "hessian/cg:preconditioner=ekfac,relative-tolerance=3e-2",
    "hessian/cg:preconditioner=ekfac,relative-tolerance=1e-2",
    "hessian/cg:preconditioner=ekfac,relative-tolerance=1e-4",
    "hessian/cg:preconditioner=nystroem,rank=100,relative-tolerance=1e-2",
    "hessian/lissa",
    "hessian/lissa:sampled=true",
    "hessian/lissa:preconditioner=ekfac,relative-tolerance=1e-2",
    "hessian/arnoldi:rank=50",
    "hessian/nystroem:rank=200",
    "hessian/lanczos:relative-tolerance=1e-3",
    "hessian/ekfac:residual=false",
    "hessian/ekfac:factors=kfac,residual=false",
    "hessian/ekfac:factors=diagonal,residual=false",
    "hessian/datainf:residual=false",
    "hessian/identity",
    "gauss-newton/woodbury",
    "gauss-newton/cg:preconditioner=ekfac,relative-tolerance=1e-1",
    "gauss-newton/cg:preconditioner=ekfac,relative-tolerance=1e-2",
};

}  // namespace

int bench_solvers(int count, char** arguments) try {
  if (count < 3) {
    std::cerr << "usage: whence_bench solvers FOLDER QUERIES [CURVATURE/SOLVER ...]\n";
    return 2;
  }
  const std::filesystem::path folder = arguments[1];
  std::vector<std::string> specs(arguments + 3, arguments + count);
  if (specs.empty()) {
    specs = kSpecs;
  }
  double damping = 0;
  std::ifstream(folder / "damping") >> damping;
  const Pipeline pipeline(folder / "pipeline.toml",
                          {.batch_size = std::getenv("BATCH") ? std::atoll(std::getenv("BATCH")) : 1024});
  const auto chain = pipeline.load();
  const auto queries = pipeline.queries(arguments[2]);
  const auto& stage = chain.back();
  std::vector<double> times;
  TensorList gradient;
  for (int i = 0; i < 20; ++i) {
    const auto start = Clock::now();
    stage.objective.value(stage.theta, stage.parent, &gradient);
    times.push_back(since(start));
  }
  std::nth_element(times.begin(), times.begin() + 10, times.end());
  const double unit = times[10];
  fmt::print("{} examples, {} parameters, {} queries, damping {}, {} threads; one gradient {:.2f} ms\n",
             stage.objective.data().size(), count_entries(stage.theta), queries.size(), damping, threads(), 1e3 * unit);
  std::ofstream lines(folder / "whence.jsonl", std::ios::app);
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const auto slash = specs[i].find('/');
    const auto curvature_spec = specs[i].substr(0, slash), solver_spec = specs[i].substr(slash + 1);
    const auto colon = std::min(solver_spec.find(':'), solver_spec.size());
    nlohmann::ordered_json line{{"peer", "whence"},
                                {"method", fmt::format("{} / {}", curvature_spec, solver_spec.substr(0, colon))},
                                {"options", colon < solver_spec.size() ? solver_spec.substr(colon + 1) : ""}};
    try {
      const auto start = Clock::now();
      const auto source =
          create<Attributor>("influence")
              ->prepare(chain, {create<Curvature>(curvature_spec), create<Solver>(solver_spec), {.damping = damping}});
      const auto scores = score_matrix(chain, chain.size() - 1, *source, queries, Measurement::kLoss);
      const double seconds = since(start);
      auto file = fmt::format("whence-{}.safetensors", specs[i]);
      std::replace(file.begin(), file.end(), '/', ' ');
      write_safetensors(folder / file, [&] {
        ParameterSet out;
        out.add("scores", scores);
        return out;
      }());
      line["seconds"] = seconds;
      line["gradients"] = seconds / unit;
      line["products"] = source->evidence().back().products;
      line["scores"] = file;
      fmt::print("{:<80} {:>9.3f} s {:>9.0f} gradients {:>7.0f} products\n", specs[i], seconds, seconds / unit,
                 source->evidence().back().products);
    } catch (const Error& error) {
      line["error"] = error.what();
      fmt::print("{:<80} {}\n", specs[i], error.what());
    }
    std::fflush(stdout);
    lines << line.dump() << std::endl;
  }
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
