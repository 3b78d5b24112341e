#include "whence/stages/choice.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "whence/core/error.h"
#include "whence/core/rounding.h"
#include "whence/curvature/example_norms.h"
#include "whence/models/addition.h"
#include "whence/solvers/spectrum.h"
#include "whence/stages/cost.h"

namespace whence {
namespace {

/// Where solves would take longer, ekfac is taken: the first answer is to come in minutes. In nominal seconds, as all
/// times that anything is chosen by: what a busy machine takes must not decide what is answered.
constexpr double kPatienceSeconds = 120;
/// The same at a minimum, where the Hessian is worth waiting for and estimates, which take every solve for a hard one,
/// are far too long: another choice on a slow or busy machine would be a worse answer there.
constexpr double kPatienceAtMinimumSeconds = 1800;
/// Of looking for negative curvature.
constexpr std::int64_t kProbes = 2, kProbeSteps = 20;
constexpr double kProbeSeconds = 20;
/// Of 1 / training time, what factors are damped by: docs/defaults.md.
constexpr double kOfFactors = 0.3;

class Chooser {
 public:
  Chooser(const Chain& chain, std::size_t first, std::int64_t queries, const InverseRequest& request,
          const Progress& progress)
      : chain_(chain),
        first_(first),
        queries_(queries),
        request_(request),
        progress_(progress),
        solver_(create<Solver>(request.solver)) {}

  InverseChoice choose() {
    out_.options = request_.options;
    out_.options.damping = request_.damping.value_or(0);
    out_.options.relative_damping = request_.relative_damping.value_or(0);
    out_.stationarity.resize(chain_.size());
    for (auto k = first_; k < chain_.size(); ++k) {
      const auto& stage = chain_[k];
      const ProgressScope scope(progress_, {"check " + stage.name, 0, 0, ""});
      out_.stationarity[k] = stationarity(stage);
    }
    choose_curvature();
    family_ = create<Curvature>(out_.curvature)->family();
    if (request_.training_damping) {
      damp_by_training();
    }
    choose_damping();
    choose_solver();
    if (request_.curvature_is_open() || request_.solver_is_open() || request_.damping_is_open()) {
      out_.reason = fmt::format("{}", fmt::join(reasons_, "; "));
      tell_otherwise();
    }
    return std::move(out_);
  }

 private:
  bool is_damped() const { return request_.options.effective_inversion() == Inversion::kDamped; }
  /// Whether the Hessian would be refused.
  bool family_is_fixed() const {
    return request_.options.response == Response::kProximalBregman || solver_->needs().rows || solver_->family();
  }
  std::string_view solver_name() const { return find_method<Solver>(request_.solver).first->name; }

  /// The stage from `first` on that is farthest from a minimum.
  std::size_t farthest() const {
    std::size_t worst = first_;
    for (auto k = first_; k < chain_.size(); ++k) {
      if (out_.stationarity[k]->relative_gradient_norm > out_.stationarity[worst]->relative_gradient_norm) {
        worst = k;
      }
    }
    return worst;
  }
  bool at_minimum() const { return out_.stationarity[farthest()]->relative_gradient_norm <= kFarFromMinimum; }
  std::string gradient_text() const {
    const auto k = farthest();
    return fmt::format("|gradient| {:.2g} of an example's{}", out_.stationarity[k]->relative_gradient_norm,
                       chain_.size() > 1 ? " at stage " + chain_[k].name : "");
  }

