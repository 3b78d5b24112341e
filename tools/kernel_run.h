#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli.h"
#include "json.h"
#include "run_record.h"
#include "whence/kernels/kernel_blocks.h"
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
  /// is gone on with.
  JsonView run(const std::filesystem::path& folder);
  RunRecord& record() { return record_; }

 private:
  /// One kernel matrix that is made.
  struct Job {
    std::string name;
    std::shared_ptr<const TangentKernel> kernel;
    KernelPoint point;
    Dataset rows;
    std::optional<Dataset> columns;  ///< Nothing: the rows.
    KernelPlan plan = {};
  };
  struct Made;  // the matrices
  /// What making and judging the kernels takes beside what the process holds before.
  struct Cost {
    double matrices = 0;  ///< Bytes.
    double bytes = 0;     ///< All at the peak, the matrices among them.
    double seconds = 0;   ///< By as many threads as there are.
  };

  void load();
  /// What is made with so many of the examples.
  std::vector<Job> jobs(std::int64_t examples) const;
  /// As many examples as were asked for, or as a person waits for; refuses what does not fit.
  void size();
  /// Evenly over the classes, the first of each.
  at::Tensor rows_of(std::int64_t examples) const;
  void check_sizes() const;
  Cost cost() const;
  KernelPoint point(const TensorList& theta) const;
  at::Tensor make(const Job& job, const std::filesystem::path& work);
  Json judge(const Made& made);
  /// The kernel's regression, and what it makes of what is asked.
  void regress(const Made& made, Json& out) const;
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
  std::vector<Job> jobs_;
};

}  // namespace whence::cli
