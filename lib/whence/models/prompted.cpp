#include "whence/models/detail/prompted.h"

#include <ATen/ATen.h>

namespace whence::detail {

at::Tensor Prompted::now(const at::Tensor& before) const {
  return places.defined() ? places.index_select(0, before) : before;
}

Prompted prompted(const Batch& texts, std::int64_t tokens) {
  if (tokens == 0) {
    return {texts, {}, {}, {}, {}};
  }
  const auto& text = *texts.text;
  const auto rows = texts.inputs.size(0), length = texts.inputs.size(1), count = texts.size(), places = rows * length;
  const auto longs = texts.inputs.options();
  const auto real = text.examples.ge(0);
  const auto begun = real.logical_and(text.positions.eq(0)).cumsum(1);  // [R, T]: texts of the row up to a place
  const auto width = length + tokens * begun.max().item<std::int64_t>();
  const auto row_starts = at::arange(rows, longs).unsqueeze(1) * width;
  const auto shifted = (row_starts + at::arange(length, longs) + tokens * begun).flatten();
  const auto first = text.tokens.places.select(1, 0);  // [B]
  const auto virtual_places =
      shifted.index_select(0, first).unsqueeze(1) - tokens + at::arange(tokens, longs);  // [B, P]

  Prompted out;
  out.places = shifted.masked_fill(real.flatten().logical_not(), 0);
  out.sources = at::full({rows * width}, places + count * tokens, longs);
  const auto were = real.flatten().nonzero().squeeze(1);
  out.sources.index_put_({shifted.index_select(0, were)}, were);
  out.sources.index_put_({virtual_places.flatten()}, at::arange(places, places + count * tokens, longs));
  const auto laid_out = [&](const at::Tensor& of_texts, const at::Tensor& of_prompts, std::int64_t of_padding) {
    return at::cat({of_texts.flatten(), of_prompts.flatten(), at::full({1}, of_padding, longs)})
        .index_select(0, out.sources);
  };
  const auto owners = at::arange(count, longs).unsqueeze(1).expand({count, tokens});
  const auto nothing = at::zeros({count, tokens}, longs);

  out.batch = texts;
  auto& seen = *out.batch.text;
  const auto shape = std::vector<std::int64_t>{rows, width};
  out.batch.inputs = laid_out(texts.inputs, nothing - 1, 0).view(shape);
  seen.examples = laid_out(text.examples, owners, -1).view(shape);
  seen.positions = laid_out(text.positions + tokens, at::arange(tokens, longs).expand({count, tokens}), 0).view(shape);
  seen.lengths = text.lengths + tokens;
  if (text.types.defined()) {
    seen.types = laid_out(text.types, nothing, 0).view(shape);
  }
  const auto& old = text.tokens.places;
  const auto moved = shifted.index_select(0, old.clamp_min(0).flatten()).view_as(old);
  seen.tokens.places = at::cat({virtual_places, moved.masked_fill(old.lt(0), -1)}, 1);
  seen.tokens.owners = seen.examples.flatten().clamp_min(0);
  seen.tokens.origins = laid_out(at::arange(places, longs), first.unsqueeze(1).expand({count, tokens}), 0);
  out.texts = text.tokens;
  out.prompts.owners = owners.flatten();
  out.prompts.places = at::arange(count * tokens, longs).view({count, tokens});
  out.prompts.origins = first.repeat_interleave(tokens);
  out.prompts.plain = true;
  return out;
}

}  // namespace whence::detail
