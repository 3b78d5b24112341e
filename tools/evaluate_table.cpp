#include "evaluate_table.h"

#include <fmt/format.h>

#include <optional>

#include "comparison.h"
#include "comparison_verdict.h"
#include "json.h"
#include "result.h"
#include "say.h"
#include "truth.h"
#include "whence/core/files.h"
#include "whence/core/output.h"
#include "whence/core/quoted.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace po = boost::program_options;

void add_table_options(CommandLine& line) {
  line.add()  //
      ("methods", po::value<std::string>(),
       "compare these, in one table: attribution methods, or what influence is taken by, a curvature, a solver, a "
       "response, joined by +: influence,ekfac,gauss-newton+cg,trak; default: influence")                      //
      ("queries", po::value<std::string>(), "of --methods: the split [queries.SPLIT]; default: the only one")  //
      ("limit-queries", po::value<std::int64_t>()->default_value(0),
       "of --methods: the first so many queries; 0: all")  //
      ("measurement", po::value<std::string>()->default_value("loss"),
       "of --methods: loss, log-probability, logit or margin of the query")  //
      ("train-from", po::value<std::string>()->default_value("start"),
       "of --methods: trainings begin where the stage's did (start), or go on from its end (checkpoint)")  //
      ("no-ceiling", po::bool_switch(),
       "leave out the trainings with another seed, which show what retraining itself reaches")  //
      ("remove", po::value<std::string>()->default_value("5,10,20"),
       "percents of the examples that speak most for the queries to leave out (removal)")  //
      ("source-column", po::value<std::string>(),
       "the column that has the same for a query and the examples that it comes from (recall)");
}

namespace {

/// What to type for a method's ranking of what it was compared on; with --self where it looked at examples by
/// themselves.
std::string rank_command(const CommandLine& line, const Comparison& at, const ListedMethod& method, bool self) {
  auto out = fmt::format("whence rank {} --stage {}", shell_word(line.text("PIPELINE")), shell_word(at.stage().name));
  out += self ? " --self" : " --queries " + shell_word(at.split());
  if (const auto limit = line.get<std::int64_t>("limit-queries"); !self && limit > 0) {
    out += fmt::format(" --limit-queries {}", limit);
  }
  out += !self && line.given("measurement") ? " --measurement " + line.text("measurement") : "";
  out += line.given("dtype") ? " --dtype " + line.text("dtype") : "";
  return out + (method.flags.empty() ? "" : " " + method.flags);
}

}  // namespace

int evaluate_table(const CommandLine& line) {
  const auto truth = create<Truth>(line.text("against"));
  Comparison at(line, *truth);
  const std::vector<std::string> names{"evaluation.json"};
  const bool plan = line.flag("plan");
  std::optional<TemporaryFolder> temporary;
  if (!line.has("out") && !plan && !line.flag("quiet")) {
    note("the trainings and the table are not kept: --out DIR keeps them for later runs");
  }
  const fs::path folder = line.has("out") ? fs::path(line.text("out")) : temporary.emplace().path();
  std::optional<ResultWriter> writer;
  if (!plan) {
    writer.emplace(folder, names);
    check_kind(*writer, {line.command()});
    check_spares_inputs(at.record().view(), folder, names);
  }
  const auto* earlier = writer ? writer->finished(at.record().key(), names) : nullptr;
  Json result;
  if (earlier != nullptr) {
    result = read_json<Json>(earlier->file(names.front()));
  } else {
    at.train_in(folder / "bank");
    const auto made = truth->compare(at);
    if (!made) {
      return kDone;
    }
    result = Json{{"against", line.text("against")},
                  {"stage", at.stage().name},
                  {"split", at.split()},
                  {"queries", at.queries().size()},
                  {"measurement", to_string(at.measurement())},
                  {"seed", at.pipeline().seed()}};
    result.update(*made);
    for (auto& row : result["table"]) {
      for (const auto& method : at.methods()) {
        if (method.name == row["method"].get<std::string>() && method.attributor && method.claim() != Claim::kNothing) {
          row["rank"] = rank_command(line, at, method, row.value("by", "") == "self");
        }
      }
    }
    result["verdict"] = verdict_of_comparison(result, *truth).text;
    result["key"] = at.record().key();
    write_text(writer->place(names.front()), json_text(result, 2) + "\n");
    writer->publish(at.record().key(), at.record().json());
  }
  line.flag("json") ? say("{}\n", Ready{json_text(result, 2)}) : print_comparison(result, *truth);
  return at.record().exit_status(line.flag("strict"));
}

}  // namespace whence::cli
