#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace whence {

struct RankedExample {
  std::int64_t example;  ///< Id.
  double score;
  double removal;  ///< -score / N: the predicted change of the measurement when the example is left out.
  std::vector<std::pair<std::string, double>> tokens = {};  ///< Of a text: each token and what it adds to the score.
};

/// The strongest examples of one stage for one query.
struct Ranking {
  std::int64_t query = 0;  ///< Id.
  std::string stage;       ///< Empty where the result has one stage only.
  double measurement = 0;
  std::vector<RankedExample> proponents;  ///< Highest scores, highest first.
  std::vector<RankedExample> opponents;   ///< Lowest scores, lowest first.
};

/// Fills a ranking's two lists with the `top` strongest of scores [N] over example_ids [N] int64; fewer where N is
/// smaller. Equal scores go by lower id. The query, stage and measurement are the caller's. Throws NumericalError on a
/// score that is not finite.
Ranking rank_examples(const at::Tensor& scores, const at::Tensor& example_ids, std::int64_t top);

/// ranking.jsonl: one line a ranking, appearing whole or not at all. Throws NumericalError on a number that JSON cannot
/// hold.
void write_rankings(const std::filesystem::path& path, const std::vector<Ranking>& rankings);
/// Throws DataError naming the file and the line.
std::vector<Ranking> read_rankings(const std::filesystem::path& path);

}  // namespace whence
