#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli.h"
#include "json.h"
#include "kernel_matrices.h"
#include "run_record.h"
#include "whence/kernels/kernel_solver.h"
#include "whence/store/result_folder.h"

namespace whence::cli {

/// A run of `whence kernel`: the kernels of one stage, and the tests of the regime.
class KernelRun {
 public:
  /// Throws UsageError and InvalidArgument for names that are not known. `line` must outlive the run.
  explicit KernelRun(const CommandLine& line);

  /// What run() would make and take.
  Json plan();
  /// Makes the result in `folder`, or finds it there: what its kernel.json says. An earlier run that was interrupted
  /// is gone on with; of a finished one of another fine-tune, what has its start is kept.
  JsonView run(const std::filesystem::path& folder);
  RunRecord& record() { return record_; }

 private:
  /// What making and judging the kernels takes beside what the process holds before.
  struct Cost {
    double matrices = 0;  ///< Bytes.
    double bytes = 0;     ///< All at the peak, the matrices among them.
    double seconds = 0;   ///< By as many threads as there are.
  };

  void load();
  /// What is made with so many of the examples.
  std::vector<KernelJob> jobs(std::int64_t examples, std::int64_t outputs) const;
  /// As many examples as were asked for, or as a person waits for; refuses what does not fit.
  void size();
  /// Evenly over the classes, the first of each.
  at::Tensor rows_of(std::int64_t examples) const;
  void check_sizes() const;
  void check_ranks() const;
  /// What the targets are: classes, events (kProbabilities) or values.
  TargetKind kind() const;
  /// Of all matrices but those that are `kept`.
  Cost cost(const KernelMatrices& kept = {}) const;
  KernelPoint point(const TensorList& theta) const;
  Json judge(const KernelMatrices& made);
  /// The kernel's regression, and what it makes of what is asked.
  void regress(const KernelMatrices& made, Json& out);
  void low_rank(Json& out) const;
  bool at_start() const { return line_.text("at") == "start"; }
  bool has_queries() const { return queries_.has_value(); }
  const Stage& stage() const { return chain_.back(); }

  const CommandLine& line_;
  Pipeline pipeline_;
  std::size_t index_ = 0;
  std::string split_;
  std::shared_ptr<const TangentKernel> kernel_, entk_;
  std::shared_ptr<const KernelSolver> solver_;
  KernelOutputs outputs_;
  std::vector<std::int64_t> ranks_;
  RunRecord record_;
  Progress progress_;
  Chain chain_;
  TensorList start_;
  std::vector<std::string> names_;
  std::optional<Dataset> queries_;
  Dataset examples_;
  std::vector<KernelJob> jobs_;
};

}  // namespace whence::cli