  void choose_curvature() {
    if (!request_.curvature_is_open()) {
      out_.curvature = request_.curvature;
      return;
    }
    const auto& options = request_.options;
    const auto primed = std::find_if(chain_.begin() + static_cast<std::ptrdiff_t>(first_), chain_.end(),
                                     [](const Stage& stage) { return stage.objective.inner() != nullptr; });
    if (primed != chain_.end()) {
      take("hessian", fmt::format("stage {} is primed, whose objective has no other curvature", primed->name));
      look_for_negative_curvature("hessian");
    } else if (const auto whole =
                   std::find_if(chain_.begin() + static_cast<std::ptrdiff_t>(first_), chain_.end(),
                                [](const Stage& stage) { return !stage.objective.loss().is_of_output(); });
               whole != chain_.end() && solver_->family() != CurvatureFamily::kEmpiricalFisher) {
      take("hessian",
           fmt::format("stage {} has its loss from the model, and no output for a Gauss-Newton", whole->name));
      look_for_negative_curvature("hessian");
    } else if (solver_->family() == CurvatureFamily::kEmpiricalFisher) {
      take("empirical-fisher", fmt::format("it is what solver {} approximates", solver_name()));
    } else if (solver_->family() || solver_->needs().rows) {
      take("gauss-newton", fmt::format("solver {} is for its family", solver_name()));
    } else if (options.response == Response::kProximalBregman) {
      take_gauss_newton("response proximal-bregman is the Gauss-Newton chain");
    } else if (options.response == Response::kSegment) {
      take_gauss_newton("descent in segments grows without bound along negative curvature");
    } else if (options.inversion == Inversion::kFiltered && !request_.indefinite) {
      take("hessian", "inversion filtered takes negative curvature as it is");
    } else if (!at_minimum()) {
      take_gauss_newton(fmt::format("the checkpoint is no minimum ({})", gradient_text()));
    } else if (request_.indefinite) {
      take_gauss_newton("a solve with the Hessian met negative curvature");
    } else if (const double seconds = solver_seconds("hessian"); seconds > kPatienceAtMinimumSeconds) {
      take_gauss_newton(fmt::format("solving with the Hessian would take about {}", seconds_text(seconds)));
    } else if (look_for_negative_curvature("hessian"); negative_stage_) {
      take_gauss_newton(fmt::format("the Hessian has negative curvature ({:.2g} at stage {})", smallest_,
                                    chain_[*negative_stage_].name));
    } else {
      take("hessian",
           fmt::format("the checkpoint is a minimum ({}) and no negative curvature was met", gradient_text()));
    }
  }

  void take(const std::string& curvature, const std::string& reason) {
    out_.curvature = curvature;
    reasons_.push_back(reason);
  }
  void take_gauss_newton(const std::string& reason) {
    take("gauss-newton", reason);
    const double seconds = solver_seconds("gauss-newton");
    if (request_.solver_is_open() && seconds > kPatienceSeconds && takes_ekfac()) {
      out_.curvature = "ekfac";
      reasons_.push_back(fmt::format("cg with gauss-newton would take about {}", seconds_text(seconds)));
    }
  }
  bool takes_ekfac() const {
    for (auto k = first_; k < chain_.size(); ++k) {
      const auto& stage = chain_[k];
      const bool preconditioned = std::any_of(stage.trajectory.begin(), stage.trajectory.end(),
                                              [](const auto& s) { return !s.preconditioner.empty(); });
      if ((request_.options.response == Response::kSegment && preconditioned) ||
          !factored_by_layers({stage.objective, stage.theta, stage.parent})) {
        return false;
      }
    }
    return true;
  }

  void choose_damping() {
    const bool exact_hessian = family_ == CurvatureFamily::kHessian && is_damped() && solver_->is_exact();
    if (!request_.damping_is_open()) {
      if (exact_hessian && !request_.curvature_is_open()) {
        look_for_negative_curvature(out_.curvature);
        check_asked_damping();
      }
      return;
    }
    if (solver_->has_own_damping() || request_.options.response == Response::kSegment ||
        request_.options.inversion == Inversion::kPseudo) {
      return;  // the solver's own, or none
    }
    if (request_.options.inversion == Inversion::kFiltered) {
      damp_by_default();
      return;
    }
    if (family_ == CurvatureFamily::kHessian) {
      if (!request_.curvature_is_open() && exact_hessian) {
        look_for_negative_curvature(out_.curvature);
      }
      if (negative_stage_) {
        out_.options.damping = sufficient_damping();
        reasons_.push_back(
            fmt::format("the Hessian has negative curvature ({:.2g} at stage {}), which the damping outweighs",
                        smallest_, chain_[*negative_stage_].name));
      } else if (!at_minimum()) {
        damp_by_default();
        reasons_.push_back(fmt::format("the checkpoint is no minimum ({})", gradient_text()));
      } else if (request_.indefinite && request_.curvature_is_open()) {  // of a primed stage
        damp_by_default();
        reasons_.emplace_back("a solve with the Hessian met negative curvature");
      } else if (needs_damping()) {
        take_needed_damping();
      } else if (flat_share_ > 0) {
        out_.options.relative_damping = rounded_up(1.5 * flat_share_);
        reasons_.emplace_back("directions of a tuning that change nothing are damped");
      }
      return;
    }
    const bool decayed = std::all_of(chain_.begin() + static_cast<std::ptrdiff_t>(first_), chain_.end(),
                                     [](const Stage& s) { return s.objective.weight_decay() > 0; });
    if (!request_.curvature_is_open() && at_minimum() && decayed && needs_damping()) {
      take_needed_damping();
      return;
    }
    if (!request_.curvature_is_open() && at_minimum() && decayed) {
      reasons_.push_back(
          fmt::format("the checkpoint is a minimum ({}) of an objective with weight decay", gradient_text()));
      return;
    }
    damp_by_default();
  }

