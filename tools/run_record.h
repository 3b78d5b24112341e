#pragma once
#include <chrono>
#include <optional>
#include <string>

#include "cli.h"
#include "json.h"
#include "whence/attribution/attribute.h"
#include "whence/evaluate/guessing.h"
#include "whence/stages/choice.h"

namespace whence::cli {

/// What run.json says: everything that is needed to judge a result and to make it again. Warnings are told on standard
/// error as they come, and decide the exit status under --strict.
class RunRecord {
 public:
  RunRecord(const CommandLine& line, std::uint64_t seed);
  RunRecord(const CommandLine& line, const Pipeline& pipeline);

  Json& json() { return json_; }
  /// For those who also read it from a file.
  JsonView view() const { return {json_, "run.json"}; }
  void warning(const std::string& message);
  /// The same for what has been told already.
  void told_warning(const std::string& message);
  /// A warning that --strict does not heed.
  void doubt(const std::string& message);
  /// Tells the warnings and doubts of an earlier run again, whose record takes this one's place.
  void repeat(const JsonView& earlier);
  /// Times what happens until the next phase, and says that it is at work, in `words` where the name is no such.
  void phase(const std::string& name, const std::string& words = "");
  /// Digests of `files`, once each; kAbsent for one that was looked for and is not there.
  void add_inputs(const std::vector<std::filesystem::path>& files);
  /// Warns of checkpoints that were trained otherwise than the pipeline says today.
  void warn_of_changes(const Pipeline& pipeline);
  /// Digests of the pipeline file, of the checkpoints and of all data.
  void add_inputs(const Pipeline& pipeline, const Dataset& queries);
  /// What is asked of the inverse, before anything is chosen.
  void add_request(const InverseRequest& asked);
  /// What was chosen.
  void add_choice(const InverseChoice& choice);
  /// What each stage trained on what, what its training's validation measured and, where `stationarity` has one entry a
  /// stage, its gradient norm; where scores assume a minimum, warns of a stage that is far from one, with the `remedy`
  /// (empty: that has been told), or that the measurement cannot feel; and of one from `first` on, trained elsewhere,
  /// that is no better than a guess.
  void add_stages(const Pipeline& pipeline, const Chain& chain, std::size_t first,
                  const std::vector<std::optional<Stationarity>>& stationarity, bool assumes_minimum,
                  const std::string& remedy);
  void add_solves(const std::vector<AttributionSolves>& solves, const std::vector<StageEvidence>& evidence,
                  const Chain& chain);
  /// A digest of all that the result rests on: digests of the inputs, options, seed, versions.
  std::string key(const std::vector<std::string>& without = {}) const;
  /// Of an earlier run.json that was asked the same of the same inputs: its choice. What is measured in choosing may
  /// come out otherwise the next time, and a run that goes on must not.
  std::optional<InverseChoice> choice_of(const JsonView& earlier) const;
  int exit_status(bool strict) const { return strict && strict_ ? kStrict : kDone; }

 private:
  Json json_;
  Progress progress_;
  std::string phase_;
  std::chrono::steady_clock::time_point phase_begin_ = std::chrono::steady_clock::now();
  bool strict_ = false;
};

/// "curvature gauss-newton, solver cg, damping 1 x mean eigenvalue (0.0031): WHY; TYPE THIS for another", as much of
/// it as `evidence` knows.
std::string choice_text(const InverseChoice& choice, const std::vector<StageEvidence>& evidence, const Chain& chain);

/// `training` is how the checkpoint says that it ended, `remedy` what to type.
std::string far_from_minimum_text(const std::string& stage, const Stationarity& at,
                                  const std::optional<StageTraining>& training, const std::string& remedy);
/// What a validation measured, which parameters were kept, and whether it stopped training; null where there was none.
Json validation_of(const std::optional<StageTraining>& training);
/// What data/coarse_inputs.h, in the dtype that it is computed in, and data/training_checks.h say of a stage's data, a
/// line each; empty where that is fine.
std::vector<std::string> input_doubts(const std::string& stage, const Dataset& data, at::ScalarType dtype,
                                      bool trained);

/// What to know, and to look at, of a stage whose model is no better than a guess on its own examples; empty where it
/// is better.
std::string guessing_text(const Stage& stage, const std::optional<BesideGuess>& beside);

/// The warning that a stage's checkpoint was trained otherwise than the pipeline says today; empty where it was not.
std::string changes_text(const Pipeline& pipeline, std::size_t stage);
/// Those of all stages.
std::vector<std::string> changes_texts(const Pipeline& pipeline);
/// Tells them; whether there is one.
bool tell_changes(const Pipeline& pipeline);

}  // namespace whence::cli
