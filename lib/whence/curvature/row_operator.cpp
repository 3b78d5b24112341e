#include "whence/curvature/detail/row_operator.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/error.h"
#include "whence/core/memory.h"
#include "whence/core/progress.h"
#include "whence/core/rounding.h"
#include "whence/curvature/detail/pieces.h"
#include "whence/curvature/gram_operator.h"

namespace whence::detail {
namespace {

class RowOperator : public GramOperator {
 public:
  RowOperator(const CurvaturePoint& point, LayerLayout layout, RowChoice choice, double kept_bytes)
      : point_(point),
        merged_(point_.objective.merge(detach(point_.theta), detach(point_.parent))),
        layout_(std::move(layout)),
        choice_(std::move(choice)),
        diagonal_(penalty_diagonal(point_)),
        kept_bytes_(kept_bytes) {
    const auto& data = point_.objective.data();
    const RowBatch first(point_.objective, merged_, data.batch(0, 1), choice_, layout_, true);
    per_example_ = first.per_example();
    if (first.bytes() * static_cast<double>(data.size()) <= keepable_bytes(kept_bytes)) {
      point_.objective.for_each_batch([&](const Batch& batch) { kept_.push_back(made(batch)); });
    }
  }

  std::int64_t size() const override { return layout_.entries(); }
  at::TensorOptions options() const override { return diagonal_.options(); }
  /// J' J knows its eigenvalues to the square of what J, whose passes are in the model's dtype, knows its entries to.
  double rounding() const override {
    const double of_rows = epsilon(point_.theta.front().scalar_type());
    return 16 * std::max(epsilon(diagonal_.scalar_type()), of_rows * of_rows);
  }
  std::int64_t rows() const override { return per_example_ * point_.objective.data().size(); }
  const at::Tensor& diagonal() const override { return diagonal_; }

  at::Tensor times(const at::Tensor& x) const override {
    TensorList parts;
    for_each([&](const RowBatch& rows) { parts.push_back(rows.times(x)); });
    return at::cat(parts, 1);
  }
  at::Tensor transposed_times(const at::Tensor& u) const override {
    auto out = at::zeros({u.size(0), size()}, u.options());
    std::int64_t begin = 0;
    for_each([&](const RowBatch& rows) {
      rows.add_transposed(u.narrow(1, begin, rows.rows()), out);
      begin += rows.rows();
    });
    return out;
  }

  /// Against as many rows as may be held, all that come behind them: a pass over the data for each such part.
  at::Tensor gram(const at::Tensor& scale) const override {
    auto out = at::zeros({rows(), rows()}, options());
    const double room = kept_.empty() ? keepable_bytes(kept_bytes_) : INFINITY;
    std::int64_t held_to = 0, begin = 0;  // batches that are done, and their rows
    for (bool more = true; more;) {
      std::vector<std::pair<std::int64_t, RowBatch>> held;
      double bytes = 0;
      std::int64_t second = begin;
      more = false;
      for_each(
          [&](const RowBatch& b) {
            if (!more && (held.empty() || bytes + b.bytes() <= room)) {
              held.emplace_back(second, b);
              bytes += b.bytes();
            } else {
              more = true;
            }
            for (const auto& [first, a] : held) {
              check_interruption();
              const auto block = gram_block(a, b, scale);
              out.narrow(0, first, a.rows()).narrow(1, second, b.rows()).copy_(block);
              out.narrow(0, second, b.rows()).narrow(1, first, a.rows()).copy_(block.t());
            }
            second += b.rows();
          },
          held_to);
      held_to += static_cast<std::int64_t>(held.size());
      begin = held.back().first + held.back().second.rows();
    }
    return out;
  }

 protected:
  at::Tensor do_apply(const at::Tensor& x) const override {
    auto out = x * diagonal_;
    for_each([&](const RowBatch& rows) { rows.add_transposed(rows.times(x), out); });
    return out;
  }
  at::Tensor do_apply_sampled(const at::Tensor& x, std::int64_t batch_size, Random& random) const override {
    const auto n = point_.objective.data().size();
    const auto drawn = random.uniform({batch_size}, 0, static_cast<double>(n)).floor().to(at::kLong).clamp_max(n - 1);
    const auto rows = made(point_.objective.data().batch(drawn));
    auto out = at::zeros_like(x);
    rows.add_transposed(rows.times(x), out);
    return out.mul_(static_cast<double>(n) / static_cast<double>(batch_size)).add_(x * diagonal_);
  }
  std::int64_t examples() const override { return point_.objective.data().size(); }
  double trace() const override {
    auto sum = diagonal_.sum(at::kDouble);
    for_each([&](const RowBatch& batch) {
      for (const auto& rows : batch.layers()) {
        sum = sum + squared_norms(rows).sum(at::kDouble);
      }
    });
    return sum.item<double>();
  }

