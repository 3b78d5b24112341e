#include "report_cards.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <map>
#include <optional>

#include "result.h"
#include "whence/report/image.h"
#include "whence/text/shared_spans.h"

namespace whence::cli {
namespace {

constexpr std::size_t kShownColumns = 8, kShownOfQuery = 20;

/// The columns of an example, as a table's file has them; of other vectors their numbers.
std::vector<Cell> cells_of(const Dataset& data, std::int64_t row) {
  std::vector<Cell> out;
  if (data.table()) {
    for (const auto& [name, value] : data.cells(row)) {
      out.push_back({name, value});
    }
    return out;
  }
  const auto flat = data.batch(row, row + 1).inputs[0].flatten().to(at::kCPU, at::kDouble);
  for (std::int64_t i = 0; i < flat.numel(); ++i) {
    out.push_back({fmt::format("{}", i), fmt::format("{:.4g}", flat[i].item<double>())});
  }
  return out;
}

std::optional<double> number_in(const std::string& cell) {
  double value = 0;
  const auto [end, code] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  return code == std::errc{} && end == cell.data() + cell.size() && std::isfinite(value) ? std::optional(value)
                                                                                         : std::nullopt;
}

bool is_table(const Dataset& data) { return !data.is_text() && data.input_shape().size() == 1; }

/// How far apart the cells of a column usually are, so that columns can be compared: standard deviations over some rows
/// of a table, 1 for columns of words.
class ColumnSpreads {
 public:
  explicit ColumnSpreads(const Dataset& data) {
    constexpr std::int64_t kRows = 300;
    const auto step = std::max<std::int64_t>(1, data.size() / kRows);
    std::map<std::string, std::vector<double>> numbers;
    for (std::int64_t row = 0; is_table(data) && row < data.size(); row += step) {
      for (const auto& cell : cells_of(data, row)) {
        if (const auto value = number_in(cell.value)) {
          numbers[cell.name].push_back(*value);
        }
      }
    }
    for (const auto& [name, values] : numbers) {
      const double deviation = at::tensor(values, at::kDouble).std(/*unbiased=*/false).item<double>();
      spreads_[name] = deviation > 0 ? deviation : 1;
    }
  }

  double distance(const Cell& a, const Cell& b) const {
    const auto x = number_in(a.value), y = number_in(b.value);
    const auto spread = spreads_.find(a.name);
    return x && y && spread != spreads_.end() ? std::abs(*x - *y) / spread->second : (a.value == b.value ? 0 : 1);
  }

 private:
  std::map<std::string, double> spreads_;
};

/// The columns in which an example differs from the query, the most first, beside the query's; its first ones where
/// their tables have different columns.
std::vector<Cell> compared(std::vector<Cell> cells, const std::vector<Cell>& query, const ColumnSpreads& spreads) {
  const bool same = std::equal(cells.begin(), cells.end(), query.begin(), query.end(),
                               [](const Cell& a, const Cell& b) { return a.name == b.name; });
  if (same) {
    std::map<std::string, double> distances;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      cells[i].beside = query[i].value;
      distances[cells[i].name] = spreads.distance(cells[i], query[i]);
    }
    std::stable_sort(cells.begin(), cells.end(),
                     [&](const Cell& a, const Cell& b) { return distances[a.name] > distances[b.name]; });
    const auto same_from = std::find_if(cells.begin() + std::min<std::ptrdiff_t>(1, std::ssize(cells)), cells.end(),
                                        [&](const Cell& cell) { return distances[cell.name] == 0; });
    cells.erase(same_from, cells.end());
  }
  cells.resize(std::min(cells.size(), kShownColumns));
  return cells;
}

/// An image where the input has an image's shape, the text of a text, else its columns.
Content content_of(const Dataset& data, std::int64_t row, const std::vector<std::pair<std::string, double>>& scores) {
  if (data.is_text()) {
    const auto tokens = visible_tokens(data, row, scores);
    if (!scores.empty()) {
      return {.tokens = tokens};
    }
    std::string text;
    for (const auto& [token, score] : tokens) {
      text += token;
    }
    return {.text = text};
  }
  const auto shape = data.input_shape();
  const auto channels = shape.size() == 3 ? shape[0] : 1;
  if ((shape.size() == 2 || shape.size() == 3) && (channels == 1 || channels == 3)) {
    return {.image = image_data_uri(data.picture(row))};
  }
  return {.cells = cells_of(data, row)};
}

std::string whole_text(const Content& content) {
  std::string out = content.text;
  for (const auto& [token, score] : content.tokens) {
    out += token;
  }
  return out;
}

/// Where a text whose tokens are shown says what the query says.
std::vector<std::pair<std::size_t, std::size_t>> shared_ranges(const Content& query, const Content& example) {
  std::vector<std::pair<std::size_t, std::size_t>> out;
  if (!example.tokens.empty()) {
    for (const auto& span : shared_spans(whole_text(query), whole_text(example))) {
      out.emplace_back(span.begin, span.end);
    }
  }
  return out;
}

/// "class 9", or "value 0.31".
std::string card_label(const Dataset& data, std::int64_t row) {
  const auto label = example_label(data, row);
  return label.empty() ? label : (data.target_kind() == TargetKind::kClasses ? "class " : "value ") + label;
}

/// What the model says of the query, and the measurement.
std::vector<Fact> query_facts(const Ranking& ranking, const std::string& measurement) {
  std::vector<Fact> out;
  if (ranking.prediction) {
    const auto& said = *ranking.prediction;
    const auto with_chance = [](const std::string& name, double chance) {
      return std::isnan(chance) ? name : fmt::format("{} (p {:.3g})", name, chance);
    };
    if (said.tokens > 0) {
      out.push_back({"predicts", prediction_text(said)});
    } else if (std::isnan(said.probability)) {
      out.push_back({"predicts", said.predicted});
      out.push_back({"expected", said.expected});
    } else {
      const bool right = said.predicted == said.expected;
      out.push_back({"predicts", with_chance(said.predicted, said.probability),
                     right ? Fact::State::kGood : Fact::State::kWarning});
      out.push_back({"expected", right ? said.expected : with_chance(said.expected, said.expected_probability)});
    }
  }
  out.push_back({measurement, fmt::format("{:.4g}", ranking.measurement)});
  return out;
}

}  // namespace

