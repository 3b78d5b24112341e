#include "whence/attribution/unrolled_source.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "whence/core/error.h"
#include "whence/core/memory.h"
#include "whence/core/rounding.h"
#include "whence/core/seconds.h"
#include "whence/training/steps.h"

namespace whence {
namespace {

constexpr const char* kScores = "scores";

class ScoreColumns : public Scorer {
 public:
  explicit ScoreColumns(at::Tensor scores) : scores_(std::move(scores)) {}
  at::Tensor scores(const Batch& batch) const override {
    return scores_.index_select(1, batch.rows.to(scores_.device()));
  }

 private:
  at::Tensor scores_;  // [K, N]
};

}  // namespace

UnrolledSource::UnrolledSource(const Chain& chain, std::vector<TrainingRun> runs)
    : chain_(chain), runs_(std::move(runs)), unrolled_(chain, runs_) {}

void UnrolledSource::check(const std::vector<std::size_t>& stages, Measurement, Normalization normalization) const {
  unrolled_.check(stages.front());
  if (normalization != Normalization::kNone) {
    throw InvalidArgument(
        fmt::format("response unrolled takes products along the whole training, and there are no lengths to divide by: "
                    "normalize = {}, expected none",
                    to_string(normalization)));
  }
}

std::vector<QueryDirections> UnrolledSource::directions(const QueryBlock& queries,
                                                        const std::vector<std::size_t>& stages,
                                                        const Progress& progress) {
  unrolled_.prepare(stages.front(), progress);
  const auto& last = chain_.back();
  const auto gradients = measurement_gradients(queries.measurement, last, queries.data, queries.begin, queries.end,
                                               last.objective.merge(last.theta, last.parent).names());
  check_finite(gradients.values(), "a measurement's gradient");
  auto scores = unrolled_.sweep(gradients, stages, progress);
  std::vector<QueryDirections> out(chain_.size());
  for (const auto k : stages) {
    out[k].points.emplace_back().add(kScores, std::move(scores[k]));
  }
  return out;
}

std::unique_ptr<Scorer> UnrolledSource::scorer(std::size_t, const QueryDirections& directions, const Progress&) {
  return std::make_unique<ScoreColumns>(directions.points.at(0).at(kScores));
}

at::Tensor UnrolledSource::example_norms(std::size_t, const Batch&, Normalization) {
  throw std::logic_error("response unrolled has no lengths");
}

std::vector<std::string> UnrolledSource::parameters(std::size_t stage) const {
  return chain_[stage].objective.trained().names();
}

MethodCost UnrolledSource::cost(std::size_t stage, std::int64_t query_block) const {
  MethodCost out;
  const auto options = algebra_options(chain_[stage].theta.front().options());
  out.bytes_a_query =
      static_cast<double>(chain_[stage].objective.data().size()) * static_cast<double>(options.dtype().itemsize());
  out.bytes = out.bytes_a_query * static_cast<double>(query_block);
  return out;
}

std::optional<Foretold> UnrolledSource::rehearse(const QueryBlock& queries,
                                                 const std::vector<std::size_t>& stages) const {
  constexpr std::int64_t kSteps = 3;
  double replay = 0, states = 0;
  const auto go = [&](std::int64_t most) {  // seconds of a step of every stage at once, or of all its steps
    auto chain = chain_;
    auto runs = runs_;
    replay = states = 0;
    double scale = 1;
    for (auto k = stages.front(); k < chain.size(); ++k) {
      auto& at = chain[k];
      const auto total = std::max<std::int64_t>(1, runs[k].iterations);
      runs[k].iterations = std::min(most, total);
      const auto steps =
          dynamic_cast<const SteppingOptimizer&>(*at.optimizer).steps(at.objective, at.parent, runs[k].random);
      TrainingState state{runs[k].start(), 0, {}};
      const auto start = Clock::now();
      while (state.iteration < runs[k].iterations) {
        steps->advance(state);
      }
      replay += seconds_since(start) * static_cast<double>(total) /
                static_cast<double>(std::max<std::int64_t>(1, state.iteration));
      at.theta = detach(state.theta);
      const auto lists = static_cast<double>(state.memory.size());
      states += std::sqrt(static_cast<double>(total)) * (3 + 2 * lists) *
                static_cast<double>(at.objective.trained().entries()) * static_cast<double>(at.theta[0].element_size());
      scale =
          std::max(scale, static_cast<double>(total) / static_cast<double>(std::max<std::int64_t>(1, state.iteration)));
    }
    UnrolledSource source(chain, runs);
    const auto start = Clock::now();
    source.directions(queries, stages, {});
    return seconds_since(start) * scale;
  };
  go(1);  // what only the first time pays
  forget_peak();
  const double all = go(kSteps);
  return Foretold{peak_bytes() + states, replay, std::max(0.0, all - replay)};
}

}  // namespace whence
