#include "whence/attribution/detail/unrolled_source.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/core/rounding.h"
#include "whence/stages/unrolled.h"

namespace whence::detail {
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

class UnrolledSource : public ScoreSource {
 public:
  UnrolledSource(const Chain& chain, const InverseProblem& problem) : chain_(chain), unrolled_(chain, problem.runs) {}

  void check(const std::vector<std::size_t>& stages, Measurement, Normalization normalization) const override {
    unrolled_.check(stages.front());
    if (normalization != Normalization::kNone) {
      throw InvalidArgument(
          fmt::format("response unrolled takes products along the whole training, and there are no lengths to divide "
                      "by: normalize = {}, expected none",
                      to_string(normalization)));
    }
  }
  std::vector<QueryDirections> directions(const QueryBlock& queries, const std::vector<std::size_t>& stages,
                                          const Progress& progress) override {
    unrolled_.prepare(stages.front(), progress);
    const auto& last = chain_.back();
    const auto gradients = measurement_gradients(queries.measurement, last, queries.data, queries.begin, queries.end,
                                                 last.objective.merge(last.theta, last.parent).names());
    check_finite(gradients.values(), "a measurement's gradient");
    auto scores = unrolled_.sweep(gradients, stages, progress);
    std::vector<QueryDirections> out(chain_.size());
    for (const auto k : stages) {
      auto& point = out[k].points.emplace_back();
      point.add(kScores, std::move(scores[k]));
    }
    return out;
  }
  std::unique_ptr<Scorer> scorer(std::size_t, const QueryDirections& directions, const Progress&) override {
    return std::make_unique<ScoreColumns>(directions.points.at(0).at(kScores));
  }
  at::Tensor example_norms(std::size_t, const Batch&, Normalization) override {
    throw std::logic_error("response unrolled has no lengths");
  }
  std::vector<StageEvidence> evidence() override { return unrolled_.evidence(); }
  std::vector<std::string> parameters(std::size_t stage) const override {
    return chain_[stage].objective.trained().names();
  }
  MethodCost cost(std::size_t stage, std::int64_t query_block) const override {
    MethodCost out;
    const auto& theta = chain_[stage].theta.front();
    const auto size = static_cast<double>(algebra_options(theta.options()).dtype().itemsize());
    out.bytes_a_query = static_cast<double>(chain_[stage].objective.data().size()) * size;
    out.bytes = out.bytes_a_query * static_cast<double>(query_block);
    return out;
  }

 private:
  const Chain chain_;
  Unrolled unrolled_;
};

}  // namespace

std::unique_ptr<ScoreSource> unrolled_source(const Chain& chain, const InverseProblem& problem) {
  return std::make_unique<UnrolledSource>(chain, problem);
}

}  // namespace whence::detail
