#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "whence/models/language_model.h"
#include "whence/stages/pipeline_file.h"
#include "whence/stages/stage.h"
#include "whence/training/validation.h"
#include "whence/tuning/peft.h"

namespace whence {

/// How a pipeline is computed, apart from what it says itself.
struct RunOptions {
  std::optional<std::uint64_t> seed = {};  ///< In place of the file's.
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  std::int64_t batch_size = 1024;
  std::function<void(const std::string&)> note = {};  ///< Told each line of Pipeline::notes() as it comes up.
};

/// How a stage's training ended.
struct StageTraining {
  TrainingSummary summary;
  Stationarity stationarity;
  std::string stationarity_of = {};  ///< The stationarity_key() of what it was measured of.
  std::int64_t examples = 0, parameters = 0;
};

/// A pipeline file at work: the model, its stages' data and checkpoints, the chain that they make, and the queries.
class Pipeline {
 public:
  /// Throws what read_pipeline_file() throws, DataError for a model's folder or a tokenizer that cannot be read, and
  /// InvalidArgument for what does not suit the model.
  Pipeline(const std::filesystem::path& path, const RunOptions& options);

  const std::filesystem::path& path() const { return file_.path; }
  const RunOptions& options() const { return options_; }
  std::uint64_t seed() const { return seed_; }
  const std::string& model_spec() const { return model_spec_; }
  /// The files that describe the model and where it starts, or would (text_model_files); none for a built-in one.
  std::vector<std::filesystem::path> model_files() const;
  const std::vector<StageDescription>& stages() const { return file_.stages; }
  /// Throws InvalidArgument with the nearest known name.
  std::size_t stage_index(const std::string& name) const;
  std::vector<std::string> query_splits() const;

  /// The files of a stage's snapshots, whether they are there or not: run/pretrain.snapshot-1.safetensors, … beside
  /// run/pretrain.safetensors.
  std::vector<std::filesystem::path> snapshot_files(std::size_t stage) const;

  /// What was assumed about files from elsewhere and their owner should know, a line each, as it has come up so far.
  const std::vector<std::string>& notes() const { return notes_; }

  /// The files that a stage's checkpoint says it was trained with, validation among them, as far as they are there;
  /// none where it does not say. Reads none of them.
  std::vector<std::filesystem::path> trained_from(std::size_t stage) const;

  /// Whether a stage's result is there.
  bool is_trained(std::size_t stage) const;
  /// How its training ended, as the checkpoint says; nothing where it does not.
  std::optional<StageTraining> training(std::size_t stage) const;
  /// What a stage's checkpoint was trained with that is otherwise today, a phrase for each key of the objective, file
  /// or parent ("weight-decay = 0.01, now 0.02"). The optimizer counts where training ended before the minimum. Empty
  /// where there is no checkpoint or it says nothing. Of files above 32 MiB reads only those that are newer than the
  /// checkpoint.
  std::vector<std::string> changes(std::size_t stage) const;

  /// The training data of a stage. Read once.
  const Dataset& training_data(std::size_t stage) const;
  /// What a stage's training is validated by, its targets numbered as the stage numbers its classes; null where it is
  /// not. Read once, and by what trains alone: load() does without.
  const Dataset* validation_data(std::size_t stage) const;
  /// The examples of [queries.SPLIT], with targets numbered as the last stage numbers its classes; the first `limit`
  /// where > 0.
  Dataset queries(const std::string& split, std::int64_t limit = 0) const;

  /// The chain from its checkpoints and snapshots. Throws DataError naming a missing file (and `whence train`), a
  /// tensor that does not fit, or snapshots of another training than the checkpoint's, and InvalidArgument where the
  /// seed is not the one that a stage was primed with, which draws what each of its tasks starts from.
  Chain load() const;
  /// The first `count` stages of it.
  Chain load(std::size_t count) const;

