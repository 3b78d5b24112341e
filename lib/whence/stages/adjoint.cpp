#include "whence/stages/adjoint.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "whence/core/error.h"
#include "whence/core/tensors.h"

namespace whence {
namespace {

/// c' d merge, split into what falls on theta and on the parent: for each row of `cotangents` [K, merged].
std::pair<at::Tensor, at::Tensor> pull_back_merge(const Stage& stage, const at::Tensor& cotangents) {
  const auto theta = leaves(stage.theta), parent = leaves(stage.parent);
  const auto merged = stage.objective.merge(theta, parent).values();
  auto both = theta;
  both.insert(both.end(), parent.begin(), parent.end());
  const auto split = count_entries(theta);
  auto out = at::empty({cotangents.size(0), count_entries(both)}, cotangents.options());
  for (std::int64_t k = 0; k < cotangents.size(0); ++k) {
    out[k] = flatten(gradient(merged, both, unflatten(cotangents[k], merged), false, true));
  }
  return {out.narrow(1, 0, split).contiguous(), out.narrow(1, split, out.size(1) - split).contiguous()};
}

/// Cotangents of a stage's merged parameters, from those of the body that it handed on.
at::Tensor extend_to_head(const Stage& stage, const at::Tensor& body) {
  const auto merged = stage.objective.merge(stage.theta, stage.parent);
  std::vector<at::Tensor> columns;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < merged.size(); ++i) {
    const auto width = merged.values()[i].numel();
    if (merged.names()[i].starts_with("head.")) {
      columns.push_back(at::zeros({body.size(0), width}, body.options()));
    } else {
      columns.push_back(body.narrow(1, offset, width));
      offset += width;
    }
  }
  return at::cat(columns, 1);
}

/// A solve without a usable answer ends the call, with the remedy.
void check_solves(const Stage& stage, const StageAdjoint& adjoint, double damping) {
  for (const auto& summary : adjoint.summaries) {
    if (summary.termination == Termination::kIndefinite) {
      throw NumericalError(fmt::format(
          "stage {}: the curvature with damping {:.3g} is not positive definite: {}; raise the damping, or use "
          "--curvature gauss-newton or --inversion filtered, or train the stage to a minimum",
          stage.name, damping, summary.message));
    }
    if (summary.termination == Termination::kDiverged) {
      throw NumericalError(fmt::format("stage {}: the solve diverged: {}", stage.name, summary.message));
    }
  }
  check_finite(adjoint.vectors, "an inverse-curvature product");
}

}  // namespace

struct Adjoint::Prepared {
  OperatorPtr curvature;
  std::unique_ptr<Inverse> inverse;
};

Adjoint::Adjoint(const Chain& chain, const Curvature& curvature, const Solver& solver, const InverseOptions& options)
    : chain_(chain),
      curvature_(curvature),
      solver_(solver),
      options_(options),
      prepared_(chain.size()),
      evidence_(chain.size()) {}

Adjoint::~Adjoint() = default;

Adjoint::Prepared& Adjoint::prepared(std::size_t stage) {
  auto& slot = prepared_[stage];
  if (slot) {
    return *slot;
  }
  const auto& [name, objective, optimizer, theta, parent, trajectory] = chain_[stage];
  auto made = std::make_unique<Prepared>();
  made->curvature = curvature_.operator_at(objective, theta, parent);
  auto& evidence = evidence_[stage];
  evidence.damping = options_.damping;
  if (options_.relative_damping > 0) {
    constexpr std::int64_t kProbes = 32;
    evidence.mean_eigenvalue = mean_eigenvalue(*made->curvature, kProbes, Random(0).stream("mean eigenvalue"));
    evidence.damping += options_.relative_damping * std::abs(evidence.mean_eigenvalue);
  }
  made->inverse = solver_.prepare({made->curvature,
                                   {options_.inversion, evidence.damping},
                                   std::make_shared<CurvaturePoint>(CurvaturePoint{objective, theta, parent})});
  evidence.solved = true;
  slot = std::move(made);
  return *slot;
}

std::vector<StageAdjoint> Adjoint::sweep(const at::Tensor& measurement_gradients, std::size_t first,
                                         const Progress& progress) {
  std::vector<StageAdjoint> out(chain_.size());
  auto cotangents = measurement_gradients;
  for (std::size_t k = chain_.size(); k-- > first;) {
    const auto& stage = chain_[k];
    const auto [right, passed_on] = pull_back_merge(stage, cotangents);
    out[k].summaries = prepared(k).inverse->apply(right, out[k].vectors, [&](ProgressEvent event) {
      event.phase += " " + stage.name;
      report(progress, event);
    });
    check_solves(stage, out[k], evidence_[k].damping);
    if (k > first) {
      const auto mixed = curvature_.mixed_product(stage.objective, stage.theta, stage.parent, out[k].vectors);
      cotangents = extend_to_head(chain_[k - 1], passed_on - mixed);
      check_finite(cotangents, "a pulled-back gradient");
    }
  }
  return out;
}

const std::vector<StageEvidence>& Adjoint::evidence() {
  for (std::size_t k = 0; k < chain_.size(); ++k) {
    if (prepared_[k]) {
      evidence_[k].products = prepared_[k]->curvature->products();
    }
  }
  return evidence_;
}

at::Tensor push_forward(const Stage& stage, const at::Tensor& v) {
  const auto theta = leaves(stage.theta);
  const auto merged = stage.objective.merge(theta, detach(stage.parent)).values();
  const auto cotangent = leaves(zeros_like(detach(merged)));
  const auto pulled =
      gradient(merged, theta, cotangent, true);  // linear in the cotangent: its derivative is the push-forward
  auto out = at::empty({v.size(0), count_entries(merged)}, v.options());
  for (std::int64_t k = 0; k < v.size(0); ++k) {
    out[k] = flatten(gradient(pulled, cotangent, unflatten(v[k], theta), false, true));
  }
  return out;
}

}  // namespace whence
