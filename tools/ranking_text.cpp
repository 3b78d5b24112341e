#include "ranking_text.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "result.h"
#include "say.h"
#include "solves_text.h"
#include "whence/text/shared_spans.h"

namespace whence::cli {
namespace {

/// "class 7", "value 0.3", or nothing where tokens are predicted.
std::string named_label(const Dataset& data, std::int64_t row) {
  const auto label = example_label(data, row);
  return label.empty() ? label : (data.target_kind() == TargetKind::kClasses ? "class " : "value ") + label;
}

/// "+0.0123", or nothing where the method predicts none.
std::string removal_text(const RankedExample& entry) {
  return entry.removal ? fmt::format("{:+.3g}", *entry.removal) : "";
}

/// "-0.03 to 0.01", with "~" where its order with the next cannot be vouched for; or nothing.
std::string interval_text(const RankedExample& entry) {
  return entry.interval ? fmt::format("{:.2g} to {:.2g}{}", entry.interval->first, entry.interval->second,
                                      entry.order_unsure ? " ~" : "  ")
                        : "";
}

/// One side of a table: a title over cells.
struct Column {
  std::string title;
  std::vector<std::string> cells;
};

std::vector<Column> columns_of(const std::vector<RankedExample>& list, const Dataset& data, std::string_view word,
                               bool removals) {
  std::vector<Column> out{{std::string(word), {}},
                          {data.target_kind() == TargetKind::kClasses ? "class" : "value", {}},
                          {"removal", {}},
                          {"90 % ", {}},
                          {"score", {}}};
  for (const auto& entry : list) {
    const auto row = row_of(data, entry.example);
    out[0].cells.push_back(source_text(data).empty() ? printable(data.origin(row)) : fmt::format("{}", entry.example));
    out[1].cells.push_back(printable(example_label(data, row)));
    out[2].cells.push_back(removal_text(entry));
    out[3].cells.push_back(interval_text(entry));
    out[4].cells.push_back(fmt::format("{:+.3g}", entry.score));
  }
  if (list.empty() || !list.front().interval) {
    out.erase(out.begin() + 3);
  }
  if (!removals) {
    out.erase(out.begin() + 2);
  }
  if (data.outputs() == 0) {
    out.erase(out.begin() + 1);
  }
  return out;
}

/// Both sides beside each other; the titles are shaded as their sides are.
void print_columns(const Ranking& ranking, const Dataset& data,
                   const std::pair<std::string_view, std::string_view>& words, bool removals) {
  const std::pair sides{columns_of(ranking.proponents, data, words.first, removals),
                        columns_of(ranking.opponents, data, words.second, removals)};
  const auto rows = std::max(ranking.proponents.size(), ranking.opponents.size());
  for (std::size_t r = 0; r <= rows; ++r) {
    std::string line;
    for (const auto& [side, share] : {std::pair{&sides.first, 1.0}, std::pair{&sides.second, -1.0}}) {
      line += share < 0 ? "  " : "";
      for (std::size_t c = 0; c < side->size(); ++c) {
        const auto& column = (*side)[c];
        std::size_t width = c == 0 ? 10 : 9;
        for (const auto& cell : column.cells) {
          width = std::max(width, cell.size());
        }
        const auto& text = r == 0 ? column.title : r <= column.cells.size() ? column.cells[r - 1] : std::string();
        line += "  " + std::string(width - std::min(width, text.size()), ' ');
        line += r == 0 && c == 0 ? shaded(text, share) : text;
      }
    }
    say("{}\n", Ready{line.substr(0, line.find_last_not_of(' ') + 1)});
  }
}

std::string plain_text(const Dataset& data, std::int64_t row) {
  std::string out;
  for (const auto& [token, score] : visible_tokens(data, row, {})) {
    out += token;
  }
  return out;
}

/// One text a paragraph, its tokens shaded by what they add to the score where the terminal has colours.
void print_texts(const Ranking& ranking, const Dataset& data, Measurement measurement, const std::string& query) {
  const auto words = side_words(measurement);
  for (const auto& [word, share, list] :
       {std::tuple(words.first, 1.0, &ranking.proponents), std::tuple(words.second, -1.0, &ranking.opponents)}) {
    for (const auto& entry : *list) {
      const auto row = row_of(data, entry.example);
      const auto label = named_label(data, row);
      say("  {}  {}{}{}{}  score {:+.3g}\n", Ready{shaded(std::string(word), share)}, data.origin(row),
          label.empty() ? "" : ", " + label, entry.removal ? fmt::format("  removal {}", removal_text(entry)) : "",
          entry.interval ? fmt::format("  90 % {}", interval_text(entry)) : "", entry.score);
      say("    {}\n", Ready{shaded_text(visible_tokens(data, row, entry.tokens), outcome_sign(measurement))});
      const auto text = plain_text(data, row);
      for (const auto& span : shared_spans(query, text, 4, 1)) {
        say("    word for word in the query: “{}”\n", one_line(text.substr(span.begin, span.end - span.begin), 100));
      }
    }
  }
}

}  // namespace

void print_evidence(const JsonView& run) {
  say("\nevidence\n");
  for (const auto& [name, stage] : run.at("stages").items()) {
    say("  {:<12} ", name);
    if (stage.contains("gradient-norm")) {
      say("|gradient| {:.1e}, {:.1e} of an example's", stage.at("gradient-norm").get<double>(),
          stage.at("relative-gradient-norm").get<double>());
    } else {
      say("{} examples, {} trained parameters", stage.at("examples").get<std::int64_t>(),
          stage.at("trained-parameters").get<std::int64_t>());
    }
    if (stage.contains("solves")) {
      const auto first = stage.at("solves").at(0);
      say("; {}, {:.0f} products, damping {:.3g}", solves_text(stage), stage.at("products").get<double>(),
          stage.at("damping").get<double>());
      if (stage.contains("smallest-ritz-value")) {
        say(", Ritz values {:.2g} to {:.2g}", stage.at("smallest-ritz-value").get<double>(),
            stage.at("largest-ritz-value").get<double>());
      }
      const auto message = first.at("message").get<std::string>();
      if (const auto picked = message.find("auto picked"); picked != std::string::npos) {
        say("; {}", message.substr(picked));
      }
    }
    if (stage.contains("self-influence")) {
      say("; self-influence {}", stage.at("self-influence").get<std::string>());
    }
    say("\n");
  }
  if (run.contains("intervals")) {
    say("  {:<12} {}\n", "intervals", run.at("intervals").get<std::string>());
  }
  if (run.contains("verdict")) {
    say("{}\n", run.at("verdict").get<std::string>());
  }
}

void print_table(const AttributionRun& run, const std::vector<Ranking>& rankings) {
  const auto measurement = run.measurement();
  const auto words = side_words(measurement);
  const bool rises = outcome_sign(measurement) < 0;
  const bool removals = std::any_of(rankings.begin(), rankings.end(), [](const Ranking& ranking) {
    return !ranking.proponents.empty() ? ranking.proponents[0].removal.has_value()
                                       : !ranking.opponents.empty() && ranking.opponents[0].removal.has_value();
  });
  say("{}: without it the {} {}; {}: it {}", words.first, to_string(measurement), rises ? "rises" : "falls",
      words.second, rises ? "falls" : "rises");
  say("{}", removals ? "; removal: by how much, as predicted" : "");
  const auto unsure = [](const std::vector<RankedExample>& list) {
    return std::any_of(list.begin(), list.end(), [](const RankedExample& entry) { return entry.order_unsure; });
  };
  say("{}\n", std::any_of(rankings.begin(), rankings.end(),
                          [&](const Ranking& at) { return unsure(at.proponents) || unsure(at.opponents); })
                  ? "; ~: its order with the next is not sure"
                  : "");
  for (std::size_t i = 0; i < rankings.size(); ++i) {
    const auto& ranking = rankings[i];
    const auto s = i % run.stages().size();
    const auto q = static_cast<std::int64_t>(i / run.stages().size());
    const auto& data = run.chain()[run.stages()[s]].objective.data();
    if (s == 0) {
      say("\nquery {}: {}; {}{} {:.4g}\n", ranking.query, run.queries().origin(q),
          ranking.prediction ? prediction_text(*ranking.prediction) + ", " : "", to_string(measurement),
          ranking.measurement);
      if (run.queries().is_text()) {
        say("    {}\n", Ready{shaded_text(visible_tokens(run.queries(), q, {}), 1)});
      }
    }
    const auto source = data.is_text() ? "" : source_text(data);
    say("  examples of {}{}\n", ranking.stage, source.empty() ? "" : ", " + source);
    if (ranking.proponents.empty() && ranking.opponents.empty()) {
      say("    none moves the {}\n", to_string(measurement));
    } else if (data.is_text()) {
      print_texts(ranking, data, measurement, run.queries().is_text() ? plain_text(run.queries(), q) : "");
    } else {
      print_columns(ranking, data, words, removals);
    }
    constexpr std::size_t kTasks = 5;
    for (std::size_t t = 0; t < std::min(kTasks, ranking.tasks.size()); ++t) {
      const auto& [task, score] = ranking.tasks[t];
      say("    task {}: {:.3g}, without it the {} changes by {:.2g}\n", task, score, to_string(measurement),
          -score / static_cast<double>(data.size()));
    }
  }
}

}  // namespace whence::cli