std::vector<QueryCard> query_cards(const Pipeline& pipeline, const JsonView& run,
                                   const std::vector<Ranking>& rankings) {
  const auto queries = queries_of(pipeline, run);
  const bool several = run["options"]["stage"] == kEveryStage;
  std::map<std::string, ColumnSpreads> spreads;
  std::vector<Cell> query_cells;  // of the last card, all of them
  std::vector<QueryCard> cards;
  for (const auto& ranking : rankings) {
    if (cards.empty() || cards.back().id != ranking.query) {
      const auto row = row_of(queries, ranking.query);
      auto content = content_of(queries, row, {});
      query_cells = content.cells;
      cards.push_back({.id = ranking.query,
                       .origin = queries.origin(row),
                       .facts = query_facts(ranking, run["options"]["measurement"].get<std::string>()),
                       .content = std::move(content)});
    }
    const auto& data = pipeline.training_data(pipeline.stage_index(ranking.stage));
    const auto& spread = spreads.try_emplace(ranking.stage, data).first->second;
    const auto card = [&](const RankedExample& example) {
      const auto row = row_of(data, example.example);
      auto content = content_of(data, row, example.tokens);
      content.cells = compared(std::move(content.cells), query_cells, spread);
      content.shared = shared_ranges(cards.back().content, content);
      return ExampleCard{.id = example.example,
                         .origin = short_origin_text(data, row),
                         .label = card_label(data, row),
                         .removal = example.removal,
                         .score = example.score,
                         .content = std::move(content),
                         .interval = example.interval,
                         .order_unsure = example.order_unsure};
    };
    ExampleLists lists{.stage = several ? ranking.stage : "", .source = source_text(data)};
    std::transform(ranking.proponents.begin(), ranking.proponents.end(), std::back_inserter(lists.helpful), card);
    std::transform(ranking.opponents.begin(), ranking.opponents.end(), std::back_inserter(lists.harmful), card);
    cards.back().stages.push_back(std::move(lists));
  }
  return cards;
}

void cut_queries(Page& page) {
  for (auto& card : page.queries) {
    card.content.cells.resize(std::min(card.content.cells.size(), kShownOfQuery));
  }
  for (auto& part : page.joined) {
    cut_queries(part);
  }
}

std::vector<ExampleLists> suspect_lists(const Pipeline& pipeline, const JsonView& run,
                                        const std::filesystem::path& path) {
  constexpr std::size_t kMost = 60;  // a stage
  std::vector<ExampleLists> out;
  std::string stage;
  const Dataset* data = nullptr;
  read_json_lines<JsonView::Value>(path, [&](JsonView::Value value, std::int64_t, const std::string& where) {
    const JsonView line(std::move(value), where);
    if (data == nullptr || line["stage"] != stage) {
      stage = line["stage"].get<std::string>();
      data = &pipeline.training_data(pipeline.stage_index(stage));
      out.push_back({.stage = run["options"]["stage"] == kEveryStage ? stage : "", .source = source_text(*data)});
    }
    if (out.back().helpful.size() == kMost) {
      return;
    }
    ExampleCard card{.id = line["example"].get<std::int64_t>(), .score = line["score"].get<double>()};
    if (line.contains("removal")) {
      card.removal = line["removal"].get<double>();
    }
    const auto row = row_of(*data, card.id);
    card.origin = short_origin_text(*data, row);
    card.label = card_label(*data, row);
    if (line.contains("prediction") && line.value("label", "") != line["prediction"].get<std::string>()) {
      card.label += fmt::format(", predicted {}", line["prediction"].get<std::string>());
    }
    card.content = content_of(*data, row, {});
    card.content.cells.resize(std::min(card.content.cells.size(), kShownOfQuery));
    out.back().helpful.push_back(std::move(card));
  });
  return out;
}

}  // namespace whence::cli
