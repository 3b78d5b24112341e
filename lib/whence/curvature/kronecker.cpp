// Kronecker-factored curvature. J. Martens and R. Grosse, "Optimizing Neural Networks with Kronecker-factored
// Approximate Curvature", ICML 2015; convolutions by R. Grosse and J. Martens, ICML 2016; eigenvalues corrected as in
// T. George et al., "Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis", NeurIPS 2018, which
// R. Grosse et al., "Studying Large Language Model Generalization with Influence Functions", 2023, brought to
// influence.
//
// A layer's block is S (x) A over its weight with the bias as the last column: A the mean of a a' over examples, summed
// over positions, S the mean of the signals' g g'. kfac's eigenvalues are products of the factors'; ekfac measures, in
// the factors' eigenbasis, the mean square of every entry of the gradients, which is the best there is for that basis.
// The penalty adds to the eigenvalues. Of parameters that are no layer's matrix (norms, embeddings, heads tied to them)
// and of layers too wide to decompose, the diagonal is kept.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <map>

#include "whence/core/chunks.h"
#include "whence/core/digest.h"
#include "whence/core/memory.h"
#include "whence/core/output.h"
#include "whence/core/progress.h"
#include "whence/core/rounding.h"
#include "whence/core/symmetric_eigen.h"
#include "whence/core/tensors.h"
#include "whence/curvature/curvature.h"
#include "whence/curvature/detail/layer_rows.h"
#include "whence/curvature/detail/pieces.h"
#include "whence/curvature/detail/statistics.h"
#include "whence/curvature/example_norms.h"
#include "whence/curvature/spectral_operator.h"
#include "whence/data/sealed_safetensors.h"
#include "whence/training/objective_digest.h"
#include "whence/version.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kWidest = 8192;  // whose eigenvectors take minutes
constexpr auto kDiagonal = detail::LayerLayout::Beside::kDiagonal;

struct KroneckerOptions {
  detail::StatisticsOptions statistics;
  std::string dtype = "float32";
  std::string factors = "";
  std::int64_t widest = kWidest;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    detail::StatisticsOptions::fields(self.statistics, field);
    field("dtype", self.dtype, OneOf{"float32|bfloat16"},
          "of the products that fit the factors, which are summed in float64; float64 stays float64");
    field("factors", self.factors, AnyText{},
          "a folder that keeps fitted factors, from which unfinished fits go on; empty: not kept");
    field("widest", self.widest, kAtLeastOne,
          "layers with more inputs or outputs keep a diagonal, as norms and embeddings do");
  }
};

/// Q_S diag(values) Q_A' of one layer.
struct Block {
  detail::LayerLayout::Layer layer;
  at::Tensor left;    ///< Q_S [outputs, outputs]
  at::Tensor right;   ///< Q_A [columns, columns]
  at::Tensor values;  ///< [outputs, columns], of the data's curvature alone
};

/// The diagonal of a parameter outside the blocks.
struct DiagonalPart {
  detail::LayerLayout::Other parameter;
  at::Tensor values;  ///< [entries]
};

struct Factors {
  std::vector<Block> blocks;
  std::vector<DiagonalPart> diagonals;
};

class KroneckerOperator : public SpectralOperator {
 public:
  KroneckerOperator(Factors factors, const at::Tensor& penalty, std::int64_t widest)
      : blocks_(std::move(factors.blocks)),
        diagonals_(std::move(factors.diagonals)),
        widest_(widest),
        size_(penalty.size(0)),
        options_(penalty.options()) {
    for (auto& part : diagonals_) {
      part.values = part.values + penalty.narrow(0, part.parameter.offset, part.parameter.entries);
    }
    for (auto& block : blocks_) {  // the penalty is the same for all of a layer
      const auto added = detail::LayerLayout::gather(block.layer, penalty.unsqueeze(0)).mean();
      block.values = block.values + added;
    }
  }
  std::int64_t size() const override { return size_; }
  at::TensorOptions options() const override { return options_; }
  /// Layers with more inputs or outputs have no block.
  std::int64_t widest() const { return widest_; }

