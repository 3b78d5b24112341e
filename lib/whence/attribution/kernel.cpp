// Scores of a fine-tune from its kernel alone. S. Malladi et al., "A Kernel-Based View of Language Model Fine-Tuning",
// ICML 2023: the fine-tune as the fit of the model linear in what it trains (kernels/regime_fit.h), whose derivatives
// in the examples' weights, self-influence and leave-one-outs are closed forms of the kernel (formulas.md 3 and 4).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "whence/attribution/started.h"
#include "whence/core/memory.h"
#include "whence/core/rounding.h"
#include "whence/core/tensors.h"
#include "whence/kernels/kernel_blocks.h"
#include "whence/kernels/parameter_filter.h"
#include "whence/kernels/regime.h"
#include "whence/kernels/regime_fit.h"

namespace whence {
namespace {

struct KernelMethodOptions {
  std::string kernel = "entk";
  std::string at = "auto";
  std::string filter = "all";
  double ridge = 0;
  bool leave_one_out = false;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("kernel", self.kernel, OneOf{"entk|signgd|a-signgd"}, "entk for fine-tunes by SGD, the others for Adam");
    field("at", self.at, OneOf{"auto|start|end"}, "where the kernel is taken; auto: the start where that is known");
    field("filter", self.filter, AnyText{}, "in which trained parameters: the words of whence kernel --filter");
    field("ridge", self.ridge, kAtLeastZero,
          "times the mean eigenvalue of the kernel over N; 0: the one whose fit comes nearest to the fine-tune, and at "
          "the end 1");
    field("leave-one-out", self.leave_one_out, kAny,
          "scores whose removals are the exact leave-one-outs of the kernel's fit, not derivatives in weights");
  }
};

using Starts = std::map<std::string, StageStart>;

/// Rows of a matrix that directions hold: the scores themselves.
class RowScorer : public Scorer {
 public:
  RowScorer(at::Tensor rows, at::ScalarType dtype) : rows_(std::move(rows)), dtype_(algebra_type(dtype)) {}
  at::Tensor scores(const Batch& batch) const override {
    return rows_.index_select(1, batch.rows.to(rows_.device())).to(dtype_);
  }

 private:
  at::Tensor rows_;
  at::ScalarType dtype_;
};

class KernelSource : public TestedSource {
 public:
  KernelSource(const Chain& chain, KernelMethodOptions options, Starts starts)
      : chain_(chain),
        options_(std::move(options)),
        starts_(std::move(starts)),
        kernel_(create<TangentKernel>(options_.kernel)),
        products_(create<Attributor>("grad-dot")->prepare(chain_, {})) {}

  void check(const std::vector<std::size_t>& stages, Measurement, Normalization normalization) const override {
    if (normalization != Normalization::kNone) {
      throw InvalidArgument("normalize = " + std::string(to_string(normalization)) +
                            " with kernel, whose scores are in the measurement's unit: use influence");
    }
    const auto& at = last();
    const auto kind = at.objective.data().target_kind();
    if (at.objective.inner() != nullptr || kind == TargetKind::kNextTokens || kind == TargetKind::kMaskedTokens) {
      throw InvalidArgument(fmt::format("stage {}: a kernel is of outputs of an example, and here {}: use influence",
                                        at.name,
                                        at.objective.inner() != nullptr ? "there are none" : "tokens are predicted"));
    }
    if (options_.at == "start" && start() == nullptr) {
      throw InvalidArgument(fmt::format("kernel: option at = start: {}", unknown_start()));
    }
    const auto& data = at.objective.data();
    const auto size = static_cast<double>(data.size()) * static_cast<double>(data.outputs());
    constexpr double kMatrices = 6, kMost = 8e9;
    const double needed = kMatrices * 8 * size * size, most = std::min(kMost, memory_limit());
    if (needed > most) {
      throw InvalidArgument(fmt::format(
          "stage {}: the kernel of {} examples of {} outputs takes {:.1f} GB, expected at most {:.1f}: a limit in its "
          "train table, or another method",
          at.name, data.size(), data.outputs(), needed / 1e9, most / 1e9));
    }
    if (stages.front() + 1 < chain_.size() && start() != nullptr) {
      const auto& before = chain_[chain_.size() - 2];
      if (before.objective.merge(before.theta, before.parent).additions()) {
        throw InvalidArgument(
            fmt::format("stage {}: the kernel of {} is carried on to what a stage hands on as its own weights, and "
                        "this one adds to "
                        "them: use influence",
                        before.name, at.name));
      }
    }
  }

