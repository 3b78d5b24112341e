#include <ATen/ATen.h>
#include <fmt/format.h>

#include <map>

#include "cli.h"
#include "icl_result.h"
#include "result.h"
#include "run_record.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/json.h"
#include "whence/report/html.h"
#include "whence/report/image.h"
#include "whence/store/ranking.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace po = boost::program_options;
namespace {

using Json = nlohmann::ordered_json;

/// An image where the input has an image's shape, the text of a text, else its numbers.
Content content_of(const Dataset& data, std::int64_t row) {
  if (data.is_text()) {
    std::string text;
    for (const auto& token : data.token_texts(row)) {
      text += token;
    }
    return {.text = text};
  }
  const auto input = data.batch(row, row + 1).inputs[0].to(at::kCPU);
  const auto channels = input.dim() == 3 ? input.size(0) : 1;
  if ((input.dim() == 2 || input.dim() == 3) && (channels == 1 || channels == 3)) {
    return {.image = image_data_uri(input.to(at::kFloat))};
  }
  constexpr std::int64_t kMost = 12;
  const auto flat = input.flatten().to(at::kDouble);
  Content out;
  for (std::int64_t i = 0; i < std::min(kMost, flat.numel()); ++i) {
    out.values.emplace_back(fmt::format("{}", i), fmt::format("{:.4g}", flat[i].item<double>()));
  }
  return out;
}

/// "class 9", or "value 0.31".
std::string card_label(const Dataset& data, std::int64_t row) {
  const auto label = example_label(data, row);
  return label.empty() ? label : (data.target_kind() == TargetKind::kClasses ? "class " : "value ") + label;
}

Fact fact(const std::string& name, const std::string& value, bool good, const std::string& note = {}) {
  return {name, value, good ? Fact::State::kGood : Fact::State::kWarning, note};
}

std::vector<Fact> evidence(const Json& run) {
  const auto& options = run["options"];
  std::vector<Fact> out;
  for (const char* key :
       {"method", "curvature", "solver", "inversion", "damping", "relative-damping", "measurement", "dtype"}) {
    if (options.contains(key)) {
      out.push_back({key, options[key].is_string() ? options[key].get<std::string>() : options[key].dump()});
    }
  }
  for (const auto& [name, stage] : run["stages"].items()) {
    if (stage.contains("gradient-norm")) {  // methods without curvature assume no minimum
      const double relative = stage["relative-gradient-norm"];
      out.push_back(fact("gradient at " + name,
                         fmt::format("{:.1e}, {:.1e} of an example's", stage["gradient-norm"].get<double>(), relative),
                         relative <= kFarFromMinimum, "Scores assume that training stopped at a minimum."));
    }
    if (stage.contains("solves")) {
      const auto unconverged = stage["unconverged-solves"].get<std::int64_t>();
      out.push_back(fact("solves at " + name,
                         fmt::format("{} of {} converged, largest relative residual {:.1e}",
                                     stage["solves"].size() - static_cast<std::size_t>(unconverged),
                                     stage["solves"].size(), stage["largest-relative-residual"].get<double>()),
                         unconverged == 0));
    }
  }
  return out;
}

EvaluationSection leave_one_out_section(const Json& result) {
  const double pearson = result["pearson"], slope = result["slope"];
  return {"Agreement with leave-one-out retraining",
          leave_one_out_plot(result),
          {fact("Pearson",
                fmt::format("{:.4f} ({:.4f} to {:.4f})", pearson, result["pearson-interval-95"][0].get<double>(),
                            result["pearson-interval-95"][1].get<double>()),
                pearson >= 0.8),
           {"Spearman", fmt::format("{:.4f}", result["spearman"].get<double>())},
           fact("slope of actual on predicted", fmt::format("{:.3f}", slope), slope >= 0.8 && slope <= 1.25,
                "1: the size of the change is right too."),
           {"pairs",
            fmt::format("{} examples x {} queries", result["examples"].get<int>(), result["queries"].get<int>())}}};
}

EvaluationSection lds_section(const Json& result) {
  return {"Linear datamodelling score",
          {},
          {{"LDS", fmt::format("{:.4f}", result["lds"].get<double>())},
           {"LDS of random scores", fmt::format("{:.4f}", result["lds-of-random-scores"].get<double>())},
           {"subsets", fmt::format("{} of {:g} of the examples", result["subsets"].get<int>(),
                                   result["fraction"].get<double>())}}};
}

/// One card a query, with the lists of all scored stages.
std::vector<QueryCard> query_cards(const Pipeline& pipeline, const Json& run, const std::vector<Ranking>& rankings) {
  const auto queries = pipeline.queries(run["options"]["queries"], run["options"]["limit-queries"]);
  const bool several = run["options"]["stage"] == "all";
  std::vector<QueryCard> cards;
  for (const auto& ranking : rankings) {
    if (cards.empty() || cards.back().id != ranking.query) {
      const auto row = row_of(queries, ranking.query);
      cards.push_back({ranking.query,
                       card_label(queries, row),
                       fmt::format("{} {:.4g}", run["options"]["measurement"].get<std::string>(), ranking.measurement),
                       content_of(queries, row),
                       {},
                       {}});
    }
    const auto& data = pipeline.training_data(pipeline.stage_index(ranking.stage));
    const auto card = [&](const RankedExample& example) {
      const auto row = row_of(data, example.example);
      auto content = content_of(data, row);
      if (!example.tokens.empty()) {
        content.text.clear();
        content.tokens = example.tokens;
      }
      return ExampleCard{example.example,       several ? ranking.stage : "",
                         card_label(data, row), example.score,
                         example.removal,       content};
    };
    for (const auto& example : ranking.proponents) {
      cards.back().proponents.push_back(card(example));
    }
    for (const auto& example : ranking.opponents) {
      cards.back().opponents.push_back(card(example));
    }
  }
  return cards;
}

}  // namespace

