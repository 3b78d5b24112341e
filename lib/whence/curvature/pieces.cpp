#include "whence/curvature/detail/pieces.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "whence/core/memory.h"
#include "whence/core/progress.h"
#include "whence/core/rounding.h"

namespace whence::detail {
namespace {

/// Bytes of graph that one example takes in a second derivative, about: every layer's input and output, six times over.
double graph_bytes_per_example(const Objective& objective, const TensorList& theta, const TensorList& parent) {
  Tape tape;
  objective.output(detach(theta), parent, objective.data().batch(0, 1), &tape);
  std::int64_t entries = 0;
  std::int64_t width = 8;
  for (const auto& entry : tape.entries) {
    entries += entry.input.numel() + entry.output.numel();
    width = static_cast<std::int64_t>(entry.output.element_size());
  }
  return 6.0 * static_cast<double>(entries * width) * objective.passes_a_term();
}

class PieceSum : public LinearOperator {
 public:
  PieceSum(Objective objective, const TensorList& theta, const TensorList& parent, PieceMaker make, double graph_bytes)
      : objective_(std::move(objective)),
        theta_(leaves(theta)),
        parent_(detach(parent)),
        make_(std::move(make)),
        penalty_(penalty_diagonal({objective_, theta, parent})) {
    const auto n = static_cast<double>(objective_.data().size());
    if (graph_bytes_per_example(objective_, theta_, parent_) * n <= keepable_bytes(graph_bytes)) {
      objective_.for_each_batch(
          [&](const Batch& batch) { kept_.push_back(make_(objective_, theta_, parent_, batch)); });
    }
  }

  std::int64_t size() const override { return count_entries(theta_); }
  at::TensorOptions options() const override { return penalty_.options(); }
  /// Of the passes, whatever their sums are made in.
  double rounding() const override { return 16 * epsilon(theta_.front().scalar_type()); }

 protected:
  at::Tensor do_apply(const at::Tensor& x) const override {
    auto out = x * penalty_;
    std::int64_t done = 0;
    for (const auto& piece : kept_) {
      check_interruption(done, objective_.data().size());
      done = std::min(done + objective_.batch_size(), objective_.data().size());
      piece->add_product(x, out);
    }
    if (kept_.empty()) {
      objective_.for_each_batch(
          [&](const Batch& batch) { make_(objective_, theta_, parent_, batch)->add_product(x, out); });
    }
    return out;
  }

  at::Tensor do_apply_sampled(const at::Tensor& x, std::int64_t batch_size, Random& random) const override {
    const auto n = objective_.terms();
    const auto drawn = random.uniform({batch_size}, 0, static_cast<double>(n)).floor().to(at::kLong).clamp_max(n - 1);
    const auto batch = objective_.terms_batch(drawn);
    auto out = at::zeros_like(x);
    make_(objective_, theta_, parent_, batch)->add_product(x, out);
    out.mul_(static_cast<double>(n) / static_cast<double>(batch_size));  // batch losses carry 1/N each
    return out.add_(x * penalty_);
  }
  std::int64_t examples() const override { return objective_.terms(); }

 private:
  Objective objective_;
  TensorList theta_, parent_;
  PieceMaker make_;
  at::Tensor penalty_;  // [P]
  std::vector<std::unique_ptr<Piece>> kept_;
};

class HessianPiece : public Piece {
 public:
  HessianPiece(const at::Tensor& value, const TensorList& theta)
      : theta_(theta), gradient_(gradient(value, theta, true)) {}
  void add_product(const at::Tensor& x, at::Tensor& out) const override {
    for (std::int64_t k = 0; k < x.size(0); ++k) {
      check_interruption();
      const auto direction = unflatten(x[k].to(theta_.front().scalar_type()), theta_);
      out[k].add_(flatten(gradient(gradient_, theta_, direction, false, true)));
    }
  }

 private:
  TensorList theta_, gradient_;
};

}  // namespace

OperatorPtr sum_of_pieces(const Objective& objective, const TensorList& theta, const TensorList& parent,
                          PieceMaker make, double graph_bytes) {
  return std::make_shared<PieceSum>(objective, theta, parent, std::move(make), graph_bytes);
}

std::unique_ptr<Piece> hessian_piece(const at::Tensor& value, const TensorList& theta) {
  return std::make_unique<HessianPiece>(value, theta);
}

at::Tensor penalty_diagonal(const CurvaturePoint& point) {
  const auto theta = leaves(widened(point.theta));
  const auto ones = at::ones({1, count_entries(theta)}, theta.front().detach().options());
  auto out = at::zeros_like(ones);
  hessian_piece(point.objective.penalty(theta, widened(detach(point.parent))), theta)->add_product(ones, out);
  return out[0];
}

Objective fixed_examples(const Objective& objective, std::int64_t count, std::int64_t seed) {
  const auto n = objective.terms();
  if (count == 0 || count >= n) {
    return objective;
  }
  const auto order = Random(static_cast<std::uint64_t>(seed)).stream("fixed examples").permutation(n);
  return objective.over(std::get<0>(order.narrow(0, 0, count).sort()));
}

at::Tensor penalty_mixed_product(const Objective& objective, const TensorList& theta, const TensorList& parent,
                                 const at::Tensor& v) {
  auto out = at::zeros({v.size(0), count_entries(parent)}, v.options());
  add_mixed_product(objective.penalty(theta, parent), theta, parent, v, out);
  return out;
}

void add_mixed_product(const at::Tensor& value, const TensorList& theta, const TensorList& parent, const at::Tensor& v,
                       at::Tensor& out) {
  const auto in_theta = gradient(value, theta, true);
  for (std::int64_t k = 0; k < v.size(0); ++k) {
    out[k].add_(
        flatten(gradient(in_theta, parent, unflatten(v[k].to(theta.front().scalar_type()), theta), false, true)));
  }
}

}  // namespace whence::detail