  void make_ready(const std::vector<std::size_t>& /*stages*/) override { fitted(); }

  std::vector<QueryDirections> directions(const QueryBlock& queries, const std::vector<std::size_t>& stages,
                                          const Progress& progress) override {
    const auto& made = fitted(progress);
    const auto asked = queries.data.take(at::arange(queries.begin, queries.end));
    const auto point = point_at(made.theta);
    const auto rows = flat(kernel_of(*kernel_, point, asked, &last().objective.data(), kernel_limits(), progress));
    const auto batch = asked.to(at::kDouble, at::kCPU).batch(0, asked.size());
    const auto of_queries = start_of(made, rows, outputs_at(point, asked));
    const auto outputs = made.fit.predict(rows, of_queries);
    std::vector<QueryDirections> out(chain_.size());
    if (stages.back() + 1 == chain_.size()) {
      out.back().points = {
          Directions{{"scores", options_.leave_one_out ? removals(queries, batch, rows, of_queries, outputs, progress)
                                                       : derivatives(queries, batch, rows, outputs)}}};
    }
    if (stages.front() + 1 < chain_.size()) {
      carry(queries, asked, rows, slope(queries, batch, outputs), stages, progress, out);
    }
    return out;
  }

  std::unique_ptr<Scorer> scorer(std::size_t stage, const QueryDirections& directions,
                                 const Progress& progress) override {
    if (stage + 1 < chain_.size()) {
      return products_->scorer(stage, directions, progress);
    }
    return std::make_unique<RowScorer>(directions.points.front().values().front().to(at::kCPU),
                                       last().theta.front().scalar_type());
  }
  at::Tensor example_norms(std::size_t, const Batch& batch, Normalization) override {
    return at::ones({batch.size()}, at::kDouble);
  }
  /// Of every example at once: the kernel's own rows are the queries'.
  std::function<at::Tensor(const Batch&)> self_scorer() override {
    if (chain_.size() > 1) {
      return {};
    }
    const auto& data = last().objective.data();
    const auto scores = [this, &data] {
      const auto& made = fitted();
      const auto of_data = data.to(at::kDouble, at::kCPU);
      const QueryBlock all{data, Measurement::kLoss, 0, data.size()};
      const auto outputs = made.fit.outputs();
      const auto batch = of_data.batch(0, data.size());
      if (options_.leave_one_out) {
        return removals(all, batch, made.gram, made.start, outputs, {}).diagonal().clone();
      }
      return derivatives(all, batch, made.gram, outputs).diagonal().clone();
    }();
    return [scores](const Batch& batch) { return scores.index_select(0, batch.rows); };
  }

  std::vector<std::string> warnings(const std::vector<std::size_t>& /*stages*/) override {
    const auto& made = fitted();
    const auto& at = last();
    if (!made.at_start) {
      return {};
    }
    const auto moved = linearise(at.objective, *start(), at.theta, at.parent, at.objective.data());
    const double linear = share_of_move(moved.start, moved.linearised, moved.end),
                 fit = share_of_move(made.start, made.fit.outputs(), made.end);
    const auto told = [&](const char* what, double share) {
      return fmt::format(
          "stage {}: not in the kernel regime: {} makes {:.0f} % of what the fine-tune did to its examples' outputs, "
          "expected more than {:.0f} %: these are the kernel's scores, not the fine-tune's; whence kernel tells more",
          at.name, what, 100 * share, 100 * kLinearRecovers);
    };
    if (linear <= kLinearRecovers) {
      return {told("its linearisation", linear)};
    }
    return fit <= kLinearRecovers
               ? std::vector<std::string>{told(fmt::format("the fit by its {} kernel", options_.kernel).c_str(), fit)}
               : std::vector<std::string>{};
  }
  std::vector<std::string> notes(const std::vector<std::size_t>& /*stages*/) override {
    const auto& made = fitted();
    return made.at_start ? std::vector<std::string>{}
                         : std::vector<std::string>{fmt::format(
                               "stage {}: its kernel is taken at the end of training{}", last().name,
                               options_.at == "end" ? "" : ", since the start is not known: " + unknown_start())};
  }

