#include "whence/attribution/attribute.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "whence/core/tensors.h"
#include "whence/models/per_sample.h"

namespace whence {
namespace {

constexpr std::int64_t kSummaryColumns = 7;

/// Directions of the scored stages, and the summaries of all that were solved, as tensors: so that they can be kept in
/// a file and come back the same.
ParameterSet pack(const std::vector<Directions>& directions, const std::vector<std::size_t>& stages) {
  ParameterSet out;
  for (const auto k : stages) {
    out.add(fmt::format("vectors.{}", k), directions[k].vectors);
  }
  for (auto k = stages.front(); k < directions.size(); ++k) {
    const auto& summaries = directions[k].summaries;
    auto table = at::empty({static_cast<std::int64_t>(summaries.size()), kSummaryColumns}, at::kDouble);
    for (std::size_t i = 0; i < summaries.size(); ++i) {
      auto* row = table.data_ptr<double>() + kSummaryColumns * i;
      row[0] = static_cast<double>(summaries[i].termination);
      row[1] = static_cast<double>(summaries[i].iterations);
      row[2] = summaries[i].relative_residual;
      row[3] = summaries[i].seconds;
      row[4] = summaries[i].products;
      row[5] = summaries[i].smallest_ritz;
      row[6] = summaries[i].largest_ritz;
    }
    out.add(fmt::format("summaries.{}", k), table);
  }
  return out;
}

std::vector<Directions> unpack(const ParameterSet& kept, const std::vector<std::size_t>& stages, std::size_t count) {
  std::vector<Directions> out(count);
  for (const auto k : stages) {
    out[k].vectors = kept.at(fmt::format("vectors.{}", k));
  }
  for (auto k = stages.front(); k < count; ++k) {
    const auto table = kept.at(fmt::format("summaries.{}", k)).contiguous();
    for (std::int64_t i = 0; i < table.size(0); ++i) {
      const auto* row = table.const_data_ptr<double>() + kSummaryColumns * i;
      SolverSummary summary;
      summary.termination = static_cast<Termination>(static_cast<int>(row[0]));
      summary.iterations = static_cast<std::int64_t>(row[1]);
      summary.relative_residual = row[2];
      summary.seconds = row[3];
      summary.products = row[4];
      summary.smallest_ritz = row[5];
      summary.largest_ritz = row[6];
      summary.message = fmt::format("{} in an earlier run", to_string(summary.termination));
      out[k].summaries.push_back(std::move(summary));
    }
  }
  return out;
}

/// Scores one stage's examples with one block of directions.
class StageScorer {
 public:
  StageScorer(const Stage& stage, const Directions& directions, bool normalized)
      : stage_(stage), merged_(stage.objective.merge(stage.theta, stage.parent)), normalized_(normalized) {
    auto vectors = directions.vectors.to(merged_.values().front().options());
    if (normalized_) {
      vectors = vectors / row_norms(vectors).clamp_min(1e-300).to(vectors.options()).unsqueeze(1);
    }
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < merged_.size(); ++i) {
      const auto& value = merged_.values()[i];
      auto shape = value.sizes().vec();
      shape.insert(shape.begin(), vectors.size(0));
      const auto piece = vectors.narrow(1, offset, value.numel());
      offset += value.numel();
      if (stage.objective.trained().contains(merged_.names()[i]) || piece.abs().max().item<double>() > 0) {
        pieces_[merged_.names()[i]] = piece.reshape(shape);
      }
    }
  }

  at::Tensor scores(const Batch& batch) const {
    const auto& objective = stage_.objective;
    auto out = per_sample_products(objective.model(), objective.loss(), merged_, batch, pieces_).neg();
    if (normalized_) {
      const auto squares =
          per_sample_squared_norms(objective.model(), objective.loss(), merged_, batch, objective.trained().names());
      out = out / squares.sqrt().clamp_min(1e-300).to(out.options());
    }
    return out;
  }

 private:
  const Stage& stage_;
  ParameterSet merged_;
  bool normalized_;
  std::map<std::string, at::Tensor> pieces_;
};

}  // namespace

std::vector<AttributionSolves> attribute(const AttributionTask& task, DirectionSource& source, const VectorCache& cache,
                                         const Progress& progress) {
  const auto first_stage = task.stages.front();
  std::vector<AttributionSolves> solves;
  for (auto k = first_stage; k < task.chain.size(); ++k) {
    solves.push_back({task.chain[k].name, {}});
  }
  for (std::int64_t begin = 0; begin < task.queries.size(); begin += task.query_block) {
    const auto end = std::min(task.queries.size(), begin + task.query_block);
    const auto block_name = fmt::format("queries {}-{}", begin, end - 1);
    std::vector<Directions> directions;
    const auto kept = cache.load ? cache.load(block_name) : std::nullopt;
    if (kept) {
      directions = unpack(*kept, task.stages, task.chain.size());
    } else {
      const auto gradients = measurement_gradients(task.measurement, task.chain.back(), task.queries, begin, end);
      check_finite(gradients, "a measurement's gradient");
      directions = source.directions(gradients, first_stage, [&](ProgressEvent event) {
        event.phase += fmt::format(", {}", block_name);
        report(progress, event);
      });
      if (cache.save) {
        cache.save(block_name, pack(directions, task.stages));
      }
    }
    for (std::size_t i = 0; i < solves.size(); ++i) {
      const auto& summaries = directions[first_stage + i].summaries;
      solves[i].summaries.insert(solves[i].summaries.end(), summaries.begin(), summaries.end());
    }
    for (std::size_t s = 0; s < task.stages.size(); ++s) {
      const auto& stage = task.chain[task.stages[s]];
      const StageScorer scorer(stage, directions[task.stages[s]], source.normalized());
      const auto& data = stage.objective.data();
      const auto step = stage.objective.batch_size();
      for (std::int64_t row = 0; row < data.size(); row += step) {
        const auto count = std::min(data.size() - row, step);
        if (!task.sinks[s]->has(begin, end - begin, row, count)) {
          task.sinks[s]->block(begin, row, scorer.scores(data.batch(row, row + count)));
        }
        report(progress, {"score " + stage.name + ", " + block_name, row + count, data.size(), ""});
      }
    }
  }
  return solves;
}

at::Tensor score_matrix(const Chain& chain, std::size_t stage, DirectionSource& source, const Dataset& queries,
                        Measurement measurement) {
  class Memory : public ScoreSink {
   public:
    explicit Memory(at::Tensor out) : out_(std::move(out)) {}
    bool has(std::int64_t, std::int64_t, std::int64_t, std::int64_t) const override { return false; }
    void block(std::int64_t first_query, std::int64_t first_example, const at::Tensor& scores) override {
      out_.narrow(0, first_query, scores.size(0)).narrow(1, first_example, scores.size(1)).copy_(scores);
    }

   private:
    at::Tensor out_;
  };
  const auto& data = chain[stage].objective.data();
  auto out = at::empty({queries.size(), data.size()}, at::kDouble);
  Memory sink(out);
  attribute({chain, {stage}, {&sink}, queries, measurement}, source, {}, {});
  check_finite(out, "a score");
  return out;
}

}  // namespace whence
