#include "kernel_run.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "json.h"
#include "memory_limit.h"
#include "query_split.h"
#include "result.h"
#include "say.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/memory.h"
#include "whence/core/operation_count.h"
#include "whence/core/parallel.h"
#include "whence/core/quoted.h"
#include "whence/evaluate/verdict.h"
#include "whence/kernels/parameter_filter.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace {

constexpr double kPatience = 120;              // seconds that a person waits for what was not asked for in numbers
constexpr std::int64_t kMostOutputs = 1024;    // N C, the same
constexpr std::int64_t kFeatureOutputs = 128;  // N C of which features are looked at twice: their mean needs no more,
constexpr std::int64_t kFewestLookedAt = 8;    // of examples at least
constexpr std::int64_t kMostRank = 1024;       // of --ranks, or the widest layer
constexpr std::int64_t kFewestOfAClass = 16;   // examples that no patience takes away
constexpr double kLinearisedPasses = 8;        // times a forward pass, of the linearisation

const std::vector<std::string> kFiles{kMatricesFile, "kernel.json"};

std::vector<std::int64_t> parse_ranks(const std::string& text) {
  std::vector<std::int64_t> out;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto end = std::min(text.find(',', begin), text.size());
    std::int64_t rank = 0;
    if (!detail::read_option(text.substr(begin, end - begin), rank) || rank < 1) {
      throw UsageError(fmt::format("--ranks = {}, expected whole numbers from 1 on: 1,4,16", text));
    }
    out.push_back(rank);
    begin = end + 1;
  }
  return out;
}

std::size_t stage_index(const CommandLine& line, const Pipeline& pipeline) {
  return line.has("stage") ? pipeline.stage_index(line.text("stage")) : pipeline.stages().size() - 1;
}

/// The split that the kernel is of too, for the last stage; empty where there is none.
std::string split_of(const CommandLine& line, const Pipeline& pipeline, std::size_t stage) {
  const bool last = stage + 1 == pipeline.stages().size();
  if (!last && line.has("queries")) {
    throw InvalidArgument(fmt::format("stage {}: queries are of the last stage, {}: leave out --queries",
                                      pipeline.stages()[stage].name, pipeline.stages().back().name));
  }
  const bool asks = line.has("queries") || !pipeline.query_splits().empty();
  return last && asks ? required_query_split(line, pipeline) : "";
}

}  // namespace

KernelRun::KernelRun(const CommandLine& line)
    : line_(line),
      pipeline_(line.required("PIPELINE"), line.run_options()),
      index_(stage_index(line, pipeline_)),
      split_(split_of(line, pipeline_, index_)),
      kernel_(create<TangentKernel>(line.text("kernel"))),
      entk_(create<TangentKernel>("entk")),
      record_(line, pipeline_),
      progress_(terminal_progress(line.flag("quiet"))) {
  if (const auto at = line.text("at"); at != "start" && at != "end") {
    throw UsageError(fmt::format("--at = {}, expected start or end", at));
  }
  const auto solver = line.text("solver") == "auto" ? kernel_->solver() : line.text("solver");
  const auto outputs = line.text("outputs");
  solver_ = create<KernelSolver>(solver);
  if (outputs != "auto" && outputs != "all" && outputs != "difference") {
    throw UsageError(fmt::format("--outputs = {}, expected auto, all or difference", outputs));
  }
  ranks_ = line.has("ranks") ? parse_ranks(line.text("ranks")) : std::vector<std::int64_t>();
  parse_parameter_filter(line.text("filter"));
  auto& options = record_.json()["options"];
  options["stage"] = pipeline_.stages()[index_].name;
  options["queries"] = split_;
  options["limit-queries"] = line.whole("limit-queries", 0);
  options["kernel"] = resolved_spec<TangentKernel>(line.text("kernel"));
  options["at"] = line.text("at");
  options["filter"] = line.text("filter");
  options["outputs"] = outputs;
  options["solver"] = resolved_spec<KernelSolver>(solver);
  options["from-start"] = line.flag("from-start");
  options["ranks"] = ranks_;
}

