#include "attribution_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "whence/attribution/attributor.h"
#include "whence/core/error.h"
#include "whence/core/json.h"

namespace whence::cli {
namespace po = boost::program_options;

void add_attribution_options(CommandLine& line) {
  line.positional("PIPELINE", "the pipeline file", false);
  line.add()  //
      ("stage", po::value<std::string>(),
       "whose examples to score; all: every stage's, in one sweep; default: the only one")  //
      ("queries", po::value<std::string>(),
       "the split [queries.SPLIT] of the pipeline to explain; default: the only one")  //
      ("self", po::bool_switch(),
       "score each example for its own loss, in place of queries: which rows are mislabelled or rare?")    //
      ("limit-queries", po::value<std::int64_t>()->default_value(0), "the first so many queries; 0: all")  //
      ("queries-wrong", po::bool_switch(),
       "only the queries whose class the model gets wrong; --limit-queries of those")  //
      ("out", po::value<std::string>(), "the result directory")                        //
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
       "segment[:time=X,steps=N]: training stopped early, by its snapshots or by the sum of its learning rates; "
       "unrolled: "
       "training itself (sgd, adam, adamw), gone again step by step and back: exact wherever it ended, for three or "
       "four "
       "trainings a query")  //
      ("inversion", po::value<std::string>()->default_value("damped"),
       "damped 1/(h+damping), filtered h/(h^2+damping^2) or pseudo")  //
      ("damping", po::value<std::string>()->default_value("auto"),
       "absolute; training: the mean eigenvalue of each stage's curvature, or 1 / its training time where that is "
       "more (of factors 0.3 of that); auto: 0 at a minimum, else training, or what outweighs a hessian's negative "
       "curvature")                                                                                     //
      ("relative-damping", po::value<double>(), "times the mean eigenvalue of each stage's curvature")  //
      ("normalize", po::value<std::string>()->default_value("none"),
       "divide scores by lengths: none, cosine (the query's and the example's) or relatif (the example's)")  //
      ("format", po::value<std::string>()->default_value("safetensors"),
       "of the scores in --out, beside safetensors: csv, jsonl, npy or several, csv,npy")         //
      ("plan", po::bool_switch(), "say what it will take and which parameters count, then stop")  //
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

/// Options of which one given now takes the place of all of an earlier run.
constexpr std::array kDampings{"damping", "relative-damping"};
/// Options that --self has no place for.
constexpr std::array kOfQueries{"queries", "limit-queries", "queries-wrong", "measurement", "normalize"};
/// Options on which turns what is chosen where nothing was asked.
constexpr std::array kChoices{"curvature", "solver",    "damping", "relative-damping",
                              "response",  "inversion", "method",  "stage"};

bool holds(const auto& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// What an earlier run chose, of which `options` tells, as if it were asked for.
void repeat_choice(CommandLine& line, const JsonView& options) {
  for (const auto& [name, asked] : options["asked"].items()) {
    if (asked == "auto" && !line.given(name)) {
      const bool relative = name == "damping" && options["relative-damping"].get<double>() > 0;
      const bool trained = relative && options.contains("training-damping");
      const auto flag = relative && !trained ? std::string("relative-damping") : name;
      const auto chosen = options[flag];
      line.read({"--" + flag, trained              ? std::string(kTrainingDamping)
                              : chosen.is_string() ? chosen.get<std::string>()
                                                   : chosen.dump()},
                [](const std::string&) { return true; });
    }
  }
}

}  // namespace

const std::vector<std::string>& inverse_flags() {
  static const std::vector<std::string> flags{"curvature", "solver", "damping", "relative-damping", "inversion"};
  return flags;
}

void read_response(const std::string& spec, InverseOptions& options) {
  const auto word = spec.substr(0, spec.find(':'));
  std::vector<std::string> words;
  for (const auto response : {Response::kStationary, Response::kProximalBregman, Response::kSegment}) {
    words.emplace_back(to_string(response));
  }
  words.emplace_back(kUnrolled);
  if (!holds(words, word)) {
    throw InvalidArgument(unknown_name("response", word, words));
  }
  if (word != kUnrolled) {
    set_response(spec, options);
  } else if (spec != word) {
    throw InvalidArgument(fmt::format("response {}: expected {} alone, which has no options", spec, word));
  }
}

ResponseTraits response_traits(const std::string& spec) {
  return {.inverts = spec != kUnrolled, .assumes_minimum = spec == to_string(Response::kStationary)};
}

InverseRequest inverse_request(const CommandLine& line) {
  InverseRequest out;
  out.curvature = line.text("curvature");
  out.solver = line.text("solver");
  if (!out.curvature_is_open()) {
    create<Curvature>(out.curvature);
  }
  create<Solver>(out.solver);
  read_response(line.text("response"), out.options);
  out.options.inversion = parse_inversion(line.text("inversion"));
  if (const auto text = line.text("damping"); text == kTrainingDamping) {
    out.training_damping = true;
    out.relative_damping = kRelativeDamping;
  } else if (text != "auto") {
    double value = 0;
    if (!detail::read_option(text, value)) {
      throw UsageError(fmt::format("--damping = {}, expected auto, training or a number >= 0", text));
    }
    out.damping = non_negative("damping", value);
  }
  if (line.has("relative-damping")) {
    if (out.damping.value_or(0) != 0 || out.training_damping) {
      throw UsageError("--damping and --relative-damping exclude each other");
    }
    out.damping.reset();
    out.relative_damping = non_negative("relative-damping", line.get<double>("relative-damping"));
  }
  const bool damped = out.training_damping || out.damping.value_or(0) > 0 || out.relative_damping.value_or(0) > 0;
  if (damped && out.options.inversion == Inversion::kPseudo) {
    throw UsageError(
        "--inversion pseudo takes no damping, it leaves out what is 0: leave out --damping and --relative-damping, or "
        "--inversion");
  }
  return out;
}

bool parse_with_earlier(CommandLine& line, const std::vector<std::string>& arguments) {
  line.read(arguments);
  if (!line.has("from")) {
    return line.ready();
  }
  const auto from = line.text("from");
  const auto run = JsonView::read(from);
  if (!run.contains("arguments") || !run.contains("pipeline")) {
    throw DataError(fmt::format("{}: not a run.json of whence rank or score: no arguments", from));
  }
  const auto given_any = [&](const auto& names) {
    return std::any_of(names.begin(), names.end(), [&](const char* name) { return line.given(name); });
  };
  const bool chosen_anew = given_any(kChoices);
  const bool of_queries = given_any(kOfQueries), of_damping = given_any(kDampings), self = line.given("self");
  const bool inverts = !line.given("method") || create<Attributor>(line.text("method"))->uses_curvature();
  if (!line.has("PIPELINE")) {
    line.read({run["pipeline"].get<std::string>()});
  }
  line.read(run["arguments"].get<std::vector<std::string>>(), [&](const std::string& earlier) {
    return !(of_damping && holds(kDampings, earlier)) && !(self && holds(kOfQueries, earlier)) &&
           !(of_queries && earlier == "self") &&
           (inverts || (earlier != "response" && !holds(inverse_flags(), earlier)));
  });
  if (!chosen_anew && run.contains("options") && run["options"].contains("asked")) {
    repeat_choice(line, run["options"]);
  }
  return line.ready();
}

}  // namespace whence::cli
