#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "cli.h"
#include "inspect_model.h"
#include "inspect_source.h"
#include "json.h"
#include "result.h"
#include "run_record.h"
#include "say.h"
#include "spectrum.h"
#include "whence/core/error.h"
#include "whence/data/safetensors.h"
#include "whence/models/checkpoint.h"
#include "whence/store/self_scores.h"
#include "whence/tuning/peft.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace {

Json inspect_safetensors(const fs::path& path) {
  Json out{{"kind", "safetensors"}, {"tensors", Json::array()}};
  const auto tensors = read_safetensors(path);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& value = tensors.values()[i];
    Json entry{
        {"name", tensors.names()[i]}, {"dtype", c10::toString(value.scalar_type())}, {"shape", value.sizes().vec()}};
    if (value.is_floating_point() && value.numel() > 0) {
      const auto wide = value.to(at::kDouble);
      entry["rms"] = wide.square().mean().sqrt().item<double>();
      entry["finite"] = at::isfinite(wide).all().item<bool>();
    }
    out["tensors"].push_back(std::move(entry));
  }
  out["entries"] = tensors.entries();
  for (const auto& [key, value] : read_safetensors_metadata(path)) {
    out["metadata"][key] = json_object<Json>(value).value_or(Json(value));
  }
  return out;
}

Json inspect_adapter(const fs::path& folder) {
  Json out{{"kind", "adapter"}, {"tuning", peft_tuning(folder)}, {"tensors", 0}, {"numbers", 0}};
  for (const auto& file : checkpoint_files(folder)) {
    if (file.extension() == ".safetensors") {
      const auto held = read_safetensors(file);
      out["tensors"] = held.size();
      out["numbers"] = held.entries();
    }
  }
  const auto config = read_json(folder / "adapter_config.json");
  for (const char* key : {"peft_type", "task_type", "base_model_name_or_path"}) {
    if (config.contains(key) && !config[key].is_null()) {
      out[key] = config[key];
    }
  }
  return out;
}

Json inspect_data(const Dataset& data) {
  Json out{{"examples", data.size()}, {"input", data.input_shape()}, {"outputs", data.outputs()}};
  if (data.is_text()) {
    out["input"] = {{"tokens", data.tokens()}, {"longest", data.longest()}, {"cut", data.texts().cut}};
  }
  if (data.target_kind() == TargetKind::kClasses) {
    const auto counts = at::bincount(data.targets(), {}, static_cast<std::int64_t>(data.classes().size()));
    for (std::size_t c = 0; c < data.classes().size(); ++c) {
      out["classes"][data.classes()[c]] = counts[static_cast<std::int64_t>(c)].item<std::int64_t>();
    }
  }
  for (const auto& column : data.table() ? data.table()->columns : std::vector<TableColumn>{}) {
    auto& told = out["columns"][column.name];
    if (!column.levels.empty()) {
      told = column.levels;
    } else if (data.table()->standardize) {
      told = fmt::format("a number, mean {:.6g}, deviation {:.6g}", column.shift, column.scale);
    } else {
      told = "a number";
    }
  }
  return out;
}

Json inspect_pipeline(const Pipeline& pipeline) {
  Json out{
      {"kind", "pipeline"}, {"model", pipeline.model_spec()}, {"seed", pipeline.seed()}, {"stages", Json::array()}};
  for (std::size_t k = 0; k < pipeline.stages().size(); ++k) {
    const auto& stage = pipeline.stages()[k];
    out["stages"].push_back({{"name", stage.name},
                             {"data", inspect_data(pipeline.training_data(k))},
                             {"tuning", stage.tuning},
                             {"loss", stage.loss},
                             {"weight-decay", stage.weight_decay},
                             {"optimizer", stage.optimizer},
                             {"snapshots", stage.snapshots},
                             {"checkpoint", stage.checkpoint.string()},
                             {"trained", pipeline.is_trained(k)}});
  }
  for (const auto& split : pipeline.query_splits()) {
    out["queries"][split] = inspect_data(pipeline.queries(split));
  }
  return out;
}

/// What to know of the last stage that was trained elsewhere, where it cannot be loaded or is no better than a guess;
/// empty where it is better.
std::string foreign_text(const Pipeline& pipeline) {
  for (auto k = pipeline.stages().size(); k > 0; --k) {
    if (!pipeline.is_trained(k - 1) || pipeline.training(k - 1)) {
      continue;
    }
    if (are_tokens(create<Loss>(pipeline.stages()[k - 1].loss)->wants())) {
      break;
    }
    try {
      const auto chain = pipeline.load(k);
      return guessing_text(chain.back(), no_better_than_guess(chain.back()));
    } catch (const Error& error) {
      return error.what();
    }
  }
  return {};
}

Json inspect_scores(const std::string& name, const at::Tensor& scores, const at::Tensor& example_ids) {
  return {{"name", name},
          {"examples", example_ids.size(0)},
          {"dtype", c10::toString(scores.scalar_type())},
          {"lowest", scores.min().item<double>()},
          {"highest", scores.max().item<double>()}};
}