void KernelRun::load() {
  record_.warn_of_changes(pipeline_);
  chain_ = pipeline_.load(index_ + 1);
  const auto& objective = stage().objective;
  const auto& data = objective.data();
  if (objective.inner() != nullptr || data.target_kind() == TargetKind::kNextTokens ||
      data.target_kind() == TargetKind::kMaskedTokens) {
    throw InvalidArgument(fmt::format(
        "stage {}: a kernel is of outputs of an example, and {}, expected classes (a head, or label-words in the data) "
        "or values",
        stage().name, objective.inner() != nullptr ? "a primed stage has none" : "here tokens are predicted"));
  }
  if (data.target_kind() != TargetKind::kClasses && solver_->classifies() && line_.text("solver") == "auto") {
    solver_ = create<KernelSolver>("kernel-ridge");
    record_.json()["options"]["solver"] = resolved_spec<KernelSolver>("kernel-ridge");
  }
  if (!kernel_->symmetric() && solver_->wants_symmetry()) {
    throw UsageError(
        fmt::format("--solver {} takes a symmetric kernel, and {} is none: leave it out, or type kernel-ridge",
                    line_.text("solver"), line_.text("kernel")));
  }
  auto& outputs = record_.json()["options"]["outputs"];
  if (outputs == "auto") {  // one logit of two classes is what the system of both directions is made for
    outputs = solver_->both_directions() && data.classes().size() == 2 ? "difference" : "all";
  }
  if (outputs == "difference" && data.classes().size() != 2) {
    throw UsageError(fmt::format("--outputs difference is of two classes, and stage {} has {}: leave it out",
                                 stage().name,
                                 data.classes().empty() ? "values" : fmt::format("{}", data.classes().size())));
  }
  outputs_ = outputs == "all" ? model_outputs() : logit_difference();
  start_ = pipeline_.start(index_, Chain(chain_.begin(), chain_.end() - 1));
  names_ = filtered_parameters(objective, stage().theta, stage().parent, line_.text("filter"));
  check_ranks();
  if (!split_.empty()) {
    const auto all = pipeline_.queries(split_, line_.whole("limit-queries", 0));
    queries_ = all;
    if (data.target_kind() == TargetKind::kClasses) {
      check_classes_seen(data.targets().to(at::kCPU), all.targets().to(at::kCPU), data.classes());
    }
  }
  record_.add_inputs(pipeline_, queries_.value_or(Dataset()));
}

TargetKind KernelRun::kind() const {
  const auto held = stage().objective.data().target_kind();
  return held == TargetKind::kClasses ? held : stage().objective.loss().wants();
}

void KernelRun::check_ranks() const {
  const auto& trained = stage().objective.trained().with(stage().theta);
  std::int64_t widest = 1;
  for (const auto& name : names_) {
    const auto& value = trained.at(name);
    widest = std::max({widest, value.size(0), value.numel() / value.size(0)});
  }
  const auto most = std::max(kMostRank, widest);
  for (const auto rank : ranks_) {
    if (rank > most) {
      throw UsageError(fmt::format("--ranks = {}, expected at most {}: the widest layer of {} has {}", rank, most,
                                   stage().name, widest));
    }
  }
}

KernelPoint KernelRun::point(const TensorList& theta) const {
  return {stage().objective, theta, stage().parent, names_, outputs_};
}

at::Tensor KernelRun::rows_of(std::int64_t examples) const {
  const auto& data = stage().objective.data();
  if (examples >= data.size()) {
    return at::arange(data.size());
  }
  if (data.target_kind() != TargetKind::kClasses) {
    return at::arange(examples);
  }
  const auto targets = data.targets().to(at::kCPU).contiguous();
  const auto* label = targets.const_data_ptr<std::int64_t>();
  std::vector<std::vector<std::int64_t>> of_class(data.classes().size());
  for (std::int64_t row = 0; row < data.size(); ++row) {
    of_class[static_cast<std::size_t>(label[row])].push_back(row);
  }
  std::vector<std::int64_t> rows;
  for (std::size_t turn = 0; static_cast<std::int64_t>(rows.size()) < examples; ++turn) {
    for (const auto& members : of_class) {
      if (turn < members.size() && static_cast<std::int64_t>(rows.size()) < examples) {
        rows.push_back(members[turn]);
      }
    }
  }
  std::sort(rows.begin(), rows.end());
  return at::tensor(rows, at::kLong);
}