int report(const std::vector<std::string>& arguments) {
  CommandLine line("report", "DIR [--out FILE.html]",
                   "Makes one self-contained HTML page of what whence rank and evaluate, or whence icl, left in DIR.");
  line.positional("DIR", "the result directory");
  line.add()("out", po::value<std::string>(), "the page; default: DIR/report.html");
  if (!line.parse(arguments)) {
    return kDone;
  }
  const fs::path folder = line.text("DIR");
  const fs::path out = line.has("out") ? fs::path(line.text("out")) : folder / "report.html";
  const auto finish = [&](const Page& page) {
    write_text(out, render_page(page));
    fmt::print("{}\n", line.flag("json") ? Json{{"report", out.string()}}.dump() : out.string());
    return kDone;
  };
  if (fs::exists(folder / "icl.json")) {
    return finish(icl_page(read_json<Json>(folder / "icl.json")));
  }
  const auto run = read_run(folder);
  if (!fs::exists(folder / "ranking.jsonl")) {
    throw DataError(
        fmt::format("{} holds no ranking.jsonl: make it with whence rank --out {}", folder.string(), folder.string()));
  }
  const auto rankings = read_rankings(folder / "ranking.jsonl");
  check_inputs_unchanged(run);
  auto options = line.run_options();
  options.seed = run["seed"].get<std::uint64_t>();
  const Pipeline pipeline(run["pipeline"].get<std::string>(), options);
  Page page;
  page.title = fmt::format("Where the predictions on “{}” come from", run["options"]["queries"].get<std::string>());
  page.subtitle = fmt::format(
      "{}: examples of {} behind {} queries", pipeline.path().filename().string(),
      run["options"]["stage"] == "all" ? "every stage" : "stage " + run["options"]["stage"].get<std::string>(),
      pipeline.queries(run["options"]["queries"], run["options"]["limit-queries"]).size());
  page.evidence = evidence(run);
  page.warnings = run["warnings"].get<std::vector<std::string>>();
  if (fs::exists(folder / "evaluation.json")) {
    page.evaluations.push_back(leave_one_out_section(read_json<Json>(folder / "evaluation.json")));
  }
  if (fs::exists(folder / "evaluation-lds.json")) {
    page.evaluations.push_back(lds_section(read_json<Json>(folder / "evaluation-lds.json")));
  }
  page.queries = query_cards(pipeline, run, rankings);
  return finish(page);
}

}  // namespace whence::cli
