#include "attribution_options.h"

#include <fmt/format.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/core/files.h"

namespace whence::cli {
namespace po = boost::program_options;

void add_attribution_options(CommandLine& line) {
  line.positional("PIPELINE", "the pipeline file", false);
  line.add()                                                                                               //
      ("stage", po::value<std::string>(), "whose examples to score; all: every stage's, in one sweep")     //
      ("queries", po::value<std::string>(), "the split [queries.SPLIT] of the pipeline to explain")        //
      ("limit-queries", po::value<std::int64_t>()->default_value(0), "the first so many queries; 0: all")  //
      ("out", po::value<std::string>(), "the result directory")                                            //
      ("measurement", po::value<std::string>()->default_value("loss"),
       "loss, log-probability, logit or margin of the query")                                           //
      ("method", po::value<std::string>()->default_value("influence"), "`whence methods attribution`")  //
      ("curvature", po::value<std::string>()->default_value("auto"),
       "`whence methods curvature`; auto: the hessian where every stage is at a minimum without negative curvature, "
       "else "
       "gauss-newton, or ekfac where solving would take more than two minutes")  //
      ("solver", po::value<std::string>()->default_value("auto"),
       "`whence methods solvers`; auto: exact where that is cheap, else conjugate gradients to 1e-2, which is enough "
       "for "
       "a ranking")  //
      ("response", po::value<std::string>()->default_value("stationary"),
       "stationary: every stage is at its minimum; proximal-bregman: it need not be, with a Gauss-Newton curvature; "
       "segment[:time=X,steps=N]: training stopped early, by its snapshots or by the sum of its learning rates")  //
      ("inversion", po::value<std::string>()->default_value("damped"),
       "damped 1/(h+damping), filtered h/(h^2+damping^2) or pseudo")  //
      ("damping", po::value<std::string>()->default_value("auto"),
       "absolute; auto: 0 at a minimum, else 0.1 times the mean eigenvalue of each stage's curvature, or what "
       "outweighs "
       "a hessian's negative curvature")                                                                //
      ("relative-damping", po::value<double>(), "times the mean eigenvalue of each stage's curvature")  //
      ("normalize", po::value<std::string>()->default_value("none"),
       "divide scores by lengths: none, cosine (the query's and the example's) or relatif (the example's)")  //
      ("plan", po::bool_switch(), "say what it will take and which parameters count, then stop")             //
      ("query-block", po::value<std::int64_t>()->default_value(32),
       "queries solved for together; changes memory, not results")  //
      ("from", po::value<std::string>(), "take every argument that is not given here from this run.json");
}

namespace {

double non_negative(const char* name, double value) {
  if (!(value >= 0) || !(value < 1e300)) {
    throw InvalidArgument(fmt::format("--{} = {}, expected >= 0", name, value));
  }
  return value;
}

bool has_flag(const std::vector<std::string>& arguments, const std::string& name) {
  return std::any_of(arguments.begin(), arguments.end(),
                     [&](const auto& a) { return a == "--" + name || a.starts_with("--" + name + "="); });
}

/// What an earlier run chose repeats it, unless something is given now that the choice turned on.
void repeat_choice(const nlohmann::json& run, const std::vector<std::string>& given,
                   std::vector<std::string>& arguments) {
  for (const char* name :
       {"curvature", "solver", "damping", "relative-damping", "response", "inversion", "method", "stage"}) {
    if (has_flag(given, name)) {
      return;
    }
  }
  const auto options = run.value("options", nlohmann::json::object());
  for (const auto& [name, asked] : options.value("asked", nlohmann::json::object()).items()) {
    if (asked == "auto" && !has_flag(arguments, name)) {
      const auto flag = name == "damping" && options["relative-damping"] > 0 ? std::string("relative-damping") : name;
      arguments.push_back("--" + flag);
      arguments.push_back(options[flag].is_string() ? options[flag].get<std::string>() : options[flag].dump());
    }
  }
}

}  // namespace

InverseRequest inverse_request(const CommandLine& line) {
  InverseRequest out;
  out.curvature = line.text("curvature");
  out.solver = line.text("solver");
  if (out.curvature != "auto") {
    create<Curvature>(out.curvature);
  }
  create<Solver>(out.solver);
  set_response(line.text("response"), out.options);
  out.options.inversion = parse_inversion(line.text("inversion"));
  if (const auto text = line.text("damping"); text != "auto") {
    double value = 0;
    if (!detail::read_option(text, value)) {
      throw UsageError(fmt::format("--damping = {}, expected auto or a number >= 0", text));
    }
    out.damping = non_negative("damping", value);
  }
  if (line.has("relative-damping")) {
    if (out.damping.value_or(0) != 0) {
      throw UsageError("--damping and --relative-damping exclude each other");
    }
    out.damping.reset();
    out.relative_damping = non_negative("relative-damping", line.get<double>("relative-damping"));
  }
  return out;
}

std::vector<std::string> with_earlier(const std::vector<std::string>& arguments) {
  const auto found = std::find_if(arguments.begin(), arguments.end(),
                                  [](const auto& a) { return a == "--from" || a.starts_with("--from="); });
  if (found == arguments.end()) {
    return arguments;
  }
  const bool joined = *found != "--from";
  if (!joined && found + 1 == arguments.end()) {
    throw UsageError("--from: the file is missing");
  }
  const std::string file = joined ? found->substr(7) : *(found + 1);
  nlohmann::json run;
  try {
    run = nlohmann::json::parse(read_text(file));
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("{}: not a run.json ({})", file, error.what()));
  }
  if (!run.contains("arguments") || !run.contains("pipeline")) {
    throw DataError(fmt::format("{}: not a run.json of whence rank or score: no arguments", file));
  }
  std::vector<std::string> given(arguments.begin(), found);
  given.insert(given.end(), found + (joined ? 1 : 2), arguments.end());
  const auto flag_of = [](const std::string& a) {
    return a.starts_with("--") ? a.substr(0, a.find('=')) : std::string();
  };
  std::vector<std::string> out = given;
  const bool has_pipeline = !given.empty() && !given[0].starts_with("-");
  const auto earlier = run["arguments"].get<std::vector<std::string>>();
  for (std::size_t i = 0; i < earlier.size(); ++i) {
    const auto flag = flag_of(earlier[i]);
    const bool takes_value = !flag.empty() && earlier[i].find('=') == std::string::npos && i + 1 < earlier.size() &&
                             !earlier[i + 1].starts_with("--");
    if (flag.empty()) {
      continue;  // the pipeline, whose absolute path run.json holds
    }
    if (std::none_of(given.begin(), given.end(), [&](const auto& a) { return flag_of(a) == flag; })) {
      out.push_back(earlier[i]);
      if (takes_value) {
        out.push_back(earlier[i + 1]);
      }
    }
    i += takes_value ? 1 : 0;
  }
  repeat_choice(run, given, out);
  if (!has_pipeline) {
    out.insert(out.begin(), run["pipeline"].get<std::string>());
  }
  return out;
}

}  // namespace whence::cli