  /// Sum over an example's rows of row' f(A) row: [B] float64.
  at::Tensor quadratic_forms(const detail::RowBatch& batch, const SpectralFunction& f) const {
    auto out = at::zeros({batch.examples()}, options_.dtype(at::kDouble));
    for (std::size_t l = 0; l < blocks_.size(); ++l) {
      const auto& block = blocks_[l];
      const auto& rows = batch.layers()[l];
      const auto signal = at::matmul(rows.signal.to(options_), block.left);
      const auto input = at::matmul(rows.input.to(options_), block.right);
      const auto gains = f(block.values);
      if (input.size(1) == 1) {
        const auto seen = at::mm(input.squeeze(1).square(), gains.t());  // [B, outputs]
        out.add_((signal.squeeze(2).square().sum(1) * seen).sum(1).to(at::kDouble));
      } else {
        in_chunks(batch.examples(), signal.size(1) * gains.numel() * input.element_size() * 2,
                  [&](std::int64_t begin, std::int64_t count) {
                    const auto gradients = at::matmul(signal.narrow(0, begin, count).transpose(2, 3),
                                                      input.narrow(0, begin, count).unsqueeze(1));
                    auto part = out.narrow(0, begin, count);  // of gradients [count, R, outputs, columns]
                    part.add_(gradients.square_().mul_(gains).sum(at::IntArrayRef{1, 2, 3}).to(at::kDouble));
                  });
      }
    }
    for (const auto& rows : batch.others()) {
      const auto part = std::find_if(diagonals_.begin(), diagonals_.end(), [&](const DiagonalPart& known) {
        return known.parameter.name == rows.parameter.name;
      });
      out.add_(rows.quadratic_forms(f(part->values)).to(at::kDouble));
    }
    return out;
  }

 protected:
  at::Tensor do_apply_function(const at::Tensor& x, const SpectralFunction& f) const override {
    auto out = at::zeros_like(x);
    for (const auto& block : blocks_) {
      const auto rotated =
          at::matmul(block.left.t(), at::matmul(detail::LayerLayout::gather(block.layer, x), block.right));
      const auto back = at::matmul(block.left, at::matmul(rotated * f(block.values), block.right.t()));
      detail::LayerLayout::add(block.layer, back, out);
    }
    for (const auto& [parameter, values] : diagonals_) {
      out.narrow(1, parameter.offset, parameter.entries)
          .copy_(x.narrow(1, parameter.offset, parameter.entries) * f(values));
    }
    return out;
  }

 private:
  std::vector<Block> blocks_;
  std::vector<DiagonalPart> diagonals_;
  std::int64_t widest_, size_;
  at::TensorOptions options_;
};

/// A fit in two passes over the data that can stop after any batch and go on from a file.
class Fit {
 public:
  Fit(const char* name, const KroneckerOptions& options, const CurvaturePoint& point, bool corrected)
      : name_(name), options_(options), point_(point), corrected_(corrected) {
    if (!options.factors.empty()) {
      file_ = fs::path(options.factors) / (fingerprint() + ".safetensors");
      if (fs::exists(file_)) {
        load();
      }
      if (phase_ != Phase::kDone) {  // what is whole is only read
        make_folder(file_.parent_path());
        lock_ = OutputLock::beside(file_);
      } else {
        OutputLock::clear_beside(file_);
      }
    }
  }

  Factors run() {
    if (phase_ == Phase::kFactors) {
      pass("factors", [this](const detail::RowBatch& batch) { add_factors(batch); });
      decompose();
      start(corrected_ ? Phase::kEigenvalues : Phase::kDone);
    }
    if (phase_ == Phase::kEigenvalues) {
      pass("eigenvalues", [this](const detail::RowBatch& batch) { add_eigenvalues(batch); });
      start(Phase::kDone);
    }
    Factors out;
    const auto like = options_like();
    for (auto& [layer, state] : layers_) {
      const auto values = corrected_ ? state.values : at::outer(state.left_values, state.right_values);
      out.blocks.push_back({layer, state.left.to(like), state.right.to(like), values.clamp_min(0).to(like)});
    }
    for (const auto& [parameter, squares] : others_) {
      out.diagonals.push_back({parameter, squares.to(like)});
    }
    return out;
  }

 private:
  enum class Phase { kFactors, kEigenvalues, kDone };
  struct State {
    at::Tensor inputs, signals;            ///< Sums of a a' [columns, columns] and g g' [outputs, outputs], float64.
    at::Tensor left, right;                ///< Eigenvectors.
    at::Tensor left_values, right_values;  ///< Eigenvalues.
    at::Tensor values;                     ///< [outputs, columns] float64.
  };

