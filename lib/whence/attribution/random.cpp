// Scores that know nothing: what any method has to beat.
#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

#include "whence/attribution/attributor.h"

namespace whence {
namespace {

struct RandomOptions {
  std::int64_t seed = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("seed", self.seed, kAtLeastZero, "other seeds, other scores");
  }
};

/// The next number of G. Steele et al.'s SplitMix64 after `state`.
std::uint64_t mix(std::uint64_t state) {
  state += 0x9E3779B97F4A7C15ULL;
  state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9ULL;
  state = (state ^ (state >> 27)) * 0x94D049BB133111EBULL;
  return state ^ (state >> 31);
}

/// In (0, 1].
double unit(std::uint64_t bits) { return static_cast<double>((bits >> 11) + 1) * 0x1p-53; }

/// Standard normal, a function of the ids alone: no order or batch changes it.
class RandomScorer : public Scorer {
 public:
  RandomScorer(std::uint64_t key, at::Tensor query_ids, at::ScalarType dtype)
      : key_(key), query_ids_(std::move(query_ids)), dtype_(dtype) {}

  at::Tensor scores(const Batch& batch) const override {
    const auto examples = batch.ids.cpu().contiguous(), queries = query_ids_.contiguous();
    const auto* example = examples.const_data_ptr<std::int64_t>();
    const auto* query = queries.const_data_ptr<std::int64_t>();
    auto out = at::empty({queries.numel(), examples.numel()}, at::kDouble);
    auto* to = out.data_ptr<double>();
    for (std::int64_t q = 0; q < queries.numel(); ++q) {
      const auto row = mix(key_ ^ mix(static_cast<std::uint64_t>(query[q])));
      for (std::int64_t i = 0; i < examples.numel(); ++i) {
        const auto bits = mix(row ^ mix(static_cast<std::uint64_t>(example[i])));
        *to++ = std::sqrt(-2 * std::log(unit(bits))) * std::cos(2 * std::numbers::pi * unit(mix(bits)));
      }
    }
    return out.to(dtype_);
  }

 private:
  std::uint64_t key_;
  at::Tensor query_ids_;
  at::ScalarType dtype_;
};

class RandomSource : public ScoreSource {
 public:
  RandomSource(const Chain& chain, const RandomOptions& options) : chain_(chain), options_(options) {}

  void check(const std::vector<std::size_t>&, Measurement, Normalization normalization) const override {
    if (normalization != Normalization::kNone) {
      throw InvalidArgument("normalize = " + std::string(to_string(normalization)) +
                            " with random, which has no gradients to measure: use none");
    }
  }
  std::vector<QueryDirections> directions(const QueryBlock& queries, const std::vector<std::size_t>& stages,
                                          const Progress&) override {
    std::vector<QueryDirections> out(chain_.size());
    for (const auto k : stages) {
      out[k].points = {Directions{{"ids", queries.data.ids().narrow(0, queries.begin, queries.size()).clone()}}};
    }
    return out;
  }
  std::unique_ptr<Scorer> scorer(std::size_t stage, const QueryDirections& directions, const Progress&) override {
    const auto key = Random(static_cast<std::uint64_t>(options_.seed)).stream("scores of " + chain_[stage].name).seed();
    return std::make_unique<RandomScorer>(key, directions.points.front().values().front(),
                                          chain_[stage].theta.front().scalar_type());
  }
  at::Tensor example_norms(std::size_t, const Batch& batch, Normalization) override {
    return at::ones({batch.size()}, at::kDouble);
  }
  std::vector<std::string> parameters(std::size_t) const override { return {}; }
  MethodCost cost(std::size_t, std::int64_t) const override { return {.bytes_a_query = 8}; }

 private:
  const Chain& chain_;
  RandomOptions options_;
};

class RandomAttributor : public Attributor {
 public:
  explicit RandomAttributor(RandomOptions options) : options_(options) {}
  bool uses_curvature() const override { return false; }
  Claim claim() const override { return Claim::kNothing; }
  std::unique_ptr<ScoreSource> prepare(const Chain& chain, const InverseProblem&) const override {
    return std::make_unique<RandomSource>(chain, options_);
  }

 private:
  RandomOptions options_;
};

}  // namespace

WHENCE_METHOD(Attributor, random, RandomAttributor, RandomOptions)

}  // namespace whence
