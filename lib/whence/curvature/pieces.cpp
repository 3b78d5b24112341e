#include "whence/curvature/detail/pieces.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "whence/core/memory.h"
#include "whence/core/progress.h"
#include "whence/core/rounding.h"

namespace whence::detail {
namespace {

/// Bytes of graph that one example takes in a second derivative, about: every layer's input and output, six times over.
double graph_bytes_per_example(const CurvaturePoint& point) {
  Tape tape;
  point.objective.output(detach(point.theta), point.parent, point.objective.data().batch(0, 1), &tape);
  std::int64_t entries = 0;
  std::int64_t width = 8;
  for (const auto& entry : tape.entries) {
    entries += entry.input.numel() + entry.output.numel();
    width = static_cast<std::int64_t>(entry.output.element_size());
  }
  return 6.0 * static_cast<double>(entries * width) * point.objective.passes_a_term();
}

class PieceSum : public LinearOperator {
 public:
  PieceSum(const CurvaturePoint& point, PieceMaker make, double graph_bytes)
      : point_{point.objective, leaves(point.theta), detach(point.parent)},
        make_(std::move(make)),
        penalty_(penalty_diagonal(point)) {
    const auto n = static_cast<double>(point_.objective.data().size());
    if (graph_bytes_per_example(point_) * n <= keepable_bytes(graph_bytes)) {
      point_.objective.for_each_batch([&](const Batch& batch) { kept_.push_back(make_(point_, batch)); });
    }
  }

  std::int64_t size() const override { return count_entries(point_.theta); }
  at::TensorOptions options() const override { return penalty_.options(); }
  /// Of the passes, whatever their sums are made in.
  double rounding() const override { return 16 * epsilon(point_.theta.front().scalar_type()); }

 protected:
  at::Tensor do_apply(const at::Tensor& x) const override {
    auto out = x * penalty_;
    std::int64_t done = 0;
    for (const auto& piece : kept_) {
      check_interruption(done, examples());
      done = std::min(done + point_.objective.batch_size(), examples());
      piece->add_product(x, out);
    }
    if (kept_.empty()) {
      point_.objective.for_each_batch([&](const Batch& batch) { make_(point_, batch)->add_product(x, out); });
    }
    return out;
  }

  at::Tensor do_apply_sampled(const at::Tensor& x, std::int64_t batch_size, Random& random) const override {
    const auto n = examples();
    const auto drawn = random.uniform({batch_size}, 0, static_cast<double>(n)).floor().to(at::kLong).clamp_max(n - 1);
    auto out = at::zeros_like(x);
    make_(point_, point_.objective.terms_batch(drawn))->add_product(x, out);
    out.mul_(static_cast<double>(n) / static_cast<double>(batch_size));  // batch losses carry 1/N each
    return out.add_(x * penalty_);
  }
  std::int64_t examples() const override { return point_.objective.terms(); }

 private:
  CurvaturePoint point_;  ///< Its theta are leaves.
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

OperatorPtr sum_of_pieces(const CurvaturePoint& point, PieceMaker make, double graph_bytes) {
  return std::make_shared<PieceSum>(point, std::move(make), graph_bytes);
}

std::unique_ptr<Piece> hessian_piece(const at::Tensor& value, const TensorList& theta) {
  return std::make_unique<HessianPiece>(value, theta);
}

at::Tensor penalty_diagonal(const CurvaturePoint& point) {
  const auto theta = leaves(widened(point.theta));
  const auto ones = at::ones({1, count_entries(theta)}, theta.front().detach().options());
  auto out = at::zeros_like(ones);
  hessian_piece(point.objective.quadratic_penalty(theta, widened(detach(point.parent))), theta)->add_product(ones, out);
  return out[0];
}

CurvaturePoint fixed_examples(const CurvaturePoint& point, std::int64_t count, std::int64_t seed) {
  const auto n = point.objective.terms();
  if (count == 0 || count >= n) {
    return point;
  }
  const auto order = Random(static_cast<std::uint64_t>(seed)).stream("fixed examples").permutation(n);
  return {point.objective.over(std::get<0>(order.narrow(0, 0, count).sort())), point.theta, point.parent};
}

at::Tensor penalty_mixed_product(const CurvaturePoint& point, const at::Tensor& v) {
  const auto theta = leaves(point.theta), parent = leaves(point.parent);
  auto out = at::zeros({v.size(0), count_entries(parent)}, v.options());
  add_mixed_product(point.objective.penalty(theta, parent), theta, parent, v, out);
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