  /// What the factors rest on, as a name: the objective, where it is taken and how it is fitted.
  std::string fingerprint() const {
    Digest digest;
    digest.add(fmt::format("factors {} of whence {}: {} {}", kFormat, WHENCE_VERSION, name_, corrected_));
    KroneckerOptions::fields(options_, [&](std::string_view key, const auto& value, const auto&, std::string_view) {
      if (key != "factors") {
        digest.add(fmt::format("{}={}", key, detail::option_text(value)));
      }
    });
    digest.add(objective_digest(point_.objective));
    for (const auto* tensors : {&point_.theta, &point_.parent}) {
      for (const auto& tensor : *tensors) {
        digest.add(tensor);
      }
    }
    return digest.text().substr(0, 32);
  }

  /// Calls body with the rows of all examples behind those that an earlier run has summed, whatever its batches were.
  /// The second pass finds the rows of the first in memory where they take at most 1 GiB.
  template <class Body>
  void pass(const char* what, const Body& body) {
    const ProgressScope scope(fmt::format("{}'s {}", name_, what));
    const bool whole = done_ == 0;
    const double most = keepable_bytes(kKeptBytes);
    double bytes = 0;
    std::vector<detail::RowBatch> rows;
    const auto one = [&](const detail::RowBatch& batch) {
      bytes += batch.bytes();
      if (bytes > most) {
        rows.clear();
      } else if (whole && kept_.empty()) {
        rows.push_back(batch);
      }
      body(batch);
      done_ += batch.examples();
      if (std::chrono::steady_clock::now() - saved_ > std::chrono::seconds(30)) {
        save();
      }
    };
    try {
      if (kept_.empty()) {
        detail::for_each_rows(name_, options_.statistics, point_, one, options_.widest, done_);
        kept_ = std::move(rows);
      } else {
        std::for_each(kept_.begin(), kept_.end(), one);
      }
    } catch (const Interrupted&) {
      save();
      throw;
    }
    examples_ = done_;
  }
  void start(Phase phase) {
    phase_ = phase;
    done_ = 0;
    save();
  }

  at::TensorOptions options_like() const { return algebra_options(point_.theta.front().options()); }
  at::ScalarType working_type(const at::Tensor& x) const {
    return options_.dtype == "bfloat16" && x.scalar_type() == at::kFloat ? at::kBFloat16 : x.scalar_type();
  }
  State& state_of(const detail::LayerLayout::Layer& layer) {
    const auto [found, is_new] = place_of_layer_.try_emplace(layer.name, layers_.size());
    return is_new ? layers_.emplace_back(layer, State{}).second : layers_[found->second].second;
  }
  static void accumulate(at::Tensor& sum, const at::Tensor& part) {
    const auto wide = part.to(at::kDouble);
    sum = sum.defined() ? sum + wide : wide;
  }

  void add_factors(const detail::RowBatch& batch) {
    for (const auto& rows : batch.layers()) {
      auto& state = state_of(rows.layer);
      const auto type = working_type(rows.input);
      const auto a = rows.input.reshape({-1, rows.layer.columns()}).to(type);
      auto signal = rows.signal;  // the mean over an example's positions
      signal = rows.lengths.defined() ? signal / rows.lengths.clamp_min(1).sqrt().view({-1, 1, 1, 1})
                                      : signal / std::sqrt(static_cast<double>(rows.input.size(1)));
      const auto g = signal.reshape({-1, rows.layer.outputs}).to(type);
      accumulate(state.inputs, at::mm(a.t(), a));
      accumulate(state.signals, at::mm(g.t(), g));
    }
    for (const auto& rows : batch.others()) {
      auto found = std::find_if(others_.begin(), others_.end(),
                                [&](const auto& known) { return known.first.name == rows.parameter.name; });
      if (found == others_.end()) {
        found = others_.insert(others_.end(), {rows.parameter, at::Tensor()});
      }
      accumulate(found->second, rows.squares());
    }
  }
  /// A is a mean over examples; the signals carry their share of the data already.
  void decompose() {
    ProgressScope scope(fmt::format("eigenvectors of {}'s factors", name_), static_cast<std::int64_t>(layers_.size()));
    std::int64_t done = 0;
    for (auto& [layer, state] : layers_) {
      const auto like = options_like();
      scope.at(++done, fmt::format("{} [{}, {}]", layer.name, layer.outputs, layer.columns()));
      check_interruption();
      const auto [right_values, right] = symmetric_eigen((state.inputs / static_cast<double>(examples_)).to(like),
                                                         fmt::format("second moment of {}'s inputs", layer.name));
      const auto [left_values, left] =
          symmetric_eigen(state.signals.to(like), fmt::format("second moment of {}'s signals", layer.name));
      state.right_values = right_values.clamp_min(0);
      state.left_values = left_values.clamp_min(0);
      state.right = right.contiguous();  // as they are read back
      state.left = left.contiguous();
      state.inputs = state.signals = at::Tensor();
    }
  }
  void add_eigenvalues(const detail::RowBatch& batch) {
    for (const auto& rows : batch.layers()) {
      auto& state = state_of(rows.layer);
      const auto type = working_type(rows.input);
      detail::LayerRows cast{rows.layer, rows.examples, rows.input.to(type), rows.signal.to(type)};
      accumulate(state.values, detail::squared_gradients(cast, state.left.to(type), state.right.to(type)));
    }
  }

