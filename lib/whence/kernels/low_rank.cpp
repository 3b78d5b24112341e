#include "whence/kernels/low_rank.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/error.h"
#include "whence/core/symmetric_eigen.h"
#include "whence/kernels/detail/block_products.h"

namespace whence {
namespace {

/// What products of two blocks give: the whole kernel, the envelope, then each rank's.
using Products = TensorList;

/// A layer's weight whose input is projected; of an embedding or a matrix tied to one no input is.
bool is_projected(const detail::ParameterGradients& gradients) {
  return !gradients.uses.empty() &&
         std::none_of(gradients.uses.begin(), gradients.uses.end(),
                      [](const detail::MatrixUse& use) { return use.input().is_picks() || use.signal().is_picks(); });
}

/// Normal numbers of variance 1 of a layer, [rank, inputs], of which a lower rank takes the first rows.
at::Tensor projection(const std::string& layer, std::int64_t rank, std::int64_t inputs, const Random& random,
                      const at::TensorOptions& options) {
  return random.stream("projection").stream(layer).normal({rank, inputs}).to(options);
}

/// A use with its signal first, both sides at all of their places: a block leaves out rows of a tall matrix that are 0.
detail::MatrixUse laid_out(const detail::ParameterGradients& of, const detail::MatrixUse& use) {
  auto first = use.first;
  if (of.places.defined()) {
    auto shape = first.values.sizes().vec();
    shape[3] = of.height;
    first.values = at::zeros(shape, first.values.options()).index_copy_(3, of.places, first.values);
  }
  return use.input_first ? detail::MatrixUse{use.second, first, false} : detail::MatrixUse{first, use.second, false};
}

Products layer_products(const detail::ParameterGradients& rows, const detail::ParameterGradients& columns,
                        const std::vector<std::int64_t>& ranks, const at::Tensor& projection) {
  Products sum;
  for (const auto& a : rows.uses) {
    for (const auto& b : columns.uses) {
      const auto left = laid_out(rows, a), right = laid_out(columns, b);
      std::vector<TensorList> parts(2 + ranks.size());
      detail::for_each_part(left, right, [&](std::int64_t begin, std::int64_t length) {
        const auto some = detail::part_of(left, begin, length);
        const auto signals = detail::side_products_of(some.first, right.first);
        parts[0].push_back(detail::sum_of_positions(signals, detail::side_products_of(some.second, right.second)));
        const auto lengths = [](const detail::Side& side) {
          return detail::Side{at::linalg_vector_norm(side.values, 2, {3}, /*keepdim=*/true), {}};
        };
        parts[1].push_back(detail::sum_of_positions(
            signals.abs(), detail::side_products_of(lengths(some.second), lengths(right.second))));
        for (std::size_t k = 0; k < ranks.size(); ++k) {
          const auto projected = [&](const detail::Side& side) {
            const auto scale = 1 / std::sqrt(static_cast<double>(ranks[k]));
            return detail::Side{at::matmul(side.values, projection.narrow(0, 0, ranks[k]).t()) * scale, {}};
          };
          parts[2 + k].push_back(detail::sum_of_positions(
              signals, detail::side_products_of(projected(some.second), projected(right.second))));
        }
      });
      for (std::size_t k = 0; k < parts.size(); ++k) {
        const auto part = at::cat(parts[k]);
        if (sum.size() <= k) {
          sum.push_back(part);
        } else {
          sum[k].add_(part);
        }
      }
    }
  }
  return sum;
}

}  // namespace

double projection_bound(double pairs, std::int64_t rank, double confidence) {
  const double x = std::log(4 * pairs / (1 - confidence)), r = static_cast<double>(rank);
  return 2 * std::sqrt(x / r) + 2 * x / r;
}

LowRankKernels low_rank_kernels(const KernelPoint& point, const Dataset& data, const std::vector<std::int64_t>& ranks,
                                const Random& random, double confidence, const KernelLimits& limits,
                                const Progress& progress) {
  if (ranks.empty() || *std::min_element(ranks.begin(), ranks.end()) < 1) {
    throw InvalidArgument("low-rank kernels: expected ranks of at least 1");
  }
  if (!(confidence > 0 && confidence < 1)) {
    throw InvalidArgument(fmt::format("low-rank kernels: confidence = {}, expected in (0, 1)", confidence));
  }
  const auto plan = plan_kernel(*create<TangentKernel>("entk"), point, data, nullptr, limits);
  const auto merged = point.objective.merge(detach(point.theta), detach(point.parent));
  const auto taped = detail::taped_names(point, merged, data);
  const auto n = data.size(), c = plan.outputs, most = *std::max_element(ranks.begin(), ranks.end());
  const auto blocks = (n + plan.block - 1) / plan.block;
  const auto block = [&](std::int64_t i) {
    return detail::TapedBlock(point, merged, taped, data, i * plan.block, std::min(n, (i + 1) * plan.block), plan.pass);
  };
  Products all;
  for (std::size_t k = 0; k < 2 + ranks.size(); ++k) {
    all.push_back(at::zeros({n, c, n, c}, at::kDouble));
  }
  std::vector<double> inputs(point.names.size(), 0);  // of each layer, over the data
  bool any = false;
  ProgressScope scope(progress, {"low-rank kernels", 0, blocks * (blocks + 1) / 2, ""});
  std::int64_t done = 0;
  const c10::NoGradGuard no_grad;
  for (std::int64_t i = 0; i < blocks; ++i) {
    const auto left = block(i);
    for (std::int64_t j = 0; j <= i; ++j) {
      const auto right = i == j ? left : block(j);
      for (std::size_t p = 0; p < left.parameters().size(); ++p) {
        const auto& rows = left.parameters()[p];
        const auto& columns = right.parameters()[p];
        if (!is_projected(rows)) {
          continue;
        }
        any = true;
        const auto& like = rows.uses.front().input().values;
        const auto width = rows.uses.front().input_first ? rows.height : rows.width;
        for (const auto& use : rows.uses) {
          inputs[p] += i == j ? static_cast<double>(left.examples() * use.input().positions()) : 0;
        }
        const auto found =
            layer_products(rows, columns, ranks, projection(rows.name, most, width, random, like.options()));
        for (std::size_t k = 0; k < all.size(); ++k) {
          const auto part = found[k].to(at::kCPU);
          const auto at = [&](std::int64_t first, std::int64_t rows_there, std::int64_t second,
                              std::int64_t columns_there) {
            return all[k].narrow(0, first, rows_there).narrow(2, second, columns_there);
          };
          at(i * plan.block, left.examples(), j * plan.block, right.examples()).add_(part);
          if (i != j) {
            at(j * plan.block, right.examples(), i * plan.block, left.examples()).add_(part.permute({2, 3, 0, 1}));
          }
        }
      }
      scope.at(++done);
    }
  }
  if (!any) {
    throw InvalidArgument(
        fmt::format("low-rank kernels: none of the {} parameters is the weight of a linear layer or a "
                    "convolution, expected at least one",
                    point.names.size()));
  }
  LowRankKernels out{all[0], all[1], 0, confidence, {}};
  for (const auto m : inputs) {
    out.pairs += m * (m + 1) / 2;
  }
  const double size = out.whole.norm().item<double>();
  for (std::size_t k = 0; k < ranks.size(); ++k) {
    const auto away = (all[2 + k] - out.whole).abs();
    const auto shares = away / out.envelope;  // 0 / 0 where two examples share nothing
    out.ranks.push_back({ranks[k], all[2 + k], projection_bound(out.pairs, ranks[k], confidence),
                         at::nan_to_num(shares, 0.0, 0.0, 0.0).max().item<double>(),
                         size > 0 ? away.norm().item<double>() / size : 0});
  }
  return out;
}

at::Tensor subspace_kernel(const at::Tensor& kernel, std::int64_t dimensions, const Random& random) {
  if (dimensions < 1) {
    throw InvalidArgument(fmt::format("subspace kernel: {} dimensions, expected at least 1", dimensions));
  }
  const auto rows = kernel.size(0) * kernel.size(1);
  const auto matrix = kernel.reshape({rows, rows});
  const auto [values, vectors] = symmetric_eigen((matrix + matrix.t()) / 2, "the kernel");
  const auto drawn = random.stream("subspace").normal({rows, dimensions});
  const auto features = at::mm(vectors * values.clamp_min(0).sqrt(), drawn);
  return (at::mm(features, features.t()) / static_cast<double>(dimensions)).view(kernel.sizes());
}

}  // namespace whence
