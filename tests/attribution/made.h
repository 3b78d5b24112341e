#pragma once
#include <map>
#include <optional>
#include <string>

#include "support/looped.h"
#include "support/near.h"
#include "support/toy_chain.h"
#include "whence/attribution/attribute.h"

namespace whence::test {

inline const std::vector<ToyStage> kTwoStages{{"full", "cross-entropy"}, {"full:proximity=0.3", "cross-entropy"}};

/// The chain with three snapshots a stage, made up but for the last.
inline Chain traced(Chain chain) {
  auto draws = Random(17);
  for (auto& stage : chain) {
    for (int k = 2; k >= 0; --k) {
      Snapshot snapshot;
      for (const auto& value : stage.theta) {
        snapshot.theta.push_back(value + 0.2 * k * draws.normal(value.sizes()));
      }
      snapshot.time = 1.5 + k;
      snapshot.steps = 10;
      snapshot.iteration = 10 * (3 - k);
      stage.trajectory.push_back(std::move(snapshot));
    }
  }
  return chain;
}

inline Chain traced_chain(const std::vector<ToyStage>& stages) { return traced(toy_chain(stages)); }

/// A method at work on a chain.
inline std::unique_ptr<ScoreSource> prepared(const Chain& chain, std::string_view spec) {
  return create<Attributor>(spec)->prepare(chain,
                                           {create<Curvature>("hessian"), create<Solver>("direct"), {.damping = 0.3}});
}

inline at::Tensor scores_of(const Chain& chain, std::size_t stage, const Dataset& queries,
                            std::string_view method = "influence", Measurement measurement = Measurement::kLoss,
                            Normalization normalization = Normalization::kNone) {
  return score_matrix(chain, stage, *prepared(chain, method), queries, measurement, normalization);
}

/// Keeps vectors in `kept` as a file would, in copies that lie as they like; `kept` must outlive it.
inline VectorCache cache_in(std::map<std::string, ParameterSet>& kept) {
  return {[&kept](const std::string& block) {
            return kept.count(block) != 0 ? std::optional(kept.at(block).with(clone(kept.at(block).values())))
                                          : std::nullopt;
          },
          [&kept](const std::string& block, const ParameterSet& vectors) { kept[block] = vectors; }};
}

class MemorySink : public ScoreSink {
 public:
  MemorySink(std::int64_t queries, std::int64_t examples) : values(at::full({queries, examples}, NAN, at::kDouble)) {}
  bool has(std::int64_t, std::int64_t, std::int64_t, std::int64_t) const override { return false; }
  void block(std::int64_t q, std::int64_t e, const at::Tensor& scores) override {
    values.narrow(0, q, scores.size(0)).narrow(1, e, scores.size(1)).copy_(scores);
  }
  at::Tensor values;
};

}  // namespace whence::test