  void save() {
    saved_ = std::chrono::steady_clock::now();
    if (file_.empty()) {
      return;
    }
    ParameterSet tensors;
    for (const auto& [layer, state] : layers_) {
      for (const auto& [part, tensor] : parts(state)) {
        if (tensor->defined()) {
          tensors.add(fmt::format("{}.{}", layer.name, part), tensor->cpu().contiguous());
        }
      }
    }
    for (const auto& [parameter, squares] : others_) {
      tensors.add(fmt::format("{}.squares", parameter.name), squares.cpu().contiguous());
    }
    write_sealed(file_, tensors,
                 {{"phase", std::to_string(static_cast<int>(phase_))},
                  {"examples", std::to_string(done_)},
                  {"curvature", name_}});
  }
  void load() {
    const auto [tensors, metadata] = read_sealed(file_);
    const auto phase = metadata_number<std::int64_t>(metadata, "phase", file_);
    done_ = metadata_number<std::int64_t>(metadata, "examples", file_);
    if (phase > static_cast<std::int64_t>(Phase::kDone) || done_ > point_.objective.data().size()) {
      throw DataError(fmt::format("{}: phase {} after {} of {} examples, which is no fit's", file_.string(), phase,
                                  done_, point_.objective.data().size()));
    }
    phase_ = static_cast<Phase>(phase);
    const auto layout = detail::trained_layout(point_, kDiagonal, options_.widest);
    for (const auto& other : layout ? layout->others() : std::vector<detail::LayerLayout::Other>{}) {
      const auto key = fmt::format("{}.squares", other.name);
      if (tensors.contains(key)) {
        others_.emplace_back(other, tensors.at(key).clone().to(point_.theta.front().device()));
      }
    }
    for (const auto& layer : layout ? layout->layers() : std::vector<detail::LayerLayout::Layer>{}) {
      auto& state = state_of(layer);
      for (auto& [part, tensor] : parts(state)) {
        const auto key = fmt::format("{}.{}", layer.name, part);
        if (tensors.contains(key)) {
          const std::string_view of = part;
          const auto rows = of == "inputs" || of.starts_with("right") ? layer.columns() : layer.outputs;
          const auto shape =
              of.ends_with("-values") ? std::vector{rows} : std::vector{rows, of == "values" ? layer.columns() : rows};
          if (tensors.at(key).sizes() != shape) {
            throw DataError(fmt::format("{}: {} has the shape [{}], expected [{}]", file_.string(), key,
                                        fmt::join(tensors.at(key).sizes(), ", "), fmt::join(shape, ", ")));
          }
          *const_cast<at::Tensor*>(tensor) = tensors.at(key).clone().to(point_.theta.front().device());
        }
      }
      const bool started = phase_ == Phase::kFactors || (state.left.defined() && state.right.defined());
      if (!started || (phase_ == Phase::kDone && corrected_ && !state.values.defined())) {
        throw DataError(fmt::format("{}: {} lacks a part", file_.string(), layer.name));
      }
    }
  }
  static std::vector<std::pair<const char*, const at::Tensor*>> parts(const State& s) {
    return {{"inputs", &s.inputs}, {"signals", &s.signals},         {"left", &s.left},
            {"right", &s.right},   {"left-values", &s.left_values}, {"right-values", &s.right_values},
            {"values", &s.values}};
  }