  /// Of the solves at the stages before.
  std::vector<StageEvidence> evidence() override {
    auto out = adjoint_ ? adjoint_->evidence() : std::vector<StageEvidence>();
    out.resize(adjoint_ ? chain_.size() : 0);
    return out;
  }
  std::vector<std::string> parameters(std::size_t stage) const override { return products_->parameters(stage); }
  MethodCost cost(std::size_t stage, std::int64_t query_block) const override {
    const auto& data = last().objective.data();
    const auto outputs = static_cast<double>(data.outputs()), size = static_cast<double>(data.size()) * outputs;
    auto out = products_->cost(stage, query_block);
    out.passes_once = outputs;
    out.passes_a_block = outputs;
    out.gradients_a_query = outputs;
    out.bytes += 6 * 8 * size * size;
    out.bytes_a_query = std::max(out.bytes_a_query, 8 * static_cast<double>(data.size()));
    return out;
  }

 private:
  /// The last stage, fitted.
  struct Fitted {
    bool at_start;
    TensorList theta;  ///< Where the kernel is taken.
    at::Tensor gram;   ///< [N C, N C]
    at::Tensor start;  ///< f_0 of the examples: [N, C].
    at::Tensor end;    ///< Their outputs where training ended, of a kernel at its start.
    RegimeFit fit;
  };

  const Stage& last() const { return chain_.back(); }
  const TensorList* start() const {
    const auto found = starts_.find(last().name);
    return found == starts_.end() || found->second.theta.empty() ? nullptr : &found->second.theta;
  }
  std::string unknown_start() const {
    const auto found = starts_.find(last().name);
    return found == starts_.end() || found->second.unknown.empty()
               ? fmt::format("stage {}: nobody told where its training began", last().name)
               : found->second.unknown;
  }
  KernelPoint point_at(const TensorList& theta) const {
    const auto& at = last();
    return {at.objective, theta, at.parent, filtered_parameters(at.objective, theta, at.parent, options_.filter)};
  }
  static at::Tensor flat(const at::Tensor& kernel) {
    return kernel.reshape({kernel.size(0) * kernel.size(1), kernel.size(2) * kernel.size(3)});
  }

  /// f_0 of rows of the kernel, whose outputs at its point are `here`: these, or, at the end, what the fit that has
  /// the end for its answer began with.
  static at::Tensor start_of(const Fitted& made, const at::Tensor& rows, const at::Tensor& here) {
    return made.at_start ? here : here - at::mv(rows, made.fit.coefficients().flatten()).view_as(here);
  }

