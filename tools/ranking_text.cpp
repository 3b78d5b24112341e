#include "ranking_text.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <string>

#include "result.h"

namespace whence::cli {
namespace {

/// "class 7", "value 0.3", or nothing where tokens are predicted.
std::string named_label(const Dataset& data, std::int64_t row) {
  switch (data.target_kind()) {
    case TargetKind::kClasses:
      return "class " + example_label(data, row);
    case TargetKind::kValues:
      return "value " + example_label(data, row);
    default:
      return "";
  }
}

void print_columns(const Ranking& ranking, const Dataset& data) {
  const auto label_of = [&](std::int64_t id) { return example_label(data, row_of(data, id)); };
  fmt::print("  {:>9} {:>8} {:>11} {:>11}    {:>9} {:>8} {:>11} {:>11}\n", "proponent", "class", "score", "removal",
             "opponent", "class", "score", "removal");
  for (std::size_t r = 0; r < ranking.proponents.size(); ++r) {
    const auto& p = ranking.proponents[r];
    const auto& o = ranking.opponents[r];
    fmt::print("  {:>9} {:>8} {:>+11.3e} {:>+11.3e}    {:>9} {:>8} {:>+11.3e} {:>+11.3e}\n", p.example,
               label_of(p.example), p.score, p.removal, o.example, label_of(o.example), o.score, o.removal);
  }
}

/// One text a paragraph, its tokens shaded by what they add to the score where the terminal has colours.
void print_texts(const Ranking& ranking, const Dataset& data) {
  for (const auto& [title, list] : {std::pair("proponent", &ranking.proponents), {"opponent", &ranking.opponents}}) {
    for (const auto& entry : *list) {
      const auto row = row_of(data, entry.example);
      const auto label = named_label(data, row);
      fmt::print("  {:<9} {:>7}  {:>+.3e}  removal {:>+.3e}{}{}\n", title, entry.example, entry.score, entry.removal,
                 label.empty() ? "" : "  ", label);
      fmt::print("    {}\n", shaded_text(entry.tokens, data.token_texts(row)));
    }
  }
}

}  // namespace

void print_evidence(const nlohmann::ordered_json& run) {
  fmt::print("\nevidence\n");
  for (const auto& [name, stage] : run.at("stages").items()) {
    fmt::print("  {:<12} ", name);
    if (stage.contains("gradient-norm")) {
      fmt::print("|gradient| {:.1e}, {:.1e} of an example's", stage.at("gradient-norm").get<double>(),
                 stage.at("relative-gradient-norm").get<double>());
    } else {
      fmt::print("{} examples, {} trained parameters", stage.at("examples").get<std::int64_t>(),
                 stage.at("trained-parameters").get<std::int64_t>());
    }
    if (stage.contains("solves")) {
      const auto& first = stage.at("solves").at(0);
      const double worst = stage.at("largest-relative-residual").get<double>();
      fmt::print("; {} {}, {}, {:.0f} products, damping {:.3g}", stage.at("solves").size(),
                 stage.at("approximate-solves").get<int>() > 0 ? "approximate solves" : "solves",
                 worst >= 0 ? fmt::format("largest relative residual {:.1e}", worst) : "residual not measured",
                 stage.at("products").get<double>(), stage.at("damping").get<double>());
      if (stage.contains("smallest-ritz-value")) {
        fmt::print(", Ritz values {:.2g} to {:.2g}", stage.at("smallest-ritz-value").get<double>(),
                   stage.at("largest-ritz-value").get<double>());
      }
      const auto message = first.at("message").get<std::string>();
      if (const auto picked = message.find("auto picked"); picked != std::string::npos) {
        fmt::print("; {}", message.substr(picked));
      }
    }
    fmt::print("\n");
  }
}

void print_table(const AttributionRun& run, const std::vector<Ranking>& rankings) {
  fmt::print("score > 0: more of the example raises the {}; removal: predicted change when it is left out\n",
             to_string(run.measurement()));
  for (std::size_t i = 0; i < rankings.size(); ++i) {
    const auto& ranking = rankings[i];
    const auto s = i % run.stages().size(), q = i / run.stages().size();
    const auto& data = run.chain()[run.stages()[s]].objective.data();
    const auto label = named_label(run.queries(), static_cast<std::int64_t>(q));
    fmt::print("\nquery {}{}, {} {:.6g}, examples of {}\n", ranking.query, label.empty() ? "" : " (" + label + ")",
               to_string(run.measurement()), ranking.measurement, ranking.stage);
    if (run.queries().is_text()) {
      fmt::print("    {}\n", shaded_text({}, run.queries().token_texts(static_cast<std::int64_t>(q))));
    }
    if (data.is_text()) {
      print_texts(ranking, data);
    } else {
      print_columns(ranking, data);
    }
  }
}

}  // namespace whence::cli