std::vector<KernelJob> KernelRun::jobs(std::int64_t examples, std::int64_t outputs) const {
  const auto data = stage().objective.data().take(rows_of(examples));
  const auto looked_at = std::min(examples, std::max(kFewestLookedAt, kFeatureOutputs / outputs));
  const auto features = stage().objective.data().take(rows_of(looked_at));
  const auto here = point(at_start() ? start_ : stage().theta);
  const auto options = record_.view()["options"];
  const auto spec = options["kernel"].get<std::string>(), asked = options["outputs"].get<std::string>();
  std::vector<KernelJob> out{{"train", kernel_, spec, here, asked, true, data, {}}};
  if (has_queries()) {
    out.push_back({"queries", kernel_, spec, here, asked, true, *queries_, data});
    if (!kernel_->symmetric()) {
      out.push_back({"flipped", kernel_, spec, here, asked, false, data, *queries_});
    }
  }
  if (!kernel_->plain() || !at_start()) {
    out.push_back({"features-start", entk_, "entk", point(start_), asked, false, features, {}});
  }
  if (!kernel_->plain() || at_start()) {
    out.push_back({"features-end", entk_, "entk", point(stage().theta), asked, false, features, {}});
  }
  const auto limits = kernel_limits();
  for (auto& job : out) {
    job.plan = plan_kernel(*job.kernel, job.point, job.rows, job.columns ? &*job.columns : nullptr, limits);
  }
  return out;
}

void KernelRun::size() {
  const auto& data = stage().objective.data();
  const auto outputs = outputs_at(point(start_), data.take(at::arange(1))).size(1);
  auto examples = line_.whole("examples", 0);
  const bool asked = examples > 0;
  if (!asked) {
    const auto classes = std::max<std::int64_t>(1, static_cast<std::int64_t>(data.classes().size()));
    const auto fewest = std::min(data.size(), kFewestOfAClass * classes);
    examples = std::min(data.size(), std::max(fewest, kMostOutputs / outputs));
    jobs_ = jobs(examples, outputs);
    double seconds = 0;
    for (const auto& job : jobs_) {
      seconds += job.plan.seconds;
    }
    if (seconds > kPatience) {  // the most of which grows with the square
      const auto fewer = static_cast<std::int64_t>(static_cast<double>(examples) * std::sqrt(kPatience / seconds));
      examples = std::max(fewest, fewer);
    }
  }
  examples = std::min(examples, data.size());
  if (jobs_.empty() || jobs_.front().rows.size() != examples) {
    jobs_ = jobs(examples, outputs);
  }
  examples_ = jobs_.front().rows;
  record_.json()["options"]["examples"] = examples;
  check_sizes();
}

void KernelRun::check_sizes() const {
  const auto name = record_.view()["options"]["solver"].get<std::string>();
  const auto n = examples_.size(), c = jobs_.front().plan.outputs;
  if (n < 2) {
    throw InvalidArgument(
        fmt::format("stage {}: {} example, expected at least two: nothing is left without it", stage().name, n));
  }
  if (examples_.target_kind() == TargetKind::kClasses) {
    const auto labels = examples_.targets().to(at::kCPU);
    if (labels.min().item<std::int64_t>() == labels.max().item<std::int64_t>()) {
      throw InvalidArgument(fmt::format("stage {}: all {} examples are of class {}, expected two classes or more",
                                        stage().name, n,
                                        examples_.classes()[static_cast<std::size_t>(labels[0].item<std::int64_t>())]));
    }
    if (has_queries()) {  // fewer examples than the stage has may be of fewer classes
      check_classes_seen(labels, queries_->targets().to(at::kCPU), examples_.classes());
    }
  } else if (solver_->classifies()) {
    throw InvalidArgument(fmt::format("stage {}: the targets are values, and {} tells classes apart: use kernel-ridge",
                                      stage().name, name));
  }
  check_solvable(*solver_, name.substr(0, name.find(':')), n, c);
  const double needed = cost().bytes, left = std::max(0.0, memory_limit() - resident_bytes());
  if (needed > left) {  // most of what examples take grows with their square
    const auto fewer = static_cast<std::int64_t>(0.9 * static_cast<double>(n) * std::sqrt(left / needed));
    throw InvalidArgument(
        fmt::format("{} examples of {} outputs take {}, and --memory-limit leaves {}: --examples {}, "
                    "or a higher limit",
                    n, c, readable_bytes(needed), readable_bytes(left), std::max<std::int64_t>(2, fewer)));
  }
}

