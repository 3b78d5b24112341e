#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "whence/models/naming.h"

namespace whence {

/// What a pipeline file says of its model: one of spec and folder.
struct ModelDescription {
  std::string spec;                 ///< Of a built-in model, or one that was exported.
  std::filesystem::path folder;     ///< In Hugging Face layout.
  bool ignore_adapter = false;      ///< One that lies beside the folder's weights; otherwise it is an error.
  std::filesystem::path tokenizer;  ///< Empty: the folder's own, where it has one.
  nlohmann::json table;             ///< As the file has it.
};

/// Every stage, where a stage's name is asked for or told: none is called so.
inline constexpr std::string_view kEveryStage = "all";

/// What it says of one stage.
struct StageDescription {
  std::string name;
  nlohmann::json train;
  std::string tuning = "full";
  bool says_tuning = false;  ///< Else that of a checkpoint which is an adapter counts.
  std::string loss = "cross-entropy";
  std::string optimizer = "lbfgs";
  bool says_optimizer = false;
  double weight_decay = 0;
  std::string priming;        ///< Of a primed stage; empty: it is none.
  std::string tasks;          ///< The column that names each example's task; empty: every table of `train` is one.
  nlohmann::json validation;  ///< The data that training is validated by; null: it is not.
  std::int64_t patience = 5, validation_every = 0, validation_draws = 0;  ///< As of training/validation.h.
  std::string validation_by = "loss";                                     ///< Or "accuracy".
  std::int64_t snapshots = 0;  ///< Segments of training at whose ends a snapshot is kept.
  std::string head_start;      ///< Of head_start.h; empty: random.
  std::filesystem::path checkpoint;
  Renaming rename;  ///< What the checkpoint calls its tensors or layers, and their names here.
};

/// What a pipeline file says, its keys checked: interface.md, "Pipeline file". Paths are as seen from here, those in
/// data tables as seen from the file.
struct PipelineFile {
  std::filesystem::path path;
  std::uint64_t seed = 0;
  ModelDescription model;
  std::vector<StageDescription> stages;
  std::map<std::string, nlohmann::json> queries;  ///< The data of each [queries.SPLIT].
};

/// Throws DataError with the line for a file that is not TOML, InvalidArgument for an unknown key (with the nearest
/// known one), a method or option that is not known, and a missing or repeated name. Reads no other file.
PipelineFile read_pipeline_file(const std::filesystem::path& path);

}  // namespace whence
