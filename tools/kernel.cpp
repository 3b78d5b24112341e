// `whence kernel`: is this fine-tune in the regime where its kernel tells what it does?
#include <fmt/format.h>

#include "kernel_result.h"
#include "kernel_run.h"
#include "memory_limit.h"
#include "say.h"
#include "whence/core/json.h"
#include "whence/evaluate/verdict.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace po = boost::program_options;

int kernel(const std::vector<std::string>& arguments) {
  CommandLine line("kernel", "PIPELINE [--stage NAME] [--queries SPLIT] --out DIR [options]",
                   "Makes the kernel of a fine-tune, tests whether the fine-tune behaves like it, and says so before "
                   "anybody believes a ranking. An interrupted run goes on where it stopped.");
  line.positional("PIPELINE", "the pipeline file");
  line.add()                                                                     //
      ("stage", po::value<std::string>(), "whose fine-tune; default: the last")  //
      ("queries", po::value<std::string>(),
       "the split [queries.SPLIT] to be asked; default: the only one")                                       //
      ("limit-queries", po::value<std::int64_t>()->default_value(100), "the first so many queries; 0: all")  //
      ("examples", po::value<std::int64_t>()->default_value(0),
       "how many of the stage's examples, evenly over its classes; 0: all, or as many as take about two minutes and "
       "1024 rows")  //
      ("kernel", po::value<std::string>()->default_value("entk"),
       "`whence methods kernels`: entk (SGD), signgd or "
       "a-signgd (Adam)")                                                                                           //
      ("at", po::value<std::string>()->default_value("start"), "where it is taken: start or end of the fine-tune")  //
      ("filter", po::value<std::string>()->default_value("all"),
       "in which trained parameters: all, no-embeddings, no-head, biases, tuning, body, or several joined by +")  //
      ("outputs", po::value<std::string>()->default_value("auto"),
       "all, or difference: the one logit of two classes; auto: what the solver takes")  //
      ("solver", po::value<std::string>()->default_value("auto"),
       "`whence methods kernel-solvers`; auto: kernel-ridge, or asymmetric for a-signgd")          //
      ("from-start", po::bool_switch(), "fit what the outputs at the start leave of the targets")  //
      ("ranks", po::value<std::string>(), "beside it the kernels of LoRA at these ranks: 1,4,16")  //
      ("out", po::value<std::string>(), "the result directory")                                    //
      ("plan", po::bool_switch(), "say what it will take, then stop");
  if (!line.parse(arguments)) {
    return kDone;
  }
  if (line.flag("plan")) {
    const auto plan = KernelRun(line).plan();
    end_progress();
    if (line.flag("json")) {
      say("{}\n", Ready{json_text(plan, 2)});
      return kDone;
    }
    for (const auto& made : plan.at("kernels")) {
      say("{:<16}{}\n", made.at("name").get<std::string>(), made.at("text").get<std::string>());
    }
    say("memory          about {}\ndisk            {} while it works\ntime            about {}\n",
        readable_bytes(plan.at("peak-bytes").get<double>()), readable_bytes(plan.at("disk-bytes").get<double>()),
        duration_words(plan.at("seconds").get<double>()));
    return kDone;
  }
  const fs::path folder = line.required("out");
  KernelRun run(line);
  const auto json = run.run(folder);
  end_progress();
  if (line.flag("json")) {
    say("{}\n", Ready{json_text(json.json(), 1)});
  } else {
    say("{}", Ready{kernel_text(json)});
  }
  return run.record().exit_status(line.flag("strict"));
}

}  // namespace whence::cli
