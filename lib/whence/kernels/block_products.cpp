#include "whence/kernels/detail/block_products.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "whence/core/chunks.h"
#include "whence/core/parallel.h"
#include "whence/core/progress.h"

namespace whence::detail {
namespace {

std::int64_t examples_of(const Side& side) { return side.is_picks() ? side.picks.size(0) : side.values.size(0); }

Side some_examples(const Side& side, std::int64_t begin, std::int64_t length) {
  return side.is_picks() ? Side{{}, side.picks.narrow(0, begin, length)}
                         : Side{side.values.narrow(0, begin, length), {}};
}

/// A parameter's uses at the rows of its height that both blocks have, all others being 0 in a product.
struct Met {
  std::vector<MatrixUse> rows, columns;
  std::int64_t height = 0;
};

std::vector<MatrixUse> at_places(const ParameterGradients& of, const at::Tensor& common) {
  if (of.places.defined() && of.places.equal(common)) {
    return of.uses;
  }
  // where each of what the block has is in `common`: -1 is nowhere
  const auto lookup = at::full({of.height}, -1, common.options());
  lookup.index_put_({common}, at::arange(common.numel(), common.options()));
  const auto own = of.places.defined() ? of.places : at::arange(of.height, common.options());
  const auto kept = lookup.index_select(0, own).ge(0).nonzero().squeeze(1);
  auto out = of.uses;
  for (auto& use : out) {
    auto& first = use.first;
    if (first.is_picks()) {
      const auto flat = first.picks.flatten();
      const auto places = own.index_select(0, flat.clamp_min(0));
      first.picks = lookup.index_select(0, places).masked_fill(flat.lt(0), -1).view(first.picks.sizes());
    } else {
      first.values = first.values.index_select(3, kept);
    }
  }
  return out;
}

Met meet(const ParameterGradients& rows, const ParameterGradients& columns) {
  if (!rows.places.defined() && !columns.places.defined()) {
    return {rows.uses, columns.uses, rows.height};
  }
  at::Tensor common;
  if (!rows.places.defined() || !columns.places.defined()) {
    common = rows.places.defined() ? rows.places : columns.places;
  } else {
    common = rows.places.index({at::isin(rows.places, columns.places)});
  }
  return {at_places(rows, common), at_places(columns, common), common.numel()};
}

/// out [R, R'] float64 += a b', a and b [R or R', entries]: in float32 summed in float64 every so many entries.
void add_products(const at::Tensor& a, const at::Tensor& b, at::Tensor& out) {
  constexpr std::int64_t kEntries = 1 << 14;  // products of so many signs are exact in float32
  if (a.scalar_type() == at::kDouble) {
    out.addmm_(a, b.t());
    return;
  }
  for (std::int64_t begin = 0; begin < a.size(1); begin += kEntries) {
    const auto length = std::min(kEntries, a.size(1) - begin);
    out.add_(at::mm(a.narrow(1, begin, length), b.narrow(1, begin, length).t()));
  }
}

/// Rows begin .. begin + length - 1 of the gradients' height, summed over the uses: [B C, length width].
at::Tensor form(const std::vector<MatrixUse>& uses, std::int64_t width, std::int64_t begin, std::int64_t length) {
  at::Tensor sum;
  for (const auto& use : uses) {
    const auto& first = use.first;
    const auto& right = use.second.values;  // [B, C or 1, L, width]
    at::Tensor part;
    if (first.is_picks()) {
      const auto examples = right.size(0), outputs = right.size(1), positions = right.size(2);
      const auto local = first.picks - begin;
      const auto here = local.ge(0).logical_and(local.lt(length)).logical_and(first.picks.ge(0));
      const auto owners = at::arange(examples * outputs, local.options()).view({examples, outputs, 1}) * length;
      const auto rows = (owners + local.clamp(0, length - 1).unsqueeze(1)).flatten();
      const auto signals = (right * here.to(right.scalar_type()).view({examples, 1, positions, 1}));
      part = at::zeros({examples * outputs * length, width}, right.options())
                 .index_add_(0, rows, signals.reshape({-1, width}))
                 .view({examples, outputs, length, width});
    } else {
      part = at::matmul(first.values.narrow(3, begin, length).transpose(2, 3), right);
    }
    sum = sum.defined() ? sum.add_(part) : part;
  }
  return sum.view({sum.size(0) * sum.size(1), length * width});
}

std::int64_t outputs_of(const ParameterGradients& gradients) {
  if (gradients.formed.defined()) {
    return gradients.formed.size(1);
  }
  const auto& use = gradients.uses.front();
  return std::max(use.first.outputs(), use.second.outputs());
}
std::int64_t examples_of(const ParameterGradients& gradients) {
  return gradients.formed.defined() ? gradients.formed.size(0) : examples_of(gradients.uses.front().second);
}

at::Tensor formed_products(const TangentKernel& kernel, const Met& met, const ParameterGradients& rows,
                           const ParameterGradients& columns) {
  const auto r = examples_of(rows) * outputs_of(rows), s = examples_of(columns) * outputs_of(columns);
  const auto& like = met.rows.front().second.values;
  auto out = at::zeros({r, s}, like.options().dtype(at::kDouble));
  const bool same = &rows == &columns;
  in_chunks(met.height, (r + s) * rows.width * like.element_size(), [&](std::int64_t begin, std::int64_t length) {
    auto a = form(met.rows, rows.width, begin, length);
    auto b = same ? (kernel.plain() ? a : a.clone()) : form(met.columns, rows.width, begin, length);
    if (!kernel.plain()) {
      a = kernel.row(a);
      b = kernel.column(b);
    }
    add_products(a, b, out);
  });
  return out;
}

/// [B, C, B', C'] from the products of all pairs of positions, of both sides.
at::Tensor paired_products(const MatrixUse& rows, const MatrixUse& columns) {
  TensorList parts;
  for_each_part(rows, columns, [&](std::int64_t begin, std::int64_t length) {
    const auto some = part_of(rows, begin, length);
    parts.push_back(
        sum_of_positions(side_products_of(some.first, columns.first), side_products_of(some.second, columns.second)));
  });
  return at::cat(parts);
}

/// Whether what the layers saw is on the same side of both uses, the same for every output.
bool can_cross(const MatrixUse& rows, const MatrixUse& columns) {
  return rows.input_first == columns.input_first && rows.input().outputs() == 1 && columns.input().outputs() == 1 &&
         !rows.signal().is_picks() && !columns.signal().is_picks();
}

/// The same from <signal_l, sum over m of <input_l, input'_m> signal'_m>: all outputs share the sums' weights.
/// `itself`: the columns are the rows, of which those from an example's own on are made, the others being their mirror
/// image.
at::Tensor crossed_products(const MatrixUse& rows, const MatrixUse& columns, bool itself) {
  const auto a = rows.signal().values.contiguous(), b = columns.signal().values.contiguous();
  const auto outputs = a.size(1), positions = a.size(2), width = a.size(3);
  const auto examples = b.size(0), others = b.size(1), met = b.size(2);
  auto out = at::zeros({examples, a.size(0), outputs, others}, a.options().dtype(at::kDouble));
  // sums of some rows at a time, which are read again before a cache has lost them; a device has them all at once
  constexpr std::int64_t kCached = 1 << 20;
  const auto row_bytes = others * positions * width * a.element_size();
  const auto some = a.is_cpu() ? std::max<std::int64_t>(1, kCached / row_bytes) : a.size(0);
  in_chunks(a.size(0), positions * examples * met * a.element_size(), [&](std::int64_t from, std::int64_t length) {
    const auto weights = side_products_of(part_of(rows, from, length).input(), columns.input())
                             .to(a.scalar_type())
                             .reshape({length * positions, examples * met});
    const auto column = [&](std::int64_t d) {
      const c10::NoGradGuard no_grad;
      const auto here = weights.narrow(1, d * met, met);
      for (auto begin = itself ? std::max<std::int64_t>(0, d - from) : 0; begin < length; begin += some) {
        const auto count = std::min(some, length - begin);
        auto sums = at::empty({others, count * positions, width}, a.options());
        for (std::int64_t e = 0; e < others; ++e) {
          auto one = sums[e];
          at::mm_out(one, here.narrow(0, begin * positions, count * positions), b[d][e]);
        }
        out[d]
            .narrow(0, from + begin, count)
            .copy_(at::bmm(a.narrow(0, from + begin, count).view({count, outputs, positions * width}),
                           sums.view({others, count, positions * width}).permute({1, 2, 0})));
      }
    };
    if (a.is_cpu()) {
      parallel_for(examples, column);
    } else {
      for (std::int64_t d = 0; d < examples; ++d) {
        column(d);
      }
    }
  });
  if (itself) {
    const auto n = examples;
    const auto below = at::ones({n, n}, out.options().dtype(at::kBool)).triu(1).view({n, n, 1, 1});
    out.add_((out * below).permute({1, 0, 3, 2}));
  }
  return out.permute({1, 2, 0, 3});
}

/// Multiplications of a pair of uses, by all pairs of positions and by crossed sums, which are not to be had: infinite.
struct GhostCost {
  double paired = 0, crossed = std::numeric_limits<double>::infinity();
  bool crosses() const { return crossed < paired; }
  double least() const { return std::min(paired, crossed); }
};
GhostCost cost_of(const MatrixUse& a, const MatrixUse& b, std::int64_t height, std::int64_t width, bool itself) {
  constexpr double kSum = 16, kThin = 4;  // what a sum over positions counts, and a product of few outputs
  const auto number = [](std::int64_t count) { return static_cast<double>(count); };
  const auto products = [&](const Side& left, const Side& right, std::int64_t entries) {
    return number(left.outputs() * right.outputs()) * (left.is_picks() || right.is_picks() ? 1 : number(entries));
  };
  const auto examples = number(examples_of(a.second)) * number(examples_of(b.second));
  const auto positions = number(a.second.positions()), met = number(b.second.positions());
  const auto outputs = number(std::max(a.first.outputs(), a.second.outputs())),
             others = number(std::max(b.first.outputs(), b.second.outputs()));
  GhostCost out{
      .paired = examples * positions * met *
                (products(a.first, b.first, height) + products(a.second, b.second, width) + kSum * outputs * others)};
  if (can_cross(a, b)) {
    const auto seen = a.input_first ? height : width;
    const auto signals = number(a.input_first ? width : height);
    out.crossed =
        examples * positions *
        (met * products(a.input(), b.input(), seen) + (met + kThin * outputs) * others * signals * (itself ? 0.5 : 1));
  }
  return out;
}

/// `same`: the columns are the rows.
at::Tensor ghost_products(const Met& met, std::int64_t width, bool same) {
  at::Tensor out;
  for (std::size_t i = 0; i < met.rows.size(); ++i) {
    for (std::size_t j = 0; j < met.columns.size(); ++j) {
      const auto& a = met.rows[i];
      const auto& b = met.columns[j];
      const bool itself = same && i == j;
      const auto part =
          cost_of(a, b, met.height, width, itself).crosses() ? crossed_products(a, b, itself) : paired_products(a, b);
      out = out.defined() ? out.add_(part) : part;
    }
  }
  return out;
}

}  // namespace

MatrixUse part_of(const MatrixUse& use, std::int64_t begin, std::int64_t length) {
  return {some_examples(use.first, begin, length), some_examples(use.second, begin, length), use.input_first};
}

void for_each_part(const MatrixUse& rows, const MatrixUse& columns,
                   const std::function<void(std::int64_t begin, std::int64_t length)>& body) {
  const auto outputs = std::max(rows.first.outputs(), rows.second.outputs()) *
                       std::max(columns.first.outputs(), columns.second.outputs());
  const auto& like = rows.second.is_picks() ? rows.first.values : rows.second.values;
  const auto pairs = outputs * rows.second.positions() * examples_of(columns.second) * columns.second.positions();
  in_chunks(examples_of(rows.second), 3 * pairs * like.element_size(), body);
}

at::Tensor side_products_of(const Side& a, const Side& b) {
  if (a.is_picks() && b.is_picks()) {
    const auto left = a.picks.view({a.picks.size(0), 1, -1, 1, 1, 1});
    return left.eq(b.picks.view({1, 1, 1, b.picks.size(0), 1, -1})).logical_and_(left.ge(0));
  }
  if (a.is_picks()) {
    return side_products_of(b, a).permute({3, 4, 5, 0, 1, 2});
  }
  const auto rows = a.values.reshape({-1, a.values.size(3)});
  const auto shape = a.values.sizes();
  if (b.is_picks()) {
    const auto ids = b.picks.flatten();
    const auto found = rows.index_select(1, ids.clamp_min(0)) * ids.ge(0).to(rows.scalar_type());
    return found.view({shape[0], shape[1], shape[2], b.picks.size(0), 1, b.picks.size(1)});
  }
  const auto other = b.values.sizes();
  return at::mm(rows, b.values.reshape({-1, other[3]}).t())
      .view({shape[0], shape[1], shape[2], other[0], other[1], other[2]});
}

at::Tensor sum_of_positions(const at::Tensor& first, const at::Tensor& second) {
  const auto type = first.is_floating_point() ? first.scalar_type() : second.scalar_type();
  return (first.to(type) * second.to(type)).sum(at::IntArrayRef{2, 5}, /*keepdim=*/false, at::kDouble);
}

double ghost_cost(const ParameterGradients& rows, const ParameterGradients& columns) {
  double out = 0;
  for (std::size_t i = 0; i < rows.uses.size(); ++i) {
    for (std::size_t j = 0; j < columns.uses.size(); ++j) {
      const bool itself = &rows == &columns && i == j;
      out +=
          cost_of(rows.uses[i], columns.uses[j], std::min(rows.active(), columns.active()), rows.width, itself).least();
    }
  }
  return out;
}

double formed_cost(const ParameterGradients& rows, const ParameterGradients& columns) {
  const auto entries = static_cast<double>(std::min(rows.active(), columns.active()) * rows.width);
  const auto r = static_cast<double>(examples_of(rows) * outputs_of(rows));
  const auto s = static_cast<double>(examples_of(columns) * outputs_of(columns));
  double out = r * s * entries;
  const auto forming = [&](const ParameterGradients& gradients, double count) {
    for (const auto& use : gradients.uses) {
      out += count * entries * static_cast<double>(use.first.is_picks() ? 1 : use.first.positions());
    }
  };
  forming(rows, r);
  if (&rows != &columns) {
    forming(columns, s);
  }
  return out;
}

at::Tensor parameter_products(const TangentKernel& kernel, const ParameterGradients& rows,
                              const ParameterGradients& columns, bool ghost) {
  const auto b = examples_of(rows), c = outputs_of(rows), d = examples_of(columns), e = outputs_of(columns);
  if (rows.formed.defined()) {
    auto left = rows.formed.flatten(0, 1), right = columns.formed.flatten(0, 1);
    if (!kernel.plain()) {
      left = kernel.row(left.clone());
      right = kernel.column(right.clone());
    }
    auto out = at::zeros({b * c, d * e}, left.options().dtype(at::kDouble));
    add_products(left, right, out);
    return out.view({b, c, d, e});
  }
  const auto met = meet(rows, columns);
  if (met.height == 0) {
    return at::zeros({b, c, d, e}, rows.uses.front().second.values.options().dtype(at::kDouble));
  }
  return (ghost ? ghost_products(met, rows.width, &rows == &columns) : formed_products(kernel, met, rows, columns))
      .reshape({b, c, d, e});
}

at::Tensor block_products(const TangentKernel& kernel, const TapedBlock& rows, const TapedBlock& columns) {
  const c10::NoGradGuard no_grad;
  at::Tensor out;
  for (std::size_t p = 0; p < rows.parameters().size(); ++p) {
    check_interruption();
    const auto& a = rows.parameters()[p];
    const auto& b = columns.parameters()[p];
    const bool ghost = !a.formed.defined() && kernel.plain() && ghost_cost(a, b) < formed_cost(a, b);
    const auto part = parameter_products(kernel, a, b, ghost);
    out = out.defined() ? out.add_(part) : part;
  }
  return out;
}

}  // namespace whence::detail
