#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "cli.h"
#include "json.h"
#include "leave_one_out.h"
#include "run_record.h"
#include "whence/attribution/attribute.h"
#include "whence/attribution/self_influence.h"
#include "whence/store/ranking.h"
#include "whence/store/result_folder.h"

namespace whence::cli {

/// The attribution commands: either goes on with the other's scores.
inline const std::vector<std::string> kAttributionCommands{"rank", "score"};

/// A run of an attribution command: what it was asked, and the scores that it made.
class AttributionRun {
 public:
  /// Throws UsageError for flags that do not fit together, InvalidArgument for unknown names. `line` must outlive the
  /// run.
  explicit AttributionRun(const CommandLine& line);

  /// What run() would take, measured on a few batches. Writes nothing.
  Json plan();

  /// Scores for the result in `folder`, or finds them done there. With `top` > 0 texts' tokens are scored too, of so
  /// many examples. Throws, before any work, where another's file is in the way.
  void run(const std::filesystem::path& folder, std::int64_t top = 0);

  /// With --self: each example's score for its own loss.
  void run_self(const std::filesystem::path& folder);

  /// The files of the result: scores.safetensors, and what is placed beside it.
  ResultWriter& out() { return *out_; }
  const ResultWriter& out() const { return *out_; }
  /// Makes the result visible as a whole.
  void publish();

  struct SelfRanking {
    std::size_t stage = 0;           ///< In the chain.
    std::vector<std::int64_t> rows;  ///< Of its data: the example that moves its own loss most first.
    at::Tensor scores;               ///< [N] float64, in the order of the data.
  };
  std::vector<SelfRanking> self_rankings() const;

  /// Retrains without some examples of the stage that run() scored, where the result does not hold as many yet; what
  /// that finds becomes its evaluation. Where that cannot be, warns why and returns false: the scores stand as they
  /// are.
  bool spot_check(const SpotCheck& asked);

  /// Ranks what run() scored, with intervals where an evaluation supports them, of which run.json then tells.
  std::vector<Ranking> rankings(std::int64_t top);

  const Chain& chain() const { return chain_; }
  const Dataset& queries() const { return queries_; }
  const std::vector<std::size_t>& stages() const { return stages_; }
  RunRecord& record() { return record_; }
  bool reused() const { return reused_; }
  Measurement measurement() const { return measurement_; }
  /// Of each query, [Q] float64.
  const at::Tensor& measurements() const { return measurements_; }
  std::size_t stage_index(const std::string& name) const { return pipeline_.stage_index(name); }
  const std::string& stage_name(std::size_t stage) const { return pipeline_.stages()[stage].name; }
  bool self() const { return line_.flag("self"); }
  bool ranks() const { return line_.command() == "rank"; }
  /// Whether results are named scores.STAGE.
  bool every_stage() const { return line_.has("stage") && line_.text("stage") == kEveryStage; }
  /// Whether -score / N is a removal.
  bool predicts_removal() const { return attributor_->predicts_removal(normalization_); }

 private:
  /// What is known of retraining: of the spot check, or of the finished result.
  std::optional<JsonView> evaluation() const;
  std::vector<Ranking> ranked(std::int64_t top) const;
  /// Names of the files that the run may write.
  std::vector<std::string> outputs() const;
  void load();
  /// Takes what was asked, or finds or makes the choice of what was left open.
  void choose();
  void set_choice(InverseChoice choice);
  /// The choice on standard error, and what it rests on.
  void tell_choice();
  /// Runs `work`; where --memory-limit is too little for it, again with half as many queries and examples at a time.
  void within_memory(const std::function<void()>& work);
  /// Tells the choice and runs `score`; once more, with Gauss-Newton, where the choice was open and a solve meets
  /// negative curvature.
  void solve(const std::function<void()>& score);
  /// The queries whose class the model gets wrong, the first `limit` of them where > 0.
  Dataset wrong_queries(std::int64_t limit) const;
  void score_self();
  SelfInfluenceTask self_task(std::size_t stage) const;
  /// What a method that tests its own assumptions found.
  void tell_tests();
  /// By what tell_choice() measured.
  bool near_minimum(std::size_t stage) const;
  /// Right-hand sides, for what solves will cost.
  std::int64_t solved_for() const;
  /// Whether the folder holds the finished result of the same run, whose warnings are then told again.
  bool reuse();
  void score();
  AttributionTask task() const;
  /// Says where removals are predicted that cannot be, or that are known to be off.
  void doubt_removals();
  /// Finds what each token of the ranked texts adds, where no earlier ranking says it.
  void score_tokens(const VectorCache& cache);
  void keep_tokens(const std::vector<Ranking>& rankings);

  const CommandLine& line_;
  std::optional<ResultWriter> out_;
  Pipeline pipeline_;
  Measurement measurement_;
  Normalization normalization_;
  InverseRequest asked_;
  InverseChoice choice_;
  std::vector<std::size_t> stages_;
  std::int64_t query_block_;
  std::string split_;  ///< Of the queries; empty where --self needs none.
  std::shared_ptr<const Attributor> attributor_;
  bool unrolled_ = false;  ///< --response unrolled.
  std::shared_ptr<const Curvature> curvature_;
  std::shared_ptr<const Solver> solver_;
  RunRecord record_;
  Chain chain_;
  Dataset queries_;
  std::unique_ptr<ScoreSource> source_;
  at::Tensor measurements_;
  std::vector<AttributionSolves> solves_;  ///< Of score().
  std::int64_t top_ = 0;
  std::map<std::tuple<std::int64_t, std::string, std::int64_t>, std::vector<std::pair<std::string, double>>> tokens_;
  bool reused_ = false;
  std::optional<Json> spot_checked_;
};

}  // namespace whence::cli
