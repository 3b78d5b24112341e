#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli.h"
#include "json.h"
#include "method_list.h"
#include "run_record.h"
#include "trainings.h"
#include "whence/evaluate/statistics.h"

namespace whence::cli {

class Truth;

/// --remove: percents of the examples. Throws UsageError.
std::vector<double> removed_percents(const CommandLine& line);

Json json_ends(const Interval& interval);

/// "about 18 s to score: unrolled 17 s", of Comparison::scoring_plan().
std::string scoring_text(const Json& plan);

/// What `whence evaluate --methods` compares: methods' scores of a stage's examples for queries, and the trainings that
/// a truth is made of.
class Comparison {
 public:
  struct Scored {
    std::string method;
    at::Tensor scores;  ///< [Q, N] float64.
    double seconds = 0;
    Claim claim = Claim::kOrder;
  };

  /// Throws UsageError or InvalidArgument for what does not fit together, methods that cannot be had here among it.
  /// `line` and `truth` must outlive the comparison.
  Comparison(const CommandLine& line, const Truth& truth);
  Comparison(const Comparison&) = delete;
  Comparison& operator=(const Comparison&) = delete;
  /// Keeps trainings and scores in `bank`, and takes those that are there. Before any is asked for.
  void train_in(const std::filesystem::path& bank);

  const CommandLine& line() const { return line_; }
  const Truth& truth() const { return truth_; }
  const Pipeline& pipeline() const { return pipeline_; }
  const Chain& chain() const { return chain_; }
  std::size_t stage_index() const { return stage_; }
  const Stage& stage() const { return chain_[stage_]; }
  const Dataset& data() const { return stage().objective.data(); }
  const Dataset& queries() const { return queries_; }
  const std::string& split() const { return split_; }
  Measurement measurement() const { return measurement_; }
  const std::vector<ListedMethod>& methods() const { return methods_; }
  const Progress& progress() const { return progress_; }
  RunRecord& record() { return record_; }
  Trainings& trainings() { return *trainings_; }
  /// Where trainings begin: start or checkpoint.
  const std::string& train_from() const { return train_from_; }
  Random random() const { return Random(pipeline_.seed()).stream("evaluate"); }

  /// Every method's scores: the bank keeps them, each as it is made, and has those that an earlier run made of the
  /// same.
  std::vector<Scored> scored() const;
  /// The same where the bank has them all; makes none.
  std::optional<std::vector<Scored>> scored_before() const;
  /// Seconds that scoring takes, {low, high} by name, null where only the least is known: of methods whose scores the
  /// bank has not, and so often `again` of those that use a curvature. Cost: rehearsals (plan.h).
  Json scoring_plan(std::int64_t again = 0) const;
  /// One method's, of another chain of the same stages.
  at::Tensor scores(const ListedMethod& method, const Chain& chain) const;
  /// One method's, by the curvature of the stage with example `weights` [N], chosen and damped as that of all: the mean
  /// of (w_i - 1) score_i is what training with them changes to second order, by a Newton step (exactly in least
  /// squares; P. W. Koh et al., "On the Accuracy of Influence Functions for Measuring Group Effects", NeurIPS 2019).
  /// Undefined where the method inverts no such curvature, or with these weights it is not positive. Cost: the method's
  /// scores once more.
  at::Tensor scores_at(const ListedMethod& method, const at::Tensor& weights) const;
  /// The scores of that chain's examples for their own losses, by the method's attributor.
  at::Tensor self_scores(const ListedMethod& method, const Chain& chain) const;

  /// The pipeline's own seed (0) and, unless --no-ceiling, another.
  std::vector<std::uint64_t> seeds() const;
  /// What a truth is going to ask for.
  struct Work {
    at::Tensor weights;                ///< [M, N]: trainings with each of them
    std::vector<std::uint64_t> seeds;  ///< and of these,
    std::int64_t later = 0;            ///< and so many more whose weights rest on scores.
    std::string count_flag;            ///< Says how many: "subsets".
    std::int64_t scored_again = 0;     ///< How often methods that use a curvature score once more.
  };
  /// Whether --plan was told what that takes. Else throws InvalidArgument where the trainings take longer than a person
  /// waits unasked, or where they would say nothing of the checkpoint (Trainings::check_reference).
  bool planned(const Work& work);
  /// What --plan says: `text`, or `plan` with --json.
  void tell_plan(const Json& plan, const std::string& text) const;
  /// One entry a seed.
  std::vector<Retraining> train(const at::Tensor& weights, const std::vector<std::uint64_t>& seeds);
  /// What evaluation.json says of the trainings of train().
  Json told(const std::vector<Retraining>& trained) const;
  /// How far the training with weights of 1, whose measurements these are [Q], ends from the checkpoint
  /// (Trainings::apart); warns where it should give that again and does not.
  double check_repeats(const at::Tensor& measurements);

 private:
  std::filesystem::path place_of_scores(const ListedMethod& method) const;
  std::optional<Scored> kept_scores(const ListedMethod& method) const;
  struct Chosen {
    InverseChoice choice;
    double seconds = 0;  ///< That choosing took.
  };
  /// Of a method that uses a curvature, for the queries; else one that it does not look at.
  InverseChoice choice(const ListedMethod& method, const Chain& chain, std::int64_t solved, bool indefinite) const;
  /// The same for the queries and the chain as it is: chosen once.
  const Chosen& own_choice(const ListedMethod& method, bool indefinite) const;
  /// By `problem` of whether negative curvature was met.
  at::Tensor scores_by(const ListedMethod& method, const Chain& chain,
                       const std::function<InverseProblem(bool)>& problem) const;
  /// The method's attributor as it knows of this pipeline's trainings.
  std::shared_ptr<const Attributor> informed(const ListedMethod& method) const;
  std::unique_ptr<ScoreSource> source(const ListedMethod& method, const Chain& chain,
                                      const InverseProblem& inverse) const;
  /// Leaves out what is there to compare with and cannot be had; throws for what was asked for.
  void check_methods();

  const CommandLine& line_;
  const Truth& truth_;
  Pipeline pipeline_;
  RunRecord record_;
  std::size_t stage_;
  std::string split_;
  Measurement measurement_;
  Chain chain_;
  Dataset queries_;
  std::vector<ListedMethod> methods_;
  Progress progress_;
  std::string train_from_;
  mutable std::map<std::pair<std::string, bool>, Chosen> chosen_;  ///< By method and whether it is indefinite.
  std::string score_key_;                                          ///< Of all that scores rest on but the method.
  std::filesystem::path bank_;
  std::unique_ptr<Trainings> trainings_;
  double one_training_ = 0;  ///< Seconds, of train().
};

}  // namespace whence::cli
