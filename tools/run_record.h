#pragma once
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "cli.h"
#include "whence/attribution/attribute.h"

namespace whence::cli {

/// What run.json says: everything that is needed to judge a result and to make it again. Warnings are told on standard
/// error as they come, and decide the exit status under --strict.
class RunRecord {
 public:
  RunRecord(const CommandLine& line, std::uint64_t seed);
  RunRecord(const CommandLine& line, const Pipeline& pipeline);

  nlohmann::ordered_json& json() { return json_; }
  void warning(const std::string& message);
  /// Times what happens until the next phase.
  void phase(const std::string& name);
  /// Digests of `files`, once each.
  void add_inputs(const std::vector<std::filesystem::path>& files);
  /// Digests of the pipeline file, of the checkpoints and of all data.
  void add_inputs(const Pipeline& pipeline, const Dataset& queries);
  /// What each stage trained on what, with_gradients its gradient norm too, which takes about five passes over its
  /// data; where scores assume a minimum, warns of a stage that is far from one or that the measurement cannot feel.
  void add_stages(const Chain& chain, bool with_gradients, bool assumes_minimum);
  void add_solves(const std::vector<AttributionSolves>& solves, const std::vector<StageEvidence>& evidence,
                  const Chain& chain);
  /// All digests and options in one line: what a resumed run must share.
  std::string key() const;
  void write(const std::filesystem::path& path);
  int exit_status(bool strict) const { return strict && strict_ ? kStrict : kDone; }

 private:
  nlohmann::ordered_json json_;
  std::string phase_;
  std::chrono::steady_clock::time_point phase_begin_ = std::chrono::steady_clock::now();
  bool strict_ = false;
};

/// A checkpoint is called far from a minimum when the objective's gradient exceeds this fraction of an example's.
inline constexpr double kFarFromMinimum = 1e-3;
std::string far_from_minimum_text(const std::string& stage, const Stationarity& at);

}  // namespace whence::cli
