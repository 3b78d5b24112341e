#include "whence/store/ranking.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/json.h"
#include "whence/core/tensors.h"

namespace whence {
namespace {

using Json = nlohmann::ordered_json;

/// The `top` first of the examples with sign * score > 0, the largest first.
std::vector<RankedExample> strongest(const at::Tensor& scores, const at::Tensor& ids, std::int64_t top, double sign,
                                     bool predicts_removal) {
  const auto* score = scores.const_data_ptr<double>();
  const auto* id = ids.const_data_ptr<std::int64_t>();
  std::vector<std::int64_t> order;
  for (std::int64_t i = 0; i < scores.numel(); ++i) {
    if (sign * score[i] > 0) {
      order.push_back(i);
    }
  }
  const auto end = order.begin() + std::min(top, static_cast<std::int64_t>(order.size()));
  std::partial_sort(order.begin(), end, order.end(), [&](std::int64_t a, std::int64_t b) {
    return score[a] != score[b] ? sign * score[a] > sign * score[b] : id[a] < id[b];
  });
  std::vector<RankedExample> list;
  for (auto i = order.begin(); i != end; ++i) {
    list.push_back({.example = id[*i], .score = score[*i], .removal = {}});
    if (predicts_removal) {
      list.back().removal = -score[*i] / static_cast<double>(scores.numel());
    }
  }
  return list;
}

Json to_json(const std::vector<RankedExample>& list) {
  auto out = Json::array();
  for (const auto& entry : list) {
    out.push_back({{"example", entry.example}});
    if (entry.removal) {
      out.back()["removal"] = *entry.removal;
    }
    out.back()["score"] = entry.score;
    if (entry.interval) {
      out.back()["removal-interval-90"] = {entry.interval->first, entry.interval->second};
      out.back()["order-unsure"] = entry.order_unsure;
    }
    if (!entry.tokens.empty()) {
      out.back()["tokens"] = entry.tokens;
    }
  }
  return out;
}

/// The parts that are there.
Json to_json(const Prediction& prediction) {
  Json out = Json::object();
  const auto text = [&](const char* key, const std::string& value) {
    if (!value.empty()) {
      out[key] = value;
    }
  };
  const auto number = [&](const char* key, double value) {
    if (std::isfinite(value)) {
      out[key] = value;
    }
  };
  text("predicted", prediction.predicted);
  number("probability", prediction.probability);
  text("expected", prediction.expected);
  number("expected-probability", prediction.expected_probability);
  if (prediction.tokens > 0) {
    out["tokens"] = prediction.tokens;
    out["first-choices"] = prediction.first_choices;
    number("perplexity", prediction.perplexity);
  }
  return out;
}

Json to_json(const Ranking& ranking) {
  Json out{{"query", ranking.query}};
  if (!ranking.stage.empty()) {
    out["stage"] = ranking.stage;
  }
  out["measurement"] = ranking.measurement;
  if (ranking.prediction) {
    out["prediction"] = to_json(*ranking.prediction);
  }
  out["proponents"] = to_json(ranking.proponents);
  out["opponents"] = to_json(ranking.opponents);
  if (!ranking.tasks.empty()) {
    out["tasks"] = ranking.tasks;
  }
  return out;
}

void check_writable(const Ranking& ranking) {
  const auto is_finite = [](const auto& named) { return std::isfinite(named.second); };
  bool finite =
      std::isfinite(ranking.measurement) && std::all_of(ranking.tasks.begin(), ranking.tasks.end(), is_finite);
  for (const auto* list : {&ranking.proponents, &ranking.opponents}) {
    for (const auto& entry : *list) {
      const auto [low, high] = entry.interval.value_or(std::pair(0.0, 0.0));
      finite = finite && std::isfinite(entry.score) && std::isfinite(entry.removal.value_or(0)) && std::isfinite(low) &&
               std::isfinite(high) && std::all_of(entry.tokens.begin(), entry.tokens.end(), is_finite);
    }
  }
  if (!finite) {
    throw NumericalError(fmt::format("ranking of query {}: a measurement or score is not finite", ranking.query));
  }
}

std::vector<RankedExample> read_list(const JsonView& list) {
  std::vector<RankedExample> out;
  for (const auto& entry : list.list()) {
    out.push_back({.example = entry["example"].get<std::int64_t>(),
                   .score = entry["score"].get<double>(),
                   .removal = {},
                   .tokens = entry.value("tokens", std::vector<std::pair<std::string, double>>())});
    if (entry.contains("removal")) {
      out.back().removal = entry["removal"].get<double>();
    }
    if (entry.contains("removal-interval-90")) {
      const auto ends = entry["removal-interval-90"];
      out.back().interval = {ends[0].get<double>(), ends[1].get<double>()};
      out.back().order_unsure = entry.value("order-unsure", false);
    }
  }
  return out;
}

std::optional<Prediction> read_prediction(const JsonView& line) {
  if (!line.contains("prediction")) {
    return std::nullopt;
  }
  const auto found = line["prediction"];
  return Prediction{.predicted = found.value("predicted", ""),
                    .expected = found.value("expected", ""),
                    .probability = found.value("probability", Prediction::kAbsent),
                    .expected_probability = found.value("expected-probability", Prediction::kAbsent),
                    .tokens = found.value("tokens", std::int64_t{0}),
                    .first_choices = found.value("first-choices", std::int64_t{0}),
                    .perplexity = found.value("perplexity", Prediction::kAbsent)};
}

Ranking read_ranking(const JsonView& line) {
  return {line["query"].get<std::int64_t>(),
          line.value("stage", ""),
          line["measurement"].get<double>(),
          read_prediction(line),
          read_list(line["proponents"]),
          read_list(line["opponents"]),
          line.value("tasks", std::vector<std::pair<std::string, double>>())};
}

}  // namespace

Ranking rank_examples(const at::Tensor& scores, const at::Tensor& example_ids, std::int64_t top,
                      Measurement measurement, bool predicts_removal) {
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
  const double outcome = outcome_sign(measurement);
  ranking.proponents = strongest(values, ids, top, outcome, predicts_removal);
  ranking.opponents = strongest(values, ids, top, -outcome, predicts_removal);
  return ranking;
}

void mark_unsure_order(Ranking& ranking) {
  for (auto* list : {&ranking.proponents, &ranking.opponents}) {
    for (std::size_t i = 0; i < list->size(); ++i) {
      auto& entry = (*list)[i];
      const auto* next = i + 1 < list->size() ? &(*list)[i + 1] : nullptr;
      entry.order_unsure = next != nullptr && entry.interval && next->interval &&
                           entry.interval->first <= next->interval->second &&
                           next->interval->first <= entry.interval->second;
    }
  }
}

void write_rankings(const std::filesystem::path& path, const std::vector<Ranking>& rankings) {
  for (const auto& ranking : rankings) {
    check_writable(ranking);
  }
  write_atomically(path, [&](std::ostream& out) {
    for (const auto& ranking : rankings) {
      out << json_text(to_json(ranking)) << '\n';
    }
  });
}

std::vector<Ranking> read_rankings(const std::filesystem::path& path) {
  std::vector<Ranking> rankings;
  read_json_lines<JsonView::Value>(path, [&](JsonView::Value value, std::int64_t, const std::string& where) {
    rankings.push_back(read_ranking({std::move(value), where}));
  });
  return rankings;
}

}  // namespace whence
