#include "result.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string_view>

#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/printable.h"
#include "whence/text/tokenizer.h"

namespace whence::cli {
namespace fs = std::filesystem;

void check_scored(const Result& result) {
  for (const char* key : {"options", "pipeline", "arguments", "inputs"}) {
    if (!result.run().contains(key)) {
      throw DataError(fmt::format("{}: the key \"{}\" is missing, expected a run.json of whence rank or score",
                                  (result.folder() / "run.json").string(), key));
    }
  }
}

double number_of(const JsonView& json, const char* key, double otherwise) {
  return json.contains(key) && json[key].is_number() ? json[key].get<double>() : otherwise;
}

double adjoint_growth(const JsonView& stage) {
  return stage.contains("unrolled") ? number_of(stage["unrolled"], "adjoint-growth") : 0;
}

bool is_self(const JsonView& run) { return run["options"].value("self", false); }

Dataset queries_of(const Pipeline& pipeline, const JsonView& run) {
  const auto options = run["options"];
  const bool wrong = options.value("queries-wrong", false);  // limited after they were found
  return pipeline.queries(options["queries"].get<std::string>(),
                          wrong ? std::int64_t{0} : options["limit-queries"].get<std::int64_t>());
}

const StageScores& scores_of(const Scores& scores, const JsonView& run, const std::string& stage) {
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

std::int64_t query_row(const Scores& scores, std::int64_t query) {
  const auto found = scores.query_ids.eq(query).nonzero();
  return found.size(0) == 0 ? -1 : found[0][0].item<std::int64_t>();
}

std::vector<std::string> changed_inputs(const JsonView& run) {
  std::vector<std::string> out;
  for (const auto& [file, expected] : run.contains("inputs") ? run["inputs"].items() : decltype(run.items())()) {
    const auto then = expected.get<std::string>();
    const auto now = then == kAbsent ? digest_if_there(file) : digest(file);
    if (now != then) {
      out.push_back(then == kAbsent ? fmt::format("{} was not there when this was made", file)
                                    : fmt::format("{} has changed since this was made (SHA-256 {}…, expected {}…)",
                                                  file, now.substr(0, 12), then.substr(0, 12)));
    }
  }
  return out;
}

void check_inputs_unchanged(const JsonView& run) {
  if (const auto changes = changed_inputs(run); !changes.empty()) {
    throw DataError(changes.front() + ": score again");
  }
}

void check_kind(const ResultWriter& out, const std::vector<std::string>& makers) {
  for (const auto& earlier : out.earlier()) {
    if (const auto other = earlier["command"].get<std::string>();
        std::find(makers.begin(), makers.end(), other) == makers.end()) {
      throw InvalidArgument(
          fmt::format("{} holds a result of whence {}: choose another --out", out.folder().string(), other));
    }
  }
}

void check_spares_inputs(const JsonView& run, const std::vector<fs::path>& outputs) {
  for (const auto& output : outputs) {
    for (const auto& [input, digest] : run["inputs"].items()) {
      std::error_code absent;
      if (fs::equivalent(input, output, absent)) {  // by whatever name
        throw InvalidArgument(
            fmt::format("{} is an input of this run and would be written over: name another place", output.string()));
      }
    }
  }
}

void check_spares_inputs(const JsonView& run, const fs::path& folder, const std::vector<std::string>& names) {
  std::vector<fs::path> places{folder / "run.json"};
  for (const auto& name : names) {
    places.push_back(folder / name);
  }
  check_spares_inputs(run, places);
}

void check_replaceable(const fs::path& output, std::string_view beginning) {
  std::error_code absent;
  if (!fs::is_regular_file(output, absent) || fs::file_size(output, absent) == 0) {
    return;
  }
  std::string found(beginning.size(), '\0');
  std::ifstream(output, std::ios::binary).read(found.data(), static_cast<std::streamsize>(found.size()));
  if (found != beginning) {
    throw InvalidArgument(fmt::format("{} is there and is no {}: it would be written over, so name another place",
                                      output.string(), beginning == kSvgBeginning ? "plot" : "page"));
  }
}

ScatterPlot leave_one_out_plot(const JsonView& evaluation) {
  ScatterPlot plot;
  plot.title = fmt::format("Leaving one example of {} out", evaluation["stage"].get<std::string>());
  plot.x_title = "predicted change (removal)";
  plot.y_title = "change after retraining";
  plot.identity = true;
  const double slope = number_of(evaluation, "slope"), intercept = number_of(evaluation, "intercept");
  if (std::isfinite(slope) && std::isfinite(intercept)) {
    plot.regression = PlotLine{slope, intercept};
  }
  for (const auto& point : evaluation["points"].list()) {
    plot.points.push_back({point["predicted"].get<double>(), point["actual"].get<double>(),
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
  // four steps of the 256-colour cube: blue is helpful, orange harmful
  static constexpr std::array<std::array<int, 4>, 2> kShades{{{0, 153, 111, 69}, {0, 223, 215, 208}}};
  const auto step = static_cast<std::size_t>(std::min(3.0, 4 * std::abs(share)));
  const auto shade = kShades.at(share < 0 ? 1 : 0).at(step);
  const auto plain = printable(text);
  return shade == 0 || !shows_colours() ? plain : fmt::format("\033[48;5;{}m\033[38;5;16m{}\033[0m", shade, plain);
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

namespace {

/// Which tokens of the text in `row` no reader would see, but for masks: [CLS], <|endoftext|>.
std::vector<bool> special_tokens(const Dataset& data, std::int64_t row) {
  const auto& texts = data.texts();
  const auto length = texts.lengths[row].item<std::int64_t>();
  std::vector<bool> out(static_cast<std::size_t>(length));
  if (!texts.tokenizer) {
    return out;
  }
  const auto tokens = texts.tokens.narrow(0, texts.begins[row].item<std::int64_t>(), length);
  const auto mask = texts.tokenizer->special("mask");
  for (std::size_t t = 0; t < out.size(); ++t) {
    const std::array<std::int32_t, 1> id{tokens.const_data_ptr<std::int32_t>()[t]};
    out[t] = id[0] != mask && texts.tokenizer->decode(id, /*skip_special_tokens=*/true).empty() &&
             !texts.tokenizer->decode(id, /*skip_special_tokens=*/false).empty();
  }
  return out;
}

}  // namespace

std::vector<std::pair<std::string, double>> visible_tokens(const Dataset& data, std::int64_t row,
                                                           const std::vector<std::pair<std::string, double>>& scores) {
  const auto texts = data.token_texts(row);
  const auto special = special_tokens(data, row);
  std::vector<std::pair<std::string, double>> out;
  for (std::size_t t = 0; t < texts.size(); ++t) {
    if (!special[t]) {
      const bool first_word = out.empty() && t > 0 && texts[t].starts_with(' ');  // behind a hidden [CLS] or <s>
      out.emplace_back(first_word ? texts[t].substr(1) : texts[t],
                       scores.size() == texts.size() ? scores[t].second : 0);
    }
  }
  return out;
}

std::string shaded_text(const std::vector<std::pair<std::string, double>>& tokens, double outcome) {
  constexpr std::size_t kMost = 400;  // bytes that a reader takes in
  double largest = 1e-300;
  for (const auto& [text, value] : tokens) {
    largest = std::max(largest, std::abs(value));
  }
  std::string out;
  std::size_t shown = 0;
  for (const auto& [text, value] : tokens) {
    if (shown > kMost) {
      return out + " …";
    }
    shown += text.size();
    out += shaded(one_line(text, std::string::npos), outcome * value / largest);
  }
  return out;
}

std::string prediction_text(const Prediction& prediction) {
  if (prediction.tokens > 0) {
    return fmt::format("perplexity {:.4g} over {} tokens, the likeliest one {} times", prediction.perplexity,
                       prediction.tokens, prediction.first_choices);
  }
  if (std::isnan(prediction.probability)) {
    return fmt::format("predicts {}, expected {}", prediction.predicted, prediction.expected);
  }
  const bool right = prediction.predicted == prediction.expected;
  return fmt::format("predicts {} (p {:.3g}), expected {}{}", prediction.predicted, prediction.probability,
                     prediction.expected,
                     right ? std::string() : fmt::format(" (p {:.3g})", prediction.expected_probability));
}

std::string example_label(const Dataset& data, std::int64_t row) {
  if (!data.targets().defined()) {
    return "";
  }
  if (data.target_kind() == TargetKind::kValues) {
    const auto values = data.targets()[row].flatten().to(at::kCPU, at::kDouble).contiguous();
    const auto* first = values.const_data_ptr<double>();
    constexpr std::int64_t kMost = 8;
    const auto shown = fmt::format("{:.4g}", fmt::join(first, first + std::min(kMost, values.numel()), ", "));
    return values.numel() > kMost ? shown + ", …" : shown;
  }
  return data.classes()[static_cast<std::size_t>(data.targets()[row].item<std::int64_t>())];
}

std::string source_text(const Dataset& data) {
  const auto& origins = data.origins();
  return origins.size() == 1
             ? fmt::format("{} of {}", origins[0].blocks ? "blocks" : "rows", origins[0].file.filename().string())
             : "";
}

std::string short_origin_text(const Dataset& data, std::int64_t row) {
  const auto whole = data.origin(row);
  return source_text(data).empty() ? whole : whole.substr(0, whole.find(" of "));
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
