// `whence init`: a pipeline file to begin with, from a look at what the user has.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

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
  const auto draft = draft_pipeline(std::move(sources), out);
  if (fs::exists(out)) {
    throw InvalidArgument(
        fmt::format("{} is there already and stays as it is: --out OTHER.toml, or remove it", out.string()));
  }
  write_text(out, draft.text);
  Found found;
  try {
    found = check(out, line.run_options());
  } catch (...) {
    std::error_code ignored;
    fs::remove(out, ignored);
    throw;
  }
  const auto stage = found.examples.size() == 1 ? "" : " --stage all";
  auto told = std::move(found.examples);
  told.insert(told.end(), draft.assumed.begin(), draft.assumed.end());
  const auto word = shell_word(out.string());
  const auto rank = fmt::format("whence rank {}{} --limit-queries 3 --out result", word, stage);
  const auto next = found.trained ? rank : fmt::format("whence train {} && {}", word, rank);
  if (line.flag("json")) {
    say("{}\n", Ready{json_text(Json{{"pipeline", out.string()}, {"assumed", told}, {"next", next}}, 2)});
  } else {
    say("{}: {}\nnext: {}\n", out.string(), fmt::format("{}", fmt::join(told, "; ")), next);
  }
  return kDone;
}

}  // namespace whence::cli