  /// The first `count` stages as they would start training, each on the start of the one before: whether they fit,
  /// their validations too.
  Chain untrained(std::size_t count) const;
  /// A stage as it would start on the stages before.
  Stage untrained(std::size_t stage, const Chain& before) const;
  /// The same with its head as head-start has it: as its training begins.
  Stage begun(std::size_t stage, const Chain& before, const Progress& progress = {}) const;

  /// Where the training of a stage that has a checkpoint began, on the loaded stages before it: theta then. Throws
  /// InvalidArgument where nothing says that: weights from elsewhere that are not all the parent's at first, or another
  /// seed than the one that drew what is new.
  TensorList start(std::size_t stage, const Chain& before) const;
  /// Throws where start() does, and does not go through data.
  void check_start(std::size_t stage, const Chain& before) const;

  /// The stage is to be trained over: what its checkpoint says, which classes it has and how it reads tables, no longer
  /// counts for its data.
  void disregard_checkpoint(std::size_t stage) const;

  /// Trains one stage on the loaded stages before it and writes its snapshots and its checkpoint. Interrupted work goes
  /// on from CHECKPOINT.unfinished, which is written when `progress` throws, and when the checkpoint cannot be. Throws
  /// InvalidArgument where the checkpoint would lie in the model's own folder or in place of something that whence did
  /// not write.
  StageTraining train(std::size_t stage, const Progress& progress, bool anew = false) const;

  /// Writes the model after a trained stage as plain weights: the body that it hands on, and its head. A model of texts
  /// becomes a Hugging Face directory `out`, with a prefix or a prompt, which no weights can say, in PEFT's format in
  /// `out`-prefix or `out`-prompt; a built-in one a .safetensors file. What was written. Throws what load() throws, and
  /// InvalidArgument for what can be said in neither way, by name, and where something lies that is not to be lost.
  std::vector<std::filesystem::path> merge(std::size_t stage, const std::filesystem::path& out) const;

 private:
  /// A stage of weights from elsewhere as its training began; none where whence trained it, which begun() gives. Throws
  /// as start() does.
  std::optional<Stage> start_of_others(std::size_t stage, const Chain& before) const;
  void open_model();
  void open_texts(std::int64_t vocabulary, std::int64_t context);
  void note(const std::string& text) const;
  nlohmann::json settings(std::size_t stage) const;
  nlohmann::json unfinished_settings(std::size_t stage, std::int64_t examples) const;
  nlohmann::json record(std::size_t stage, const Dataset& data, const TrainingSummary& summary) const;
  PeftAdapter as_adapter(std::size_t stage, const Stage& trained, const TensorList& theta) const;
  void check_checkpoint_form(std::size_t stage, const Stage& untrained) const;
  void write_checkpoint(std::size_t stage, const Stage& trained, const TensorList& theta,
                        std::map<std::string, std::string> metadata) const;
  Dataset read(const nlohmann::json& table, std::size_t stage, DataReading reading) const;
  Dataset read_unseen(const nlohmann::json& table, std::size_t stage, const std::string& where) const;
  std::shared_ptr<const TableEncoding> encoding_before(std::size_t stage) const;
  std::vector<std::string> number_names(std::size_t stage) const;
  std::vector<std::string> tasks(std::size_t stage) const;
  void check_seed(std::size_t stage) const;
  Validation validation(std::size_t stage) const;
  void check_validation(std::size_t stage, const Stage& untrained) const;
  std::shared_ptr<const Optimizer> optimizer(std::size_t stage) const;

  PipelineFile file_;
  RunOptions options_;
  std::uint64_t seed_ = 0;  ///< The one that counts.
  std::string model_spec_;
  std::shared_ptr<const Model> model_;
  const LanguageModel* language_model_ = nullptr;  ///< The same, of texts.
  std::filesystem::path tokenizer_;                ///< Its tokenizer.json, there or not.
  std::optional<TextReading> reading_;             ///< For a model of texts.
  mutable std::map<std::size_t, Dataset> data_, validation_;
  mutable std::vector<std::string> notes_;
  mutable std::set<std::size_t> fresh_;  ///< Stages that are trained now: what their old checkpoints say is no matter.
};

}  // namespace whence
