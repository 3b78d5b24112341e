#include "result.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/json.h"

namespace whence::cli {
namespace fs = std::filesystem;

nlohmann::ordered_json read_run(const fs::path& folder) {
  const auto path = folder / "run.json";
  auto run = read_json<nlohmann::ordered_json>(path);
  for (const char* key : {"options", "pipeline", "arguments", "inputs"}) {
    if (!run.contains(key)) {
      throw DataError(fmt::format("{}: the key \"{}\" is missing, expected a run.json of whence rank or score",
                                  path.string(), key));
    }
  }
  return run;
}

const StageScores& scores_of(const Scores& scores, const nlohmann::ordered_json& run, const std::string& stage) {
  const auto scored = run["options"]["stage"].get<std::string>();
  std::vector<std::string> known;
  for (const auto& entry : scores.stages) {
    const auto name = entry.name == "scores" ? scored : entry.name.substr(std::string("scores.").size());
    if (name == stage) {
      return entry;
    }
    known.push_back(name);
  }
  throw InvalidArgument("the scores are not of that stage: " + unknown_name("stage", stage, known));
}

void check_inputs_unchanged(const nlohmann::ordered_json& run) {
  for (const auto& [file, expected] : run["inputs"].items()) {
    const auto found = digest(file);
    if (found != expected.get<std::string>()) {
      throw DataError(fmt::format("{} has changed since the scores were made (SHA-256 {}…, expected {}…): score again",
                                  file, found.substr(0, 12), expected.get<std::string>().substr(0, 12)));
    }
  }
}

ScatterPlot leave_one_out_plot(const nlohmann::ordered_json& evaluation) {
  ScatterPlot plot;
  plot.title = fmt::format("Leaving one example of {} out", evaluation["stage"].get<std::string>());
  plot.x_title = "predicted change (-score / N)";
  plot.y_title = "change after retraining";
  plot.identity = true;
  plot.regression = PlotLine{evaluation["slope"].get<double>(), evaluation["intercept"].get<double>()};
  for (const auto& point : evaluation["points"]) {
    plot.points.push_back({point["predicted"], point["actual"],
                           fmt::format("query {}, example {}", point["query"].get<std::int64_t>(),
                                       point["example"].get<std::int64_t>())});
  }
  return plot;
}

namespace {

bool shows_colours() {
  const char* plain = std::getenv("NO_COLOR");
  const char* forced = std::getenv("CLICOLOR_FORCE");
  return plain == nullptr && (isatty(STDOUT_FILENO) == 1 || (forced != nullptr && std::string_view(forced) != "0"));
}

}  // namespace

std::string shaded(const std::string& text, double share) {
  // four steps of the 256-colour cube: blue raises the measurement, orange lowers it
  static constexpr std::array<std::array<int, 4>, 2> kShades{{{0, 153, 111, 69}, {0, 223, 215, 208}}};
  const auto step = static_cast<std::size_t>(std::min(3.0, 4 * std::abs(share)));
  const auto shade = kShades.at(share < 0 ? 1 : 0).at(step);
  return shade == 0 || !shows_colours() ? text : fmt::format("\033[48;5;{}m\033[38;5;16m{}\033[0m", shade, text);
}

std::string one_line(const std::string& text, std::size_t most) {
  std::string out;
  for (const char c : text) {
    const bool starts = (static_cast<unsigned char>(c) & 0xC0) != 0x80;  // of a character
    if (starts && out.size() >= most) {
      return out + "…";
    }
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out;
}

std::string shaded_text(const std::vector<std::pair<std::string, double>>& scores,
                        const std::vector<std::string>& tokens) {
  constexpr std::size_t kMost = 400;  // bytes that a reader takes in
  double largest = 0;
  for (const auto& [text, value] : scores) {
    largest = std::max(largest, std::abs(value));
  }
  const bool scored = scores.size() == tokens.size() && largest > 0;
  std::string out;
  std::size_t shown = 0;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    if (shown > kMost) {
      out += " …";
      break;
    }
    shown += tokens[t].size();
    out += shaded(one_line(tokens[t], std::string::npos), scored ? scores[t].second / largest : 0);
  }
  return out;
}

std::string example_label(const Dataset& data, std::int64_t row) {
  if (!data.targets().defined()) {
    return "";
  }
  if (data.target_kind() == TargetKind::kValues) {
    return fmt::format("{:.4g}", data.targets()[row].flatten()[0].item<double>());
  }
  return data.classes()[static_cast<std::size_t>(data.targets()[row].item<std::int64_t>())];
}

std::int64_t row_of(const Dataset& data, std::int64_t id) {
  const auto ids = data.ids().contiguous();
  const auto* begin = ids.const_data_ptr<std::int64_t>();
  const auto* found = std::find(begin, begin + ids.numel(), id);
  if (found == begin + ids.numel()) {
    throw DataError(fmt::format("the data has no example {}", id));
  }
  return found - begin;
}

}  // namespace whence::cli
