// `whence init`: a pipeline file to begin with, from a look at what the user has.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>

#include "cli.h"
#include "draft.h"
#include "json.h"
#include "say.h"
#include "sniff.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/quoted.h"
#include "whence/models/checkpoint.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace po = boost::program_options;
namespace {

/// What was found in a pipeline file.
struct Found {
  std::vector<std::string> examples;  ///< Of each stage, how many of what.
  bool trained = true;                ///< Every stage.
};

/// Reads what was written, so that nothing is left that does not run.
Found check(const fs::path& path, const RunOptions& options) {
  const Pipeline pipeline(path, options);
  Found out;
  for (std::size_t k = 0; k < pipeline.stages().size(); ++k) {
    const auto& data = pipeline.training_data(k);
    constexpr std::size_t kShown = 5;
    const auto& classes = data.classes();
    const std::vector<std::string> shown(
        classes.begin(), classes.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, classes.size())));
    out.examples.push_back(fmt::format(
        "{} examples{}", data.size(),
        classes.empty()
            ? ""
            : fmt::format(
                  " of {}{}", fmt::join(shown, ", "),
                  classes.size() > kShown ? fmt::format(" and {} more classes", classes.size() - kShown) : "")));
    out.trained = out.trained && pipeline.is_trained(k);
  }
  for (const auto& split : pipeline.query_splits()) {
    pipeline.queries(split, 1);
  }
  if (out.trained) {
    pipeline.load();
  }
  return out;
}

/// The classes of a pipeline's one stage in the order of its model's outputs: each at the output that its examples
/// raise most above the mean of all. Empty where two share one.
ListedClasses in_order_of_outputs(const fs::path& path, const RunOptions& options) {
  const auto chain = Pipeline(path, options).load();
  const auto& stage = chain.front();
  const auto& data = stage.objective.data();
  constexpr std::int64_t kMost = 1024;
  const auto batch = data.batch(at::arange(0, data.size(), (data.size() + kMost - 1) / kMost, at::kLong));
  const at::NoGradGuard no_gradient;
  const auto logs = at::log_softmax(stage.objective.output(stage.theta, stage.parent, batch).cpu(), 1);
  const auto targets = batch.targets.cpu();
  const auto above = logs - logs.mean(0);
  std::vector<std::string> names(static_cast<std::size_t>(logs.size(1)));
  at::Tensor outputs = at::zeros({data.outputs()}, at::kLong);
  for (std::int64_t k = 0; k < data.outputs(); ++k) {
    const auto own = above.index_select(0, targets.eq(k).nonzero().squeeze(1));
    outputs[k] = own.sum(0).argmax();
    auto& name = names[static_cast<std::size_t>(outputs[k].item<std::int64_t>())];
    if (own.size(0) == 0 || !name.empty()) {
      return {};
    }
    name = data.classes()[static_cast<std::size_t>(k)];
  }
  const auto right = logs.argmax(1).eq(outputs.index_select(0, targets)).to(at::kDouble).mean().item<double>();
  return {names, fmt::format("the outputs in order, by what the model predicts: right for {:.0f} % of {} examples",
                             100 * right, batch.size())};
}

}  // namespace

int init(const std::vector<std::string>& arguments) {
  CommandLine line(
      "init", "[MODEL] DATA... [--out FILE.toml]",
      "Looks at a model's folder, export or checkpoint and at data files, and writes a pipeline that runs. A name "
      "with test, dev or valid makes queries of a file.");
  line.positionals("PATHS",
                   "a Hugging Face folder, a .pt2 that torch.export.save wrote (of texts with the folder of its "
                   "tokenizer.json) or a .safetensors of weights, if there is a model; then csv, tsv, jsonl, txt, idx, "
                   "CIFAR or safetensors data");
  line.add()("out", po::value<std::string>(), "the pipeline file; default: the data's name, here");
  if (!line.parse(arguments)) {
    return kDone;
  }
  auto paths = line.get<std::vector<std::string>>("PATHS");
  std::stable_partition(paths.begin(), paths.end(), [](const fs::path& path) {  // it says what data are examples
    return fs::is_regular_file(path) && is_exported(path);
  });
  std::vector<Source> sources;
  ExportedFacts program;
  for (const auto& path : paths) {
    auto found = sniff(path, program);
    program = !found.empty() && found.front().kind == SourceKind::kExported ? found.front().program : program;
    std::move(found.begin(), found.end(), std::back_inserter(sources));
  }
  const auto named = std::find_if(sources.begin(), sources.end(), [](const Source& source) {
    return !source.is_model() && source.kind != SourceKind::kTokenizer;
  });
  auto stem = named == sources.end() ? std::string("pipeline") : named->path.filename().string();
  stem = stem.substr(0, std::min(stem.find('.'), stem.size()));
  stem = stem.empty() ? "pipeline" : stem;
  const fs::path out = line.has("out") ? fs::path(line.text("out")) : fs::path(stem + ".toml");
  auto draft = draft_pipeline(sources, out);  // before it is said that a file is in the way
  if (fs::exists(out)) {
    throw InvalidArgument(
        fmt::format("{} is there already and stays as it is: --out OTHER.toml, or remove it", out.string()));
  }
  Found found;
  const auto write = [&](const ListedClasses& classes) {
    draft = draft_pipeline(sources, out, classes);
    write_text(out, draft.text);
    if (!classes.names.empty()) {
      draft.assumed.push_back(fmt::format("classes = {}: {}", toml_text(classes.names), classes.why));
    }
  };
  bool to_be_filled = false;
  try {
    write({});
    try {
      found = check(out, line.run_options());
    } catch (const ClassesNeeded& needed) {
      to_be_filled = std::ssize(needed.labels) != needed.outputs;
      write({needed.labels, to_be_filled
                                ? fmt::format("list here the {} classes of the outputs, in their order", needed.outputs)
                                : std::string("are the outputs in this order? the model does not say")});
      if (to_be_filled) {
        throw InvalidArgument(
            fmt::format("{}; {} is written, where they are to be listed", needed.what(), out.string()));
      }
      found = check(out, line.run_options());
      if (const auto seen = in_order_of_outputs(out, line.run_options()); !seen.names.empty()) {
        write(seen);
        found = check(out, line.run_options());
      }
    }
  } catch (...) {
    std::error_code ignored;
    if (!to_be_filled) {
      fs::remove(out, ignored);
    }
    throw;
  }
  const auto stage = found.examples.size() == 1 ? "" : " --stage all";
  auto told = std::move(found.examples);
  told.insert(told.end(), draft.assumed.begin(), draft.assumed.end());
  const auto word = shell_word(out.string());
  const auto dtype = line.given("dtype") ? " --dtype " + line.text("dtype") : std::string();
  const auto rank = fmt::format("whence rank {}{} --limit-queries 3 --out result{}", word, stage, dtype);
  const auto next = found.trained ? rank : fmt::format("whence train {}{} && {}", word, dtype, rank);
  if (line.flag("json")) {
    say("{}\n", Ready{json_text(Json{{"pipeline", out.string()}, {"assumed", told}, {"next", next}}, 2)});
  } else {
    say("{}: {}\nnext: {}\n", out.string(), fmt::format("{}", fmt::join(told, "; ")), next);
  }
  return kDone;
}

}  // namespace whence::cli