  static constexpr double kKeptBytes = 1 << 30;
  static constexpr int kFormat = 3;  // of the files: 1 more for each change of what they hold or of how it is computed
  const char* name_;
  const KroneckerOptions& options_;
  const CurvaturePoint& point_;
  bool corrected_;
  std::vector<detail::RowBatch> kept_;
  fs::path file_;
  OutputLock lock_;
  Phase phase_ = Phase::kFactors;
  std::int64_t done_ = 0, examples_ = 0;
  std::chrono::steady_clock::time_point saved_ = std::chrono::steady_clock::now();
  std::vector<std::pair<detail::LayerLayout::Layer, State>> layers_;
  std::map<std::string, std::size_t> place_of_layer_;  ///< By name: each group of a depthwise convolution is a layer.
  std::vector<std::pair<detail::LayerLayout::Other, at::Tensor>> others_;
};

class Kronecker : public Curvature {
 public:
  Kronecker(const char* name, KroneckerOptions options, bool corrected)
      : name_(name), options_(std::move(options)), corrected_(corrected) {}

  OperatorPtr operator_at(const CurvaturePoint& point) const override {
    auto penalty = detail::penalty_diagonal(point);
    return std::make_shared<KroneckerOperator>(Fit(name_, options_, point, corrected_).run(), std::move(penalty),
                                               options_.widest);
  }

  at::Tensor mixed_product(const CurvaturePoint& point, const at::Tensor& v) const override {
    return detail::statistics_mixed_product(options_.statistics, point, v);
  }
  void check(const CurvaturePoint& point, bool mixed) const override {
    detail::check_statistics(name_, options_.statistics, point, mixed, options_.widest);
  }
  CurvatureFamily family() const override { return detail::statistics_family(options_.statistics); }
  std::string name() const override { return name_; }
  bool factored() const override { return true; }

 private:
  const char* name_;
  KroneckerOptions options_;
  bool corrected_;
};

class Kfac : public Kronecker {
 public:
  explicit Kfac(KroneckerOptions options) : Kronecker("kfac", std::move(options), false) {}
};
class Ekfac : public Kronecker {
 public:
  explicit Ekfac(KroneckerOptions options) : Kronecker("ekfac", std::move(options), true) {}
};

}  // namespace

bool factored_by_layers(const CurvaturePoint& point) {
  return point.objective.has_gauss_newton() && detail::trained_layout(point, kDiagonal, kWidest).has_value();
}

bool has_exact_forms(const CurvaturePoint& point) {
  const auto& data = point.objective.data();
  const auto layout = detail::trained_layout(point, kDiagonal, kWidest);
  if (!data.is_text() || !layout) {
    return true;
  }
  Tape tape;
  point.objective.output(detach(point.theta), detach(point.parent), data.batch(0, 1), &tape);
  return std::none_of(tape.entries.begin(), tape.entries.end(), [&](const TapeEntry& entry) {
    return entry.kind == TapeEntry::Kind::kLinear && !entry.made_by &&
           std::any_of(layout->others().begin(), layout->others().end(),
                       [&](const auto& other) { return other.name == entry.weight; });
  });
}

std::function<at::Tensor(const Batch&)> kronecker_forms(const CurvaturePoint& point,
                                                        std::shared_ptr<const SpectralOperator> factors,
                                                        SpectralFunction f) {
  const auto kronecker = std::dynamic_pointer_cast<const KroneckerOperator>(std::move(factors));
  if (!kronecker) {
    return {};
  }
  const auto layout = *detail::trained_layout(point, kDiagonal, kronecker->widest());
  const auto merged = point.objective.merge(detach(point.theta), detach(point.parent));
  const auto choice = detail::RowChoice{detail::RowKind::kEmpirical};
  return [point, kronecker, layout, merged, choice, f = std::move(f)](const Batch& batch) {
    const detail::RowBatch rows(point.objective, merged, batch, choice, layout, false);
    const auto n = static_cast<double>(point.objective.data().size());  // the rows carry sqrt(1/N)
    return kronecker->quadratic_forms(rows, f) * n;
  };
}

std::function<at::Tensor(const Batch&)> ekfac_example_norms(const CurvaturePoint& point, SpectralFunction f) {
  const auto curvature = create<Curvature>("ekfac")->operator_at(point);
  auto forms = kronecker_forms(point, std::dynamic_pointer_cast<const SpectralOperator>(curvature), std::move(f));
  return [forms = std::move(forms)](const Batch& batch) { return forms(batch).sqrt(); };
}

WHENCE_METHOD(Curvature, kfac, Kfac, KroneckerOptions)
WHENCE_METHOD(Curvature, ekfac, Ekfac, KroneckerOptions)

}  // namespace whence