 private:
  RowBatch made(const Batch& batch) const { return RowBatch(point_.objective, merged_, batch, choice_, layout_, true); }
  /// body(rows of a batch), from batch `skipped` on.
  template <class Body>
  void for_each(const Body& body, std::int64_t skipped = 0) const {
    std::int64_t done = 0;
    for (const auto& rows : kept_) {
      check_interruption(done, point_.objective.data().size());
      if (--skipped < 0) {
        body(rows);
      }
      done += rows.examples();
    }
    if (kept_.empty()) {
      point_.objective.for_each_batch([&](const Batch& batch) {
        if (--skipped < 0) {
          body(made(batch));
        }
      });
    }
  }

  /// The one value that `scale` has over `count` entries from `begin`.
  static double constant(const at::Tensor& scale, std::int64_t begin, std::int64_t count, const std::string& layer) {
    const auto part = scale.narrow(0, begin, count);
    const double low = part.min().item<double>(), high = part.max().item<double>();
    if (high - low > 1e-6 * std::abs(high)) {
      throw InvalidArgument(
          fmt::format("the penalty differs within layer {}: from {:.3g} to {:.3g}", layer, low, high));
    }
    return high;
  }

  static at::Tensor gram_block(const RowBatch& a, const RowBatch& b, const at::Tensor& scale) {
    auto out = at::zeros({a.rows(), b.rows()}, scale.options());
    for (std::size_t l = 0; l < a.layers().size(); ++l) {
      const auto& x = a.layers()[l];
      const auto& y = b.layers()[l];
      if (x.token.defined()) {
        add_embedding_gram(x, y, constant(scale, x.layer.weight, x.layer.entries(), x.layer.name), out);
        continue;
      }
      auto column_scale = at::empty({x.layer.columns()}, scale.options());
      if (x.layer.weight >= 0) {
        column_scale.narrow(0, 0, x.layer.inputs)
            .fill_(constant(scale, x.layer.weight, x.layer.outputs * x.layer.inputs, x.layer.name));
      }
      if (x.layer.bias >= 0) {
        column_scale[x.layer.inputs].fill_(constant(scale, x.layer.bias, x.layer.outputs, x.layer.name));
      }
      const auto one_place = [](const LayerRows& of) { return !of.formed.defined() && of.input.size(1) == 1; };
      if (one_place(x) && one_place(y)) {  // (signal . signal)(input . input)
        const auto inputs = at::mm(x.input.squeeze(1) * column_scale, y.input.squeeze(1).t());  // [A, B]
        const auto signals =
            at::mm(x.signal.reshape({-1, x.layer.outputs}), y.signal.reshape({-1, y.layer.outputs}).t());
        const auto ra = a.per_example(), rb = b.per_example();
        out.add_((signals.view({a.examples(), ra, b.examples(), rb}) * inputs.view({a.examples(), 1, b.examples(), 1}))
                     .view_as(out));
      } else {
        const auto entries = column_scale.expand({x.layer.outputs, -1}).reshape({1, -1});
        out.add_(at::mm(formed(x) * entries, formed(y).t()));
      }
    }
    return out;
  }
  static at::Tensor formed(const LayerRows& rows) {
    if (rows.formed.defined()) {
      return rows.formed;
    }
    const auto signal = rows.signal.transpose(2, 3).flatten(1, 2);  // [B, R outputs, T]
    return at::bmm(signal, rows.input).view({-1, rows.layer.entries()});
  }

  CurvaturePoint point_;
  ParameterSet merged_;
  LayerLayout layout_;
  RowChoice choice_;
  at::Tensor diagonal_;
  double kept_bytes_ = 0;
  std::int64_t per_example_ = 0;
  std::vector<RowBatch> kept_;
};

}  // namespace

OperatorPtr row_operator(const CurvaturePoint& point, const LayerLayout& layout, const RowChoice& choice,
                         double kept_bytes) {
  return std::make_shared<RowOperator>(point, layout, choice, kept_bytes);
}

void add_row_mixed_product(const CurvaturePoint& point, const LayerLayout& trained, const LayerLayout& parent,
                           const RowChoice& choice, const at::Tensor& v, at::Tensor& out) {
  const auto merged = point.objective.merge(detach(point.theta), detach(point.parent));
  point.objective.for_each_batch([&](const Batch& batch) {
    const RowBatch here(point.objective, merged, batch, choice, trained, false);
    const RowBatch there(point.objective, merged, batch, choice, parent, false);
    there.add_transposed(here.times(v), out);
  });
}

}  // namespace whence::detail