  void damp_by_default() {
    out_.options.relative_damping = kRelativeDamping;
    damp_by_training();
  }
  /// A part of 1 / time is enough for factors, which spread a curvature's few large eigenvalues: a damping of its own.
  void damp_by_training() {
    const bool factored = create<Curvature>(out_.curvature)->factored() || solver_->family().has_value();
    auto& least = out_.options.least_damping;
    least.assign(chain_.size(), 0);
    for (auto k = first_; k < chain_.size(); ++k) {
      least[k] = (factored ? kOfFactors : 1) * inverse_time(k);
    }
    if (std::all_of(least.begin(), least.end(), [](double one) { return one == 0; })) {
      least.clear();
    }
  }
  double inverse_time(std::size_t k) const {
    const auto& stage = chain_[k];
    const auto& at = *out_.stationarity[k];
    return stage.inverse_time > 0 || !stage.optimizer
               ? stage.inverse_time
               : stage.optimizer->estimated_inverse_time({stage.objective.terms(), at.gradient_norm,
                                                          at.data_gradient_norm, stage.objective.trained().entries()});
  }
  /// Whether the solver's own approximation is singular, or nearly, whatever the curvature.
  bool needs_damping() const {
    const bool foreign = solver_->family() && solver_->family() != family_;
    return foreign ||
           std::any_of(chain_.begin() + static_cast<std::ptrdiff_t>(first_), chain_.end(),
                       [&](const Stage& s) { return solver_->needs_damping(s.objective.trained().entries()); });
  }
  void take_needed_damping() {
    damp_by_default();
    reasons_.push_back(fmt::format("solver {} needs a damping", solver_name()));
  }

  void choose_solver() {
    out_.solver =
        request_.solver_is_open() ? fmt::format("auto:relative-tolerance={:g}", kRankingTolerance) : request_.solver;
  }

  /// Nominal seconds that the solver is expected to take with a curvature by products of two gradients, over the chain.
  double solver_seconds(const std::string& curvature) {
    double total = 0;
    for (auto k = first_; k < chain_.size(); ++k) {
      const auto products =
          product_count(request_.solver, curvature, chain_[k], request_.options.effective_inversion());
      const double others = static_cast<double>(queries_ - 1) * share_of_another(curvature, chain_[k]);
      total += solve_seconds(products, 1 + others, pass_seconds(k));
    }
    return total;
  }
  /// What another right-hand side adds to a product, in what the first one's takes: by rows a block shares its passes,
  /// and what is left are multiplications with what is trained.
  static double share_of_another(const std::string& curvature, const Stage& stage) {
    if (!create<Curvature>(curvature)->is_semidefinite() || !has_rows({stage.objective, stage.theta, stage.parent})) {
      return 1;
    }
    const auto trained = static_cast<double>(stage.objective.trained().entries());
    return std::min(1.0, trained / static_cast<double>(stage.objective.merge(stage.theta, stage.parent).entries()));
  }
  double pass_seconds(std::size_t k) {
    if (passes_.empty()) {
      passes_.assign(chain_.size(), NAN);
    }
    if (std::isnan(passes_[k])) {
      passes_[k] = nominal_gradient_seconds(chain_[k]);
    }
    return passes_[k];
  }