Json inspect_result(const fs::path& folder, bool& changed) {
  const Result result(folder);
  const auto& run = result.run();
  for (const auto& name : result.files()) {
    if (fs::exists(folder / name)) {
      result.file(name);  // which says so where one was changed
    } else {
      warn(fmt::format("{} is missing", (folder / name).string()));
    }
  }
  for (const auto& text : changed_inputs(run)) {
    warn(text);
    changed = true;
  }
  Json out{{"kind", "result"}, {"command", run["command"].json()}};
  if (run.contains("verdict")) {
    out["verdict"] = run["verdict"].json();
  }
  if (!result.has("scores.safetensors")) {  // of icl, or an evaluation alone
    for (const char* key : {"options", "warnings", "files"}) {
      if (run.contains(key)) {
        out[key] = key == std::string("files") ? Json(result.files()) : run[key].json();
      }
    }
    return out;
  }
  out["options"] = run["options"].json();
  check_scored(result);
  const auto file = result.file("scores.safetensors");
  if (is_self(run)) {
    out["queries"] = "none: each example's score is for its own loss (--self)";
    for (const auto& entry : read_self_scores(file).stages) {
      out["scores"].push_back(inspect_scores(entry.name, entry.scores, entry.example_ids));
    }
  } else {
    const auto scores = read_scores(file);
    out["queries"] = scores.query_ids.size(0);
    for (const auto& entry : scores.stages) {
      out["scores"].push_back(inspect_scores(entry.name, entry.scores, entry.example_ids));
    }
  }
  for (const auto& [name, stage] : run["stages"].items()) {
    auto told = stage.json();
    if (told.is_object()) {
      told.erase("solves");
    }
    out["stages"][name] = std::move(told);
  }
  out["warnings"] = run["warnings"].json();
  out["files"] = result.files();
  return out;
}

/// Key: value lines, nested tables indented.
void print(const Json& json, int indent = 0) {
  const std::string margin(static_cast<std::size_t>(indent), ' ');
  for (const auto& [key, value] : json.items()) {
    if (value.is_array() && !value.empty() && value[0].is_object()) {
      for (const auto& entry : value) {
        say("{}{} {}\n", margin, key,
            entry.contains("name") && entry["name"].is_string() ? entry["name"].get<std::string>() : "");
        auto rest = entry;
        if (rest.is_object()) {
          rest.erase("name");
        }
        print(rest, indent + 2);
      }
    } else if (value.is_object()) {
      say("{}{}\n", margin, key);
      print(value, indent + 2);
    } else {
      say("{}{:<16} {}\n", margin, key, value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
}

/// One line a tensor reads better than nested keys.
void print_tensors(const Json& json) {
  for (const auto& tensor : json["tensors"]) {
    say("{:<40} {:<9} {:<18} {}\n", tensor["name"].get<std::string>(), tensor["dtype"].get<std::string>(),
        tensor["shape"].dump(),
        !tensor.contains("rms")        ? ""
        : tensor["finite"].get<bool>() ? fmt::format("rms {:.4g}", tensor["rms"].get<double>())
                                       : "NOT FINITE");
  }
  say("{} entries\n", json["entries"].get<std::int64_t>());
  if (json.contains("metadata")) {
    print(json["metadata"]);
  }
}

bool has_ending(const fs::path& path, const std::string& ending) {
  const auto name = path.filename().string();
  return name.ends_with(ending) || name.ends_with(ending + ".gz");
}

}  // namespace

int inspect(const std::vector<std::string>& arguments) {
  CommandLine line("inspect", "FILE|DIR [--spectrum [--stage NAME] [--curvature SPEC] [--plot FILE.svg]]",
                   "Says what a model's folder or export, a tokenizer, a file of data, a safetensors file, a pipeline "
                   "(.toml) or a result "
                   "directory holds, and with --spectrum what the eigenvalues of a trained stage's curvature are.");
  line.positional("PATH",
                  "a model's folder or its tokenizer.json, an exported model (.pt2), an adapter's folder, a file of "
                  "data (.csv, .tsv, .jsonl, .txt, idx, CIFAR's "
                  ".bin), a checkpoint "
                  "or data set (.safetensors), a pipeline (.toml), or the directory of a result");
  add_spectrum_options(line);
  if (!line.parse(arguments)) {
    return kDone;
  }
  const fs::path path = line.text("PATH");
  Json out;
  bool changed = false;  // what a stage or a result was made from, since then; or what foreign_text() says
  if (line.flag("spectrum") && !has_ending(path, ".toml")) {
    throw UsageError(fmt::format("--spectrum: {} is no pipeline (.toml)", path.string()));
  }
  if (fs::is_directory(path) && fs::exists(path / "config.json")) {
    out = inspect_model(path);
  } else if (fs::is_directory(path) && fs::exists(path / "tokenizer.json")) {
    out = inspect_tokenizer(path);
  } else if (is_adapter(path)) {
    out = inspect_adapter(path);
  } else if (fs::is_directory(path)) {
    if (!is_result(path)) {
      throw InvalidArgument(fmt::format(
          "{}: expected a folder with a config.json (a model) or a run.json (the result of whence rank or score)",
          path.string()));
    }
    out = inspect_result(path, changed);
  } else if (path.filename() == "config.json") {
    out = inspect_model(path.parent_path().empty() ? "." : path.parent_path());
  } else if (has_ending(path, "tokenizer.json")) {
    out = inspect_tokenizer(path);
  } else if (has_ending(path, ".toml")) {
    const Pipeline pipeline(path, line.run_options());
    changed = tell_changes(pipeline);
    out = line.flag("spectrum") ? inspect_spectrum(line, pipeline) : inspect_pipeline(pipeline);
    if (const auto text = foreign_text(pipeline); !text.empty()) {
      warn(text);
      out["warnings"] = {text};
      changed = true;
    }
  } else if (is_exported(path)) {
    out = inspect_exported(path);
  } else if (has_ending(path, ".safetensors")) {
    out = inspect_safetensors(path);
  } else {
    out = inspect_source(path);
  }
  if (line.flag("json")) {
    say("{}\n", Ready{json_text(out, 2)});
  } else if (out["kind"] == "spectrum") {
    print_spectrum(out);
  } else if (out["kind"] == "safetensors") {
    print_tensors(out);
  } else {
    print(out);
  }
  return changed && line.flag("strict") ? kStrict : kDone;
}

}  // namespace whence::cli