  Fitted& fitted(const Progress& progress = {}) {
    if (fitted_) {
      return *fitted_;
    }
    const auto& at = last();
    const auto& data = at.objective.data();
    const bool from_start = options_.at != "end" && start() != nullptr;
    const auto& theta = from_start ? *start() : at.theta;
    const auto point = point_at(theta);
    auto gram = flat(kernel_of(*kernel_, point, data, nullptr, kernel_limits(), progress));
    auto outputs = outputs_at(point, data);
    const auto n = static_cast<double>(data.size());
    const double unit = gram.diagonal().mean().item<double>() / n;
    const auto end = from_start ? outputs_at(point_at(at.theta), data) : at::Tensor();
    double ridge = options_.ridge * unit;
    if (ridge == 0) {
      ridge = from_start ? nearest_ridge(gram, outputs, data, at.objective.loss(), end, progress) : unit;
    }
    if (!from_start) {  // the fit that has the fine-tune's own outputs for its answer
      const auto batch = data.to(at::kDouble, at::kCPU).batch(0, data.size());
      const auto slopes = loss_slopes(batch, outputs);
      outputs = outputs + at::mv(gram, slopes.flatten()).view_as(outputs) / (n * ridge);
    }
    RegimeFit fit(gram, outputs, data, at.objective.loss(), ridge);
    return fitted_.emplace(Fitted{from_start, theta, std::move(gram), std::move(outputs), end, std::move(fit)});
  }

  at::Tensor loss_slopes(const Batch& batch, const at::Tensor& outputs) const {
    const at::AutoGradMode with_gradient(true);
    const auto point = outputs.detach().clone().requires_grad_(true);
    return gradient(last().objective.loss().per_example(point, batch).sum(), TensorList{point}).front().detach();
  }
  /// d measurement / d outputs: [K, C].
  at::Tensor slope(const QueryBlock& queries, const Batch& batch, const at::Tensor& outputs) const {
    const at::AutoGradMode with_gradient(true);
    const auto point = outputs.detach().clone().requires_grad_(true);
    const auto values = measure(queries.measurement, last().objective.loss(), point, batch);
    return gradient(values.sum(), TensorList{point}).front().detach();
  }
  /// N d measurement / d w: [K, N].
  at::Tensor derivatives(const QueryBlock& queries, const Batch& batch, const at::Tensor& rows,
                         const at::Tensor& outputs) const {
    const auto n = static_cast<double>(last().objective.data().size());
    return n * (fitted_->fit.weight_derivatives(rows) * slope(queries, batch, outputs).unsqueeze(2)).sum(1);
  }
  /// N times what the measurement loses where an example is left out: [K, N].
  at::Tensor removals(const QueryBlock& queries, const Batch& batch, const at::Tensor& rows, const at::Tensor& start,
                      const at::Tensor& outputs, const Progress& progress) {
    if (!left_out_.defined()) {
      left_out_ = fitted_->fit.leave_one_out(progress);
    }
    const at::NoGradGuard no_gradient;
    const auto& loss = last().objective.loss();
    const auto now = measure(queries.measurement, loss, outputs, batch);
    const auto n = left_out_.size(0);
    auto out = at::empty({outputs.size(0), n}, at::kDouble);
    for (std::int64_t i = 0; i < n; ++i) {
      const auto without = fitted_->fit.predict_without(left_out_.narrow(0, i, 1), rows, start)[0];
      out.select(1, i).copy_(static_cast<double>(n) * (now - measure(queries.measurement, loss, without, batch)));
    }
    return out;
  }

  /// The cotangent of the body that the stage before handed on, its features being fixed: the outputs at the start move
  /// with it, and the fit answers to them (pull_back). Then the adjoint of the stages before, by Gauss-Newton damped by
  /// its mean eigenvalue.
  void carry(const QueryBlock& queries, const Dataset& asked, const at::Tensor& rows, const at::Tensor& slopes,
             const std::vector<std::size_t>& stages, const Progress& progress, std::vector<QueryDirections>& out) {
    InverseOptions damping{.response = Response::kProximalBregman, .relative_damping = 1};
    const InverseProblem problem{create<Curvature>("gauss-newton"), create<Solver>("auto"), damping};
    const auto& made = *fitted_;
    std::vector<StageAdjoint> adjoints;
    if (!made.at_start) {
      const auto& at = last();
      const auto gradients = measurement_gradients(queries.measurement, at, queries.data, queries.begin, queries.end,
                                                   at.objective.merge(at.theta, at.parent).names());
      adjoint(chain_, problem, adjoint_);
      adjoints = adjoint_->sweep(gradients, stages.front(), progress);
    } else {
      const Chain before(chain_.begin(), chain_.end() - 1);
      adjoint(before, problem, adjoint_);
      adjoints = adjoint_->sweep(cotangents(asked, slopes, made.fit.pull_back(rows, slopes)), stages.front(), progress);
    }
    for (auto k = stages.front(); k + 1 < chain_.size(); ++k) {
      out[k] = {{push_forward(chain_[k], adjoints[k].vectors)}, std::move(adjoints[k].summaries)};
    }
  }
  static void adjoint(const Chain& chain, const InverseProblem& problem, std::unique_ptr<Adjoint>& held) {
    if (!held) {
      held = std::make_unique<Adjoint>(chain, problem);
    }
  }

