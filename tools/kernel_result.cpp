#include "kernel_result.h"

#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "result.h"

namespace whence::cli {
namespace {

/// "84.0 %" of right classes or events, or "R^2 0.912".
std::string skill_text(const JsonView& json, double value) {
  return std::isnan(value)             ? "not measured"
         : json["classes"].get<bool>() ? fmt::format("{:.1f} %", 100 * value)
                                       : fmt::format("R^2 {:.3f}", value);
}

std::string skill_text(const JsonView& json, const char* which) {
  return skill_text(json, number_of(json["skill"], which));
}

std::string asked_text(const JsonView& json) {
  const auto asked = json["asked"].get<std::int64_t>();
  return json["held-out"].get<bool>() ? fmt::format("{} queries", asked) : fmt::format("{} of its own examples", asked);
}

/// What the kernel is of: "entk kernel at the start of finetune, 64 of 100 examples, 20 queries, 3 outputs".
std::string subject(const JsonView& json) {
  const auto examples = json["examples"].size();
  const auto all = json["of-examples"].get<std::size_t>();
  auto out =
      fmt::format("{} kernel at the {} of {}, {}", json["kernel"].get<std::string>(), json["at"].get<std::string>(),
                  printable(json["stage"].get<std::string>()),
                  examples < all ? fmt::format("{} of {} examples", examples, all) : fmt::format("{} examples", all));
  if (!json["queries"].is_null()) {
    out += fmt::format(", {} queries", json["queries"].size());
  }
  return out + fmt::format(", {} output{}", json["outputs"].get<int>(), json["outputs"].get<int>() == 1 ? "" : "s");
}

/// How much of what the outputs moved the linearisation makes.
std::string move_text(const JsonView& json) {
  const double share = number_of(json["share-of-move"], "linearised");
  return share < 0 ? "it is farther from the outputs than their start is"
                   : fmt::format("it makes {:.0f} % of the move of the outputs", 100 * share);
}

struct Line {
  const char* name;
  std::string value;
  Fact::State state = Fact::State::kPlain;
};

Fact::State state_of(const JsonView& test) {
  return test["holds"].is_null()     ? Fact::State::kPlain
         : test["holds"].get<bool>() ? Fact::State::kGood
                                     : Fact::State::kBad;
}

std::vector<Line> lines_of(const JsonView& json) {
  const auto tests = json["tests"];
  std::vector<Line> out{{"fine-tune", fmt::format("from {} to {}, on {}", skill_text(json, "before"),
                                                  skill_text(json, "after"), asked_text(json))},
                        {"linearised", fmt::format("{}; {}", skill_text(json, "linearised"), move_text(json)),
                         state_of(tests["linear"])}};
  if (!json["feature-change"].is_null()) {
    const auto change = json["feature-change"];
    out.push_back(
        {"features",
         fmt::format(
             "elements of the eNTK{} move by {:.3g} of their size (each of its own: mean {:.3g}, median "
             "{:.3g}; the matrix {:.3g})",
             change.contains("examples") ? fmt::format(" of {} examples", change["examples"].get<std::int64_t>()) : "",
             number_of(change, "relative"), number_of(change, "mean"), number_of(change, "median"),
             number_of(change, "frobenius")),
         state_of(tests["fixed"])});
  }
  if (!json["skill"]["kernel"].is_null()) {
    out.push_back({"kernel regression",
                   fmt::format("{}; {} {}", skill_text(json, "kernel"),
                               json["from-start"].get<bool>() ? "without the outputs at the start"
                                                              : "with the outputs at the start",
                               skill_text(json, "kernel-otherwise")),
                   state_of(tests["solves"])});
  }
  if (!json["skill"]["leave-one-out"].is_null()) {
    out.push_back(
        {"leave-one-out", skill_text(json, "leave-one-out") + " of the examples, each by the fit without it"});
  }
  for (const auto& note : json["solver-notes"].get<std::vector<std::string>>()) {
    out.push_back({"solver", note});
  }
  for (const auto& rank : json.list("low-rank")) {
    out.push_back(
        {"low rank", fmt::format("rank {}: off by {:.3g} of the matrix; at worst {:.3g} of an element's envelope, the "
                                 "bound is {:.3g}",
                                 rank["rank"].get<std::int64_t>(), number_of(rank, "mean"), number_of(rank, "worst"),
                                 number_of(rank, "epsilon"))});
  }
  return out;
}

}  // namespace

std::string kernel_text(const JsonView& json) {
  auto out = subject(json) + "\n";
  for (const auto& line : lines_of(json)) {
    out += fmt::format("  {:<18}{}\n", line.name, line.value);
  }
  return out + json["verdict"].get<std::string>() + "\n";
}

Page kernel_page(const JsonView& json) {
  Page page;
  page.title = fmt::format("Is {} in the kernel regime?", json["stage"].get<std::string>());
  page.subtitle = subject(json);
  page.footer =
      "Made by whence. The tests are those of Malladi et al., A Kernel-Based View of Language Model Fine-Tuning, 2023.";
  const auto level = json["level"].get<std::string>();
  page.verdict = {"verdict", json["verdict"].get<std::string>(),
                  level == "in"    ? Fact::State::kGood
                  : level == "out" ? Fact::State::kBad
                                   : Fact::State::kWarning};
  page.warnings = json["warnings"].get<std::vector<std::string>>();
  for (auto& line : lines_of(json)) {
    page.evidence.push_back({line.name, std::move(line.value), line.state});
  }
  EvaluationSection moves{.title = "The move of the outputs, linearised and as it was"};
  ScatterPlot plot{
      .title = moves.title, .x_title = "of the linearised model", .y_title = "of the fine-tune", .identity = true};
  for (const auto& point : json.list("moves")) {
    plot.points.push_back({point[std::size_t{0}].get<double>(), point[std::size_t{1}].get<double>(), ""});
  }
  if (!plot.points.empty()) {
    moves.plot = std::move(plot);
    moves.figures = {{"share of the move", fmt::format("{:.3f}", number_of(json["share-of-move"], "linearised"))}};
    page.evaluations.push_back(std::move(moves));
  }
  return page;
}

}  // namespace whence::cli