  /// Ritz values of the stages' Hessians: a few products, since what a solve would stumble over shows early.
  void look_for_negative_curvature(const std::string& curvature) {
    const auto hessian = create<Curvature>(curvature);
    for (auto k = first_; k < chain_.size(); ++k) {
      const auto& stage = chain_[k];
      const auto a = hessian->operator_at({stage.objective, stage.theta, stage.parent});
      const double product = kPassesAProduct * pass_seconds(k);
      const auto steps =
          std::clamp<std::int64_t>(static_cast<std::int64_t>(kProbeSeconds / (kProbes * product)), 4, kProbeSteps);
      const auto watch = [&](ProgressEvent event) {
        event.phase = "look for negative curvature of " + stage.name;
        report(progress_, event);
      };
      const auto spectrum =
          estimate_spectrum(*a, kProbes, std::min(steps, a->size()), Random(0).stream("negative curvature"), watch);
      const double flat = flat_share(k, spectrum.mean);
      flat_share_ = std::max(flat_share_, flat);
      // a damping that was asked for stays as it is: what it leaves negative is negative in the solve
      const double met = request_.damping_is_open() ? flat * std::abs(spectrum.mean) : 0;
      const double rounding =
          std::max(met, a->rounding() * std::max(std::abs(spectrum.largest), std::abs(spectrum.smallest)));
      const auto& options = out_.options;
      const double least = k < options.least_damping.size() ? options.least_damping[k] : 0;
      const double damping = std::max(least, options.damping + options.relative_damping * std::abs(spectrum.mean));
      if (spectrum.smallest + damping < -rounding && !(spectrum.smallest >= smallest_)) {
        negative_stage_ = k;
        smallest_ = spectrum.smallest;
        error_ = spectrum.smallest_error;
      }
    }
  }
  /// Along directions of a tuning that change nothing, the curvature is 0 at a minimum; where |gradient| is not quite 0
  /// it is at most that over the radius of the circle that they go round, and rounding has its part. What may be met of
  /// it, of the mean eigenvalue.
  double flat_share(std::size_t k, double mean) const {
    constexpr double kRadius = 0.1, kMost = 1e-3;
    const auto& at = chain_[k].objective;
    const bool any = flat_directions(at.trained(), at.weight_decay() > 0) > 0;
    const double rounded = std::sqrt(epsilon(chain_[k].theta.front().scalar_type()));
    return any && mean > 0
               ? std::clamp(out_.stationarity[k]->gradient_norm / kRadius / mean, rounded, std::max(rounded, kMost))
               : 0;
  }
  double sufficient_damping() const { return rounded_up(1.5 * (error_ - smallest_)); }
  void check_asked_damping() const {
    if (negative_stage_) {
      throw NumericalError(fmt::format(
          "stage {}: the Hessian has negative curvature, a direction p with p'Hp / p'p = {:.3g}, and the damping does "
          "not outweigh it, so that solves would fail: type --damping {:.2g}{}{}",
          chain_[*negative_stage_].name, smallest_, sufficient_damping(),
          has_gauss_newton()
              ? fmt::format(", or --curvature gauss-newton --damping {}, which has none", kTrainingDamping)
              : std::string(),
          at_minimum() ? "" : fmt::format(" (the checkpoint is no minimum: {})", gradient_text())));
    }
  }

  bool has_gauss_newton() const { return have_gauss_newton(chain_, first_); }

  void tell_otherwise() {
    if (request_.curvature_is_open() && family_is_fixed()) {
      out_.otherwise = "--damping X for another damping";
    } else if (request_.curvature_is_open() && family_ != CurvatureFamily::kHessian) {
      const auto cost =
          passes_.empty() ? std::string() : fmt::format(" (about {})", seconds_text(solver_seconds("hessian")));
      out_.otherwise = fmt::format("--curvature hessian for the Hessian{}, --damping X for another damping", cost);
    } else if (request_.curvature_is_open()) {
      out_.otherwise = has_gauss_newton() ? "--curvature gauss-newton or --damping X for another choice"
                                          : "--damping X for another damping";
    } else if (request_.damping_is_open()) {
      out_.otherwise = "--damping X for another damping";
    } else {
      out_.otherwise = "--solver SPEC for another solver";
    }
  }

  const Chain& chain_;
  std::size_t first_;
  std::int64_t queries_;
  const InverseRequest& request_;
  const Progress& progress_;
  InverseChoice out_;
  std::unique_ptr<Solver> solver_;  // as asked for
  CurvatureFamily family_ = {};
  std::vector<std::string> reasons_;
  std::vector<double> passes_;
  std::optional<std::size_t> negative_stage_;
  double smallest_ = NAN, error_ = 0;
  double flat_share_ = 0;  // of the mean eigenvalue, that directions which change nothing may have
};

}  // namespace

double rounded_up(double damping) {
  const double unit = std::pow(10, std::floor(std::log10(damping)) - 1);
  return std::ceil(damping / unit) * unit;
}

bool have_gauss_newton(const Chain& chain, std::size_t first) {
  return std::all_of(chain.begin() + static_cast<std::ptrdiff_t>(first), chain.end(),
                     [](const Stage& stage) { return stage.objective.has_gauss_newton(); });
}

InverseChoice choose_inverse(const Chain& chain, std::size_t first, std::int64_t queries, const InverseRequest& request,
                             const Progress& progress) {
  return Chooser(chain, first, queries, request, progress).choose();
}

}  // namespace whence