KernelRun::Cost KernelRun::cost(const KernelMatrices& kept) const {
  const auto n = examples_.size(), c = jobs_.front().plan.outputs;
  const auto& first = jobs_.front().plan;
  const auto asked = static_cast<double>(has_queries() ? queries_->size() : n);
  Cost out;
  double passes = 0, theta = 0, nominal = 0;
  for (const auto& job : jobs_) {
    out.matrices += job.plan.matrix_bytes;
    if (!kept.contains(job.name)) {
      passes = std::max(passes, job.plan.peak_bytes());
      nominal += job.plan.seconds;
    }
  }
  for (const auto& values : start_) {
    theta += static_cast<double>(values.numel()) * static_cast<double>(values.element_size());
  }
  // the linearisation holds the move and what it is multiplied with, and of a block's pass, which it differentiates
  // once more, the half of what two outputs' kernel holds of it
  const double linearised =
      2 * theta + 4 * first.pass_bytes / static_cast<double>(6 + c) * std::min(asked, static_cast<double>(first.pass));
  out.bytes = out.matrices + std::max({passes, solver_->bytes(n, c), linearised});
  nominal += asked * kLinearisedPasses * first.pass_seconds / static_cast<double>(1 + c);
  constexpr double kFits = 2, kOfDoubles = 2;  // which take twice as long
  nominal += OperationCount{.multiplications = kFits * kOfDoubles * solver_->multiplications(n, c)}.nominal_seconds();
  nominal += ranks_.empty() ? 0 : first.seconds;
  out.seconds = 2 * nominal / static_cast<double>(threads());  // which is that of two cores
  return out;
}

Json KernelRun::plan() {
  load();
  size();
  Json out{{"examples", examples_.size()}, {"of-examples", stage().objective.data().size()}};
  for (const auto& job : jobs_) {
    out["kernels"].push_back({{"name", job.name}, {"text", job.plan.text()}, {"seconds", job.plan.seconds}});
  }
  const auto all = cost();
  out["seconds"] = static_cast<double>(std::clock()) / CLOCKS_PER_SEC + all.seconds;  // it has to come here first
  out["peak-bytes"] = resident_bytes() + all.bytes;
  out["disk-bytes"] = 2 * all.matrices;
  return out;
}

JsonView KernelRun::run(const fs::path& folder) {
  ResultWriter out(folder, kFiles);
  check_kind(out, {line_.command()});
  record_.phase("load");
  load();
  check_spares_inputs(record_.view(), folder, kFiles);
  record_.phase("plan");
  size();
  const auto key = record_.key();
  if (const auto* finished = out.finished(key, kFiles)) {
    record_.repeat(finished->run());
    return JsonView::read(finished->file("kernel.json"));
  }
  for (auto& job : jobs_) {
    job.key = job.kept ? matrix_key(job) : "";
  }
  auto made = kept_matrices(folder, jobs_);
  if (!line_.flag("quiet")) {
    end_progress();
    const auto all = stage().objective.data().size();
    remark("whence: {} examples of {}{}: {} kernel matrices{}, about {}\n",
           examples_.size() < all ? fmt::format("{} of {}", examples_.size(), all) : fmt::format("{}", all),
           stage().name, examples_.size() < all && !line_.given("examples") ? " (--examples N for another number)" : "",
           jobs_.size(), made.empty() ? "" : fmt::format(", {} of them as {} has them", made.size(), folder.string()),
           duration_words(cost(made).seconds));
  }
  record_.phase("kernels", "make kernels");
  const auto kernels = record_.key({"solver", "from-start", "ranks"});  // which another solver can go on from
  const auto work = out.begin(kernels, record_.json());
  for (const auto& job : jobs_) {
    if (!made.contains(job.name)) {
      made[job.name] = make_matrix(job, work, kernels, progress_);
    }
  }
  record_.phase("judge", "test the regime");
  give_back_freed_memory();  // of passes, whose buffers are of no use to a solver
  auto json = judge(made);
  record_.phase("");
  json["seconds"] = record_.json()["seconds"];
  json["peak-bytes"] = peak_bytes();
  json["warnings"] = record_.json()["warnings"];
  write_matrices(out.place(kMatricesFile), jobs_, made, key);
  write_text(out.place("kernel.json"), json_text(json, 1) + "\n");
  record_.json()["verdict"] = json["verdict"];
  out.abandon();
  out.publish(key, record_.json());
  return {json, "kernel.json"};
}

}  // namespace whence::cli
