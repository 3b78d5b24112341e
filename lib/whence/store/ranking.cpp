#include "whence/store/ranking.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/tensors.h"

namespace whence {
namespace {

using Json = nlohmann::ordered_json;

/// The `top` first examples when those that `before` prefers come first.
template <class Before>
std::vector<RankedExample> strongest(const at::Tensor& scores, const at::Tensor& ids, std::int64_t top, Before before) {
  const auto* score = scores.const_data_ptr<double>();
  const auto* id = ids.const_data_ptr<std::int64_t>();
  std::vector<std::int64_t> order(static_cast<std::size_t>(scores.numel()));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto end = order.begin() + std::min(top, scores.numel());
  std::partial_sort(order.begin(), end, order.end(), [&](std::int64_t a, std::int64_t b) {
    return score[a] != score[b] ? before(score[a], score[b]) : id[a] < id[b];
  });
  std::vector<RankedExample> list;
  for (auto i = order.begin(); i != end; ++i) {
    list.push_back({id[*i], score[*i], -score[*i] / static_cast<double>(scores.numel()), {}});
  }
  return list;
}

Json to_json(const std::vector<RankedExample>& list) {
  auto out = Json::array();
  for (const auto& entry : list) {
    out.push_back({{"example", entry.example}, {"score", entry.score}, {"removal", entry.removal}});
    if (!entry.tokens.empty()) {
      out.back()["tokens"] = entry.tokens;
    }
  }
  return out;
}

Json to_json(const Ranking& ranking) {
  Json out{{"query", ranking.query}};
  if (!ranking.stage.empty()) {
    out["stage"] = ranking.stage;
  }
  out["measurement"] = ranking.measurement;
  out["proponents"] = to_json(ranking.proponents);
  out["opponents"] = to_json(ranking.opponents);
  return out;
}

void check_writable(const Ranking& ranking) {
  bool finite = std::isfinite(ranking.measurement);
  for (const auto* list : {&ranking.proponents, &ranking.opponents}) {
    for (const auto& entry : *list) {
      finite = finite && std::isfinite(entry.score) && std::isfinite(entry.removal) &&
               std::all_of(entry.tokens.begin(), entry.tokens.end(),
                           [](const auto& token) { return std::isfinite(token.second); });
    }
  }
  if (!finite) {
    throw NumericalError(fmt::format("ranking of query {}: a measurement or score is not finite", ranking.query));
  }
}

std::int64_t whole_number(const Json& value, const char* key) {
  const auto& found = value.at(key);
  if (!found.is_number_integer()) {
    throw DataError(fmt::format("\"{}\" is {}, expected a whole number", key, found.dump()));
  }
  return found.get<std::int64_t>();
}

std::vector<RankedExample> read_list(const Json& line, const char* key) {
  if (!line.at(key).is_array()) {
    throw DataError(fmt::format("\"{}\" is no list", key));
  }
  std::vector<RankedExample> list;
  for (const auto& entry : line.at(key)) {
    list.push_back({whole_number(entry, "example"), entry.at("score").get<double>(), entry.at("removal").get<double>(),
                    entry.value("tokens", std::vector<std::pair<std::string, double>>())});
  }
  return list;
}

Ranking read_ranking(const std::string& text) {
  const auto line = Json::parse(text);
  return {whole_number(line, "query"), line.value("stage", std::string()), line.at("measurement").get<double>(),
          read_list(line, "proponents"), read_list(line, "opponents")};
}

}  // namespace

Ranking rank_examples(const at::Tensor& scores, const at::Tensor& example_ids, std::int64_t top) {
  if (scores.dim() != 1 || example_ids.sizes() != scores.sizes() || example_ids.scalar_type() != at::kLong || top < 0) {
    throw InvalidArgument(
        fmt::format("ranking: scores [{}], example ids {} [{}], top {}; expected [N], int64 [N], top >= 0",
                    fmt::join(scores.sizes(), ", "), at::toString(example_ids.scalar_type()),
                    fmt::join(example_ids.sizes(), ", "), top));
  }
  const auto values = scores.detach().to(at::kCPU, at::kDouble).contiguous();
  const auto ids = example_ids.cpu().contiguous();
  check_finite(values, "ranking: scores");
  Ranking ranking;
  ranking.proponents = strongest(values, ids, top, std::greater<double>());
  ranking.opponents = strongest(values, ids, top, std::less<double>());
  return ranking;
}

void write_rankings(const std::filesystem::path& path, const std::vector<Ranking>& rankings) {
  for (const auto& ranking : rankings) {
    check_writable(ranking);
  }
  write_atomically(path, [&](std::ostream& out) {
    for (const auto& ranking : rankings) {
      out << to_json(ranking).dump() << '\n';
    }
  });
}

std::vector<Ranking> read_rankings(const std::filesystem::path& path) {
  std::istringstream lines(read_text(path));
  std::vector<Ranking> rankings;
  for (std::string line; std::getline(lines, line);) {
    const auto fail = [&](const char* reason) {
      throw DataError(fmt::format("{} line {}: {}", path.string(), rankings.size() + 1, reason));
    };
    try {
      rankings.push_back(read_ranking(line));
    } catch (const Json::exception& error) {
      fail(error.what());
    } catch (const DataError& error) {
      fail(error.what());
    }
  }
  return rankings;
}

}  // namespace whence
