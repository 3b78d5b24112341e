#include <fmt/format.h>

#include "cli.h"
#include "json.h"
#include "run_record.h"
#include "say.h"

namespace whence::cli {
namespace po = boost::program_options;

int merge(const std::vector<std::string>& arguments) {
  CommandLine line("merge", "PIPELINE [--stage NAME] --out DIR",
                   "Writes the model after a stage as plain weights: what its tunings added is folded into the weights "
                   "that it changes. A prefix or a prompt cannot be: it is written beside them, in PEFT's format.");
  line.positional("PIPELINE", "the pipeline file");
  line.add()("stage", po::value<std::string>(), "the stage after which the model is written; default: the only one")(
      "out", po::value<std::string>(), "a folder, in Hugging Face layout; of a built-in model a .safetensors file");
  if (!line.parse(arguments)) {
    return kDone;
  }
  const auto out = line.required("out");
  const Pipeline pipeline(line.text("PIPELINE"), line.run_options());
  const auto& stages = pipeline.stages();
  const auto stage = !line.has("stage") && stages.size() == 1 ? stages.front().name : line.required("stage");
  const auto written = pipeline.merge(pipeline.stage_index(stage), out);
  const bool changed = tell_changes(pipeline);
  auto told = Json::array();
  for (const auto& path : written) {
    told.push_back(path.string());
    if (!line.flag("json")) {
      say("{}\n", path.string());
    }
  }
  if (line.flag("json")) {
    say("{}\n", Ready{json_text(told, 2)});
  }
  return changed && line.flag("strict") ? kStrict : kDone;
}

}  // namespace whence::cli
