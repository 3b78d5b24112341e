#include "whence/attribution/attribute.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <sstream>
#include <type_traits>
#include <utility>

#include "whence/core/tensors.h"

namespace whence {
namespace {

constexpr std::int64_t kSummaryNumbers = 8;

/// What a row of a table of summaries holds.
template <class Summary, class Field>
void for_each_number(Summary& summary, Field&& field) {
  field(summary.termination);
  field(summary.iterations);
  field(summary.relative_residual);
  field(summary.energy_growth);
  field(summary.seconds);
  field(summary.products);
  field(summary.smallest_ritz);
  field(summary.largest_ritz);
}

/// A block's directions and, a stage each, the products that they took.
struct Solved {
  std::vector<QueryDirections> directions;
  at::Tensor products;  // [stages of the chain] float64
};

at::Tensor products_so_far(ScoreSource& source, std::size_t stages) {
  auto out = at::zeros({static_cast<std::int64_t>(stages)}, at::kDouble);
  const auto evidence = source.evidence();
  for (std::size_t k = 0; k < evidence.size(); ++k) {
    out.data_ptr<double>()[k] = evidence[k].products;
  }
  return out;
}

/// Directions of the scored stages, and the summaries of all that were solved, as tensors: so that they can be kept in
/// a file and come back the same.
ParameterSet pack(const Solved& solved, const std::vector<std::size_t>& stages) {
  const auto& directions = solved.directions;
  ParameterSet out;
  out.add("products", solved.products);
  for (const auto k : stages) {
    for (std::size_t i = 0; i < directions[k].points.size(); ++i) {
      const auto& point = directions[k].points[i];
      for (std::size_t j = 0; j < point.size(); ++j) {
        out.add(fmt::format("vectors.{}.{}.{}", k, i, point.names()[j]), point.values()[j]);
      }
    }
  }
  for (auto k = stages.front(); k < directions.size(); ++k) {
    const auto& summaries = directions[k].summaries;
    auto table = at::empty({static_cast<std::int64_t>(summaries.size()), kSummaryNumbers}, at::kDouble);
    auto* place = table.data_ptr<double>();
    std::string texts;
    for (const auto& summary : summaries) {
      for_each_number(summary, [&](const auto& number) { *place++ = static_cast<double>(number); });
      texts += summary.residual_of + '\n' + summary.message + '\n';
    }
    out.add(fmt::format("summaries.{}", k), table);
    auto bytes = at::empty({static_cast<std::int64_t>(texts.size())}, at::kByte);
    std::copy(texts.begin(), texts.end(), bytes.data_ptr<std::uint8_t>());
    out.add(fmt::format("texts.{}", k), bytes);
  }
  return out;
}

/// Nothing where vectors of a stage or numbers of their solves are missing, as in what another version kept.
std::optional<Solved> unpack(const ParameterSet& kept, const std::vector<std::size_t>& stages, std::size_t count) {
  std::vector<QueryDirections> out(count);
  for (const auto k : stages) {
    for (std::size_t i = 0;; ++i) {
      const auto prefix = fmt::format("vectors.{}.{}.", k, i);
      const auto found = kept.select(prefix);
      if (found.empty()) {
        break;
      }
      auto& point = out[k].points.emplace_back();
      for (std::size_t j = 0; j < found.size(); ++j) {
        point.add(found.names()[j].substr(prefix.size()), found.values()[j]);
      }
    }
    if (out[k].points.empty()) {
      return std::nullopt;
    }
  }
  for (auto k = stages.front(); k < count; ++k) {
    const auto table = kept.at(fmt::format("summaries.{}", k)).contiguous();
    const auto bytes = kept.at(fmt::format("texts.{}", k)).contiguous();
    std::istringstream texts(
        std::string(bytes.const_data_ptr<std::uint8_t>(), bytes.const_data_ptr<std::uint8_t>() + bytes.numel()));
    if (table.size(1) != kSummaryNumbers) {
      return std::nullopt;
    }
    const auto* place = table.const_data_ptr<double>();
    for (std::int64_t i = 0; i < table.size(0); ++i) {
      SolverSummary summary;
      for_each_number(summary,
                      [&](auto& number) { number = static_cast<std::remove_reference_t<decltype(number)>>(*place++); });
      std::getline(texts, summary.residual_of);
      std::getline(texts, summary.message);
      out[k].summaries.push_back(std::move(summary));
    }
  }
  return Solved{std::move(out), kept.at("products")};
}

/// What the cache holds of a block, if anything.
std::optional<Solved> load(const VectorCache& cache, const std::string& block, const AttributionTask& task) {
  const auto kept = cache.load ? cache.load(block) : std::nullopt;
  return kept ? unpack(*kept, task.stages, task.chain.size()) : std::nullopt;
}

/// A block's directions, which lie in memory as those that come out of a file do: a resumed run scores the same bits.
std::vector<QueryDirections> solve(ScoreSource& source, const QueryBlock& queries,
                                   const std::vector<std::size_t>& stages, const Progress& progress) {
  auto out = source.directions(queries, stages, progress);
  for (const auto k : stages) {
    for (auto& point : out[k].points) {
      point = point.each([](const at::Tensor& value) { return value.contiguous(); });
    }
  }
  return out;
}

std::string block_name(std::int64_t begin, std::int64_t end) { return fmt::format("queries {}-{}", begin, end - 1); }

constexpr std::array<std::pair<Normalization, std::string_view>, 3> kNormalizations{
    {{Normalization::kNone, "none"}, {Normalization::kCosine, "cosine"}, {Normalization::kRelatif, "relatif"}}};

/// Scores over the lengths that the normalization names.
at::Tensor normalized(at::Tensor scores, const at::Tensor& query_norms, const at::Tensor& example_norms) {
  constexpr double kNonZero = 1e-300;  // where a length is 0 the score is 0 too
  const auto wide = scores.to(at::kDouble) / example_norms.clamp_min(kNonZero).to(scores.device());
  return (query_norms.defined() ? wide / query_norms.clamp_min(kNonZero).unsqueeze(1).to(scores.device()) : wide)
      .to(scores.scalar_type());
}

/// Of each query's vector, all points together: [K] float64.
at::Tensor lengths(const std::vector<Directions>& points) {
  TensorList of_points;
  for (const auto& point : points) {
    of_points.push_back(direction_norms(point));
  }
  return of_points.size() == 1 ? of_points[0] : at::linalg_vector_norm(at::stack(of_points), 2, {0});
}

}  // namespace

void QueryDirections::check_finite(const char* what) const {
  for (const auto& point : points) {
    whence::check_finite(point.values(), what);
  }
}

std::string_view to_string(Normalization normalization) {
  return kNormalizations[static_cast<std::size_t>(normalization)].second;
}

Normalization parse_normalization(std::string_view word) {
  std::vector<std::string> known;
  for (const auto& [value, name] : kNormalizations) {
    if (name == word) {
      return value;
    }
    known.emplace_back(name);
  }
  throw InvalidArgument(unknown_name("normalization", word, known));
}

std::vector<AttributionSolves> attribute(const AttributionTask& task, ScoreSource& source, const VectorCache& cache,
                                         const Progress& progress) {
  source.check(task.stages, task.measurement, task.normalization);
  const auto normalization =
      task.normalization == Normalization::kNone ? source.own_normalization() : task.normalization;
  const auto first_stage = task.stages.front();
  std::vector<AttributionSolves> solves;
  auto products = products_so_far(source, task.chain.size());
  for (auto k = first_stage; k < task.chain.size(); ++k) {
    solves.push_back({task.chain[k].name, {}, products[static_cast<std::int64_t>(k)].item<double>()});
  }
  for (std::int64_t begin = 0; begin < task.queries.size(); begin += task.query_block) {
    const auto end = std::min(task.queries.size(), begin + task.query_block);
    const auto block = block_name(begin, end);
    const auto report_block = [&](ProgressEvent event) {
      event.phase += fmt::format(", {}", block);
      report(progress, event);
    };
    const QueryBlock queries{task.queries, task.measurement, begin, end};
    auto kept = load(cache, block, task);
    Solved solved;
    const auto& directions = solved.directions;
    if (kept) {
      solved = std::move(*kept);
      source.pass_over(queries);
    } else {
      solved.directions = solve(source, queries, task.stages, report_block);
      const auto now = products_so_far(source, task.chain.size());
      solved.products = now - std::exchange(products, now);
      for (const auto k : task.stages) {
        directions[k].check_finite("a query's vector");
      }
      if (cache.save) {
        cache.save(block, pack(solved, task.stages));
      }
    }
    for (std::size_t i = 0; i < solves.size(); ++i) {
      const auto& summaries = directions[first_stage + i].summaries;
      solves[i].summaries.insert(solves[i].summaries.end(), summaries.begin(), summaries.end());
      solves[i].products += solved.products[static_cast<std::int64_t>(first_stage + i)].item<double>();
    }
    for (std::size_t s = 0; s < task.stages.size(); ++s) {
      const auto k = task.stages[s];
      const auto& stage = task.chain[k];
      const auto& data = stage.objective.data();
      const auto step = stage.objective.batch_size();
      std::unique_ptr<Scorer> scorer;  // made where a block is wanted: a finished run needs none
      const auto query_norms = normalization == Normalization::kCosine ? lengths(directions[k].points) : at::Tensor();
      for (std::int64_t row = 0; row < data.size(); row += step) {
        const auto count = std::min(data.size() - row, step);
        if (!task.sinks[s]->has(begin, end - begin, row, count)) {
          if (!scorer) {
            scorer = source.scorer(k, directions[k], report_block);
          }
          const auto batch = data.batch(row, row + count);
          auto scores = scorer->scores(batch);
          if (normalization != Normalization::kNone) {
            scores = normalized(scores, query_norms, source.example_norms(k, batch, normalization));
          }
          task.sinks[s]->block(begin, row, scores);
        }
        report(progress, {"score " + stage.name + ", " + block, row + count, data.size(), ""});
      }
    }
  }
  return solves;
}

at::Tensor TokenScorer::scores(std::size_t stage, std::int64_t query, std::int64_t row) {
  const auto& data = task_.chain[stage].objective.data();
  if (!data.is_text()) {
    return {};
  }
  const auto begin = query / task_.query_block * task_.query_block;
  if (begin != block_) {
    const auto end = std::min(task_.queries.size(), begin + task_.query_block);
    auto kept = load(cache_, block_name(begin, end), task_);
    scorers_.clear();
    directions_ = kept ? std::move(kept->directions)
                       : solve(source_, {task_.queries, task_.measurement, begin, end}, task_.stages, {});
    block_ = begin;
  }
  auto& scorer = scorers_[stage];
  if (!scorer) {
    scorer = source_.scorer(stage, directions_[stage], {});
  }
  const auto out = scorer->token_scores(data.batch(row, row + 1), query - begin);
  return out.defined() ? out.to(at::kCPU, at::kDouble) : out;
}

at::Tensor score_matrix(const Chain& chain, std::size_t stage, ScoreSource& source, const Dataset& queries,
                        Measurement measurement, Normalization normalization) {
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
  attribute({.chain = chain,
             .stages = {stage},
             .sinks = {&sink},
             .queries = queries,
             .measurement = measurement,
             .normalization = normalization},
            source, {}, {});
  check_finite(out, "a score");
  return out;
}

}  // namespace whence