  /// What the body of the stage before is told: <slopes, f_0 of the queries> + <pulls, f_0 of the examples>, as
  /// directions of that stage's model, one a query. `pulls` [K, N, C].
  Directions cotangents(const Dataset& asked, const at::Tensor& slopes, const at::Tensor& pulls) const {
    const auto& at = last();
    const auto& before = chain_[chain_.size() - 2];
    const auto& layout = at.objective.parent_layout();
    const auto merged = before.objective.merge(before.theta, before.parent);
    const at::AutoGradMode with_gradient(true);
    Directions out = merged.each([&](const at::Tensor& value) {
      return at::zeros(direction_shape(asked.size(), value), algebra_options(value.options()));
    });
    const auto add = [&](const Dataset& data, std::int64_t query, const at::Tensor& weights) {  // [rows, C]
      const auto step = at.objective.batch_size();
      for (std::int64_t begin = 0; begin < data.size(); begin += step) {
        const auto batch = data.batch(begin, std::min(data.size(), begin + step));
        const auto parent = leaves(at.parent);
        auto theta = detach(*start());
        for (std::size_t i = 0; i < theta.size(); ++i) {  // what began as the parent's moves with it
          const auto& name = at.objective.trained().names()[i];
          for (std::size_t j = 0; j < layout.size(); ++j) {
            if (layout.names()[j] == name) {
              theta[i] = parent[j];
            }
          }
        }
        const auto output = at.objective.output(theta, parent, batch);
        const auto found =
            gradient((output * weights.narrow(0, begin, batch.size()).to(output.options())).sum(), parent);
        for (std::size_t j = 0; j < layout.size(); ++j) {
          out.at(layout.names()[j])[query] += found[j];
        }
      }
    };
    for (std::int64_t q = 0; q < asked.size(); ++q) {
      check_interruption(q, asked.size());
      add(asked.take(at::tensor({q})), q, slopes.narrow(0, q, 1));
      add(at.objective.data(), q, pulls[q]);
    }
    return out;
  }

  const Chain chain_;
  KernelMethodOptions options_;
  Starts starts_;
  std::unique_ptr<TangentKernel> kernel_;
  std::unique_ptr<ScoreSource> products_;  ///< Scores with directions of earlier stages.
  std::optional<Fitted> fitted_;
  at::Tensor left_out_;
  std::unique_ptr<Adjoint> adjoint_;
};

class KernelAttributor : public StartedAttributor {
 public:
  explicit KernelAttributor(KernelMethodOptions options, Starts starts = {})
      : options_(std::move(options)), starts_(std::move(starts)) {
    parse_parameter_filter(options_.filter);
  }
  bool uses_curvature() const override { return false; }
  Claim claim() const override { return Claim::kRemoval; }
  std::unique_ptr<ScoreSource> prepare(const Chain& chain, const InverseProblem&) const override {
    return std::make_unique<KernelSource>(chain, options_, starts_);
  }
  std::shared_ptr<const Attributor> with_starts(Starts starts) const override {
    return std::make_shared<KernelAttributor>(options_, std::move(starts));
  }

 private:
  KernelMethodOptions options_;
  Starts starts_;
};

}  // namespace

WHENCE_METHOD(Attributor, kernel, KernelAttributor, KernelMethodOptions)

}  // namespace whence
