#include "whence/core/tensors.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "whence/core/error.h"
#include "whence/core/parallel.h"

namespace whence {
namespace {

constexpr std::int64_t kChunk = 1 << 15;  // entries summed in one go; fixed, so that sums do not depend on threads

/// Sum of a[i] * b[i] in double, chunk by chunk.
template <class T>
double chunked_dot(const T* a, const T* b, std::int64_t size) {
  const auto chunks = (size + kChunk - 1) / kChunk;
  std::vector<double> partial(static_cast<std::size_t>(chunks), 0.0);
  parallel_for(chunks, [&](std::int64_t c) {
    double sum[4] = {0, 0, 0, 0};
    auto i = c * kChunk;
    const auto end = std::min(size, i + kChunk);
    for (; i + 4 <= end; i += 4) {
      for (int lane = 0; lane < 4; ++lane) {
        sum[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
      }
    }
    for (; i < end; ++i) {
      sum[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    }
    partial[static_cast<std::size_t>(c)] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  });
  double total = 0;
  for (const double p : partial) {
    total += p;
  }
  return total;
}

}  // namespace

std::int64_t count_entries(const TensorList& x) {
  std::int64_t total = 0;
  for (const auto& t : x) {
    total += t.numel();
  }
  return total;
}

at::Tensor flatten(const TensorList& x) {
  TensorList parts;
  for (const auto& t : x) {
    parts.push_back(t.reshape({-1}));
  }
  return at::cat(parts);
}

TensorList unflatten(const at::Tensor& row, const TensorList& shapes) {
  TensorList out;
  std::int64_t offset = 0;
  for (const auto& shape : shapes) {
    out.push_back(row.narrow(0, offset, shape.numel()).view(shape.sizes()));
    offset += shape.numel();
  }
  return out;
}

TensorList leaves(const TensorList& values) {
  TensorList out;
  for (const auto& t : values) {
    out.push_back(t.detach().requires_grad_(true));
  }
  return out;
}

TensorList detach(const TensorList& values) {
  TensorList out;
  for (const auto& t : values) {
    out.push_back(t.detach());
  }
  return out;
}

TensorList clone(const TensorList& values) {
  TensorList out;
  for (const auto& t : values) {
    out.push_back(t.detach().clone());
  }
  return out;
}

TensorList zeros_like(const TensorList& values) {
  TensorList out;
  for (const auto& t : values) {
    out.push_back(at::zeros_like(t));
  }
  return out;
}

at::Tensor rows_of(const at::Tensor& block) { return block.dim() == 1 ? block.unsqueeze(1) : block.flatten(1); }

double exact_dot(const at::Tensor& a, const at::Tensor& b) {
  if (!a.is_cpu() || a.scalar_type() != b.scalar_type() ||
      (a.scalar_type() != at::kFloat && a.scalar_type() != at::kDouble)) {
    return (a.detach().to(at::kDouble) * b.detach().to(at::kDouble)).sum().item<double>();
  }
  const auto x = a.contiguous(), y = b.contiguous();
  return x.scalar_type() == at::kDouble ? chunked_dot(x.const_data_ptr<double>(), y.const_data_ptr<double>(), x.numel())
                                        : chunked_dot(x.const_data_ptr<float>(), y.const_data_ptr<float>(), x.numel());
}

double exact_dot(const TensorList& a, const TensorList& b) {
  double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    total += exact_dot(a[i], b[i]);
  }
  return total;
}

at::Tensor row_dots(const at::Tensor& a, const at::Tensor& b) {
  auto out = at::zeros({a.size(0)}, at::kDouble);
  for (std::int64_t k = 0; k < a.size(0); ++k) {
    out.data_ptr<double>()[k] = exact_dot(a[k], b[k]);
  }
  return out;
}

at::Tensor row_norms(const at::Tensor& a) { return row_dots(a, a).sqrt(); }

void axpy(double a, const TensorList& x, TensorList& y) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    y[i].add_(x[i], a);
  }
}

void check_finite(const at::Tensor& x, const char* what) {
  if (!at::isfinite(x).all().item<bool>()) {
    throw NumericalError(fmt::format("{} is not finite ({} of {} entries are NaN or infinite)", what,
                                     at::isfinite(x).logical_not().sum().item<std::int64_t>(), x.numel()));
  }
}

void check_finite(const TensorList& x, const char* what) {
  for (const auto& t : x) {
    check_finite(t, what);
  }
}

TensorList gradient(const TensorList& y, const TensorList& x, const TensorList& cotangent, bool create_graph,
                    bool retain_graph) {
  TensorList tracked, seeds;  // an output that is constant contributes nothing and autograd refuses it
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (y[i].requires_grad()) {
      tracked.push_back(y[i]);
      if (!cotangent.empty()) {
        seeds.push_back(cotangent[i]);
      }
    }
  }
  if (tracked.empty()) {
    return zeros_like(x);
  }
  auto out =
      torch::autograd::grad(tracked, x, seeds, retain_graph || create_graph, create_graph, /*allow_unused=*/true);
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (!out[i].defined()) {
      out[i] = at::zeros_like(x[i]);
    }
  }
  return out;
}

TensorList gradient(const at::Tensor& y, const TensorList& x, bool create_graph, bool retain_graph) {
  return gradient(TensorList{y}, x, {}, create_graph, retain_graph);
}

}  // namespace whence
