#include "whence/models/detail/attention.h"

#include <ATen/ATen.h>

#include <cmath>

namespace whence {
namespace detail {

Rotation rotation(const Rotary& rotary, std::int64_t context, const TokenLayout& text,
                  const at::TensorOptions& options) {
  const auto wide = options.dtype(at::kDouble);
  at::Tensor frequencies;  // [width / 2], or for each token's example [R, T, width / 2]
  if (rotary.scaling == "dynamic" && text.lengths.max().item<std::int64_t>() > context) {
    TensorList rows;
    for (std::int64_t b = 0; b < text.lengths.size(0); ++b) {
      rows.push_back(
          at::tensor(rotary_frequencies(rotary, context, text.lengths[b].item<std::int64_t>()), at::kDouble));
    }
    frequencies = at::stack(rows)
                      .to(options.device())
                      .index_select(0, text.tokens.owners)
                      .unflatten(0, {text.examples.size(0), text.examples.size(1)});
  } else {
    frequencies = at::tensor(rotary_frequencies(rotary, context, context), wide);
  }
  const auto angles = (text.positions.to(at::kDouble).unsqueeze(2) * frequencies).unsqueeze(1);
  return {(angles.cos() * rotary.attention_factor).to(options), (angles.sin() * rotary.attention_factor).to(options)};
}

at::Tensor rotate(const at::Tensor& x, const Rotation& turn) {
  const auto half = turn.cosine.size(3), width = x.size(3);
  const auto a = x.narrow(3, 0, half), b = x.narrow(3, half, half);
  TensorList parts{a * turn.cosine - b * turn.sine, b * turn.cosine + a * turn.sine};
  if (2 * half < width) {
    parts.push_back(x.narrow(3, 2 * half, width - 2 * half));
  }
  return at::cat(parts, 3);
}

at::Tensor allowed(const TokenLayout& text, bool causal, std::int64_t window) {
  const bool ragged = (text.lengths != text.examples.size(1)).any().item<bool>();
  const bool masked = !text.tokens.plain || window > 0 || (!causal && ragged);
  if (!masked) {
    return {};
  }
  auto out = text.examples.unsqueeze(2).eq(text.examples.unsqueeze(1));
  const auto places = at::arange(text.examples.size(1), text.examples.options());
  const auto back = places.unsqueeze(1) - places.unsqueeze(0);
  if (causal) {
    out = out.logical_and(back.ge(0));
  }
  if (window > 0) {
    out = out.logical_and(back.abs().lt(window));
  }
  return out.unsqueeze(1);
}

at::Tensor allowed_after(const Continuation& continuation, const TokenLayout& text, std::int64_t window) {
  const auto& branches = continuation.branches;
  const auto own = branches.defined() ? text.positions : text.positions.narrow(0, 0, 1);
  const auto before = continuation.beginning != nullptr ? continuation.beginning->size() : 0;
  if (before == 0 && window == 0 && !branches.defined()) {
    return {};
  }
  const auto keys = at::cat({at::arange(before, own.options()).expand({own.size(0), before}), own}, 1);
  const auto back = own.unsqueeze(2) - keys.unsqueeze(1);
  auto out = back.ge(0);
  if (window > 0) {
    out = out.logical_and(back.lt(window));
  }
  if (branches.defined()) {
    const auto of_keys = at::constant_pad_nd(branches, {before, 0}, 0).unsqueeze(1);
    out = out.logical_and(of_keys.eq(0).logical_or(of_keys.eq(branches.unsqueeze(2))));
  }
  return out.unsqueeze(1);
}

void go_on_from(const Continuation& continuation, std::int64_t layer, at::Tensor& k, at::Tensor& v) {
  if (continuation.beginning == nullptr) {
    return;
  }
  const auto block = static_cast<std::size_t>(layer);
  const auto before = [&](const at::Tensor& x) { return x.expand({k.size(0), -1, -1, -1}); };
  k = at::cat({before(continuation.beginning->keys[block]), k}, 2);
  v = at::cat({before(continuation.beginning->values[block]), v}, 2);
}

at::Tensor alibi_slopes(std::int64_t heads) {
  std::int64_t power = 1;
  while (2 * power <= heads) {
    power *= 2;
  }
  std::vector<double> out;
  for (std::int64_t h = 1; h <= power; ++h) {
    out.push_back(std::exp2(-8.0 * static_cast<double>(h) / static_cast<double>(power)));
  }
  for (std::int64_t h = 1; static_cast<std::int64_t>(out.size()) < heads; h += 2) {
    out.push_back(std::exp2(-4.0 * static_cast<double>(h) / static_cast<double>(power)));
  }
  return at::tensor(out, at::kDouble);
}

at::Tensor attention_weights(const at::Tensor& q, const at::Tensor& k, const at::Tensor& allowed,
                             const AttentionLogits& how, const at::Tensor& places) {
  const auto length = q.size(2), groups = k.size(1);
  TensorList out;
  for (std::int64_t a = 0; a < places.numel(); ++a) {
    const auto place = places[a].item<std::int64_t>(), row = place / length, token = place % length;
    const auto query = q[row].select(1, token).reshape({groups, -1, q.size(3)});
    auto logits = softcapped(at::matmul(query * how.scale, k[row].transpose(1, 2)), how.softcap);  // [G, H / G, S]
    logits = logits.to(logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    if (how.slopes.defined()) {
      const auto& key_places = how.key_places[how.key_places.size(0) == 1 ? 0 : row];
      logits = logits + how.slopes.to(logits.options()).view({groups, -1, 1}) * key_places;
    }
    if (allowed.defined()) {
      logits = logits.masked_fill(allowed[allowed.size(0) == 1 ? 0 : row][0][token].logical_not(), -INFINITY);
    } else {
      logits.narrow(2, token + 1, logits.size(2) - token - 1).fill_(-INFINITY);
    }
    out.push_back(at::softmax(logits, 2).mean(at::IntArrayRef{0, 1}));
  }
  return at::stack(out);
}

}  // namespace detail

KeyValueCache KeyValueCache::first(std::int64_t tokens) const {
  KeyValueCache out;
  for (std::size_t l = 0; l < keys.size(); ++l) {
    out.keys.push_back(keys[l].narrow(2, 0, tokens));
    out.values.push_back(values[l].narrow(2, 0, tokens));
  }
  return out;
}

}  // namespace whence
