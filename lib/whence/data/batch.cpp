#include "whence/data/batch.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace whence {

std::string example_text(const Batch& batch, std::int64_t row) {
  return fmt::format("example {}", batch.ids.defined() ? batch.ids[row].item<std::int64_t>() : row);
}

at::Tensor sum_rows(const RowMap& map, const at::Tensor& x) { return rows_by_example(map, x).sum(1); }

at::Tensor rows_by_example(const RowMap& map, const at::Tensor& x) {
  auto shape = x.sizes().vec();
  shape[0] = map.places.size(1);
  shape.insert(shape.begin(), map.places.size(0));
  if (map.plain) {
    return x.reshape(shape);
  }
  const auto flat = map.places.flatten();
  auto mask_shape = std::vector<std::int64_t>(static_cast<std::size_t>(x.dim()), 1);
  mask_shape[0] = -1;
  return x.index_select(0, flat.clamp_min(0)).mul(flat.ge(0).view(mask_shape).to(x.scalar_type())).view(shape);
}

RowMap split_rows(const RowMap& map, std::int64_t parts) {
  RowMap out;
  out.plain = map.plain;
  if (!map.places.defined()) {  // row b is example b
    return out;
  }
  const auto of_part = at::arange(parts, map.places.options());
  const auto spread = (map.places.unsqueeze(2) * parts + of_part).flatten(1);
  out.places = spread.masked_fill(map.places.repeat_interleave(parts, 1).lt(0), -1);
  out.owners = map.owners.repeat_interleave(parts);
  out.origins = (map.origins.defined() ? map.origins : at::arange(map.owners.size(0), map.owners.options()))
                    .repeat_interleave(parts);
  return out;
}

RowMap some_rows(const RowMap& map, const at::Tensor& chosen) {
  RowMap out;
  const auto count = chosen.size(0);
  out.owners = map.owners.index_select(0, chosen);
  out.origins = map.origins.defined() ? map.origins.index_select(0, chosen) : chosen;
  // row of each place among the chosen, those that are not behind all others
  const auto numbers =
      at::full({map.owners.size(0)}, count, chosen.options()).scatter_(0, chosen, at::arange(count, chosen.options()));
  const auto found =
      at::where(map.places.ge(0), numbers.index_select(0, map.places.clamp_min(0).flatten()).view_as(map.places),
                at::full_like(map.places, count));
  const auto ordered = std::get<0>(found.sort(1));
  const auto most = ordered.numel() == 0 ? 0 : ordered.lt(count).sum(1).max().item<std::int64_t>();
  const auto kept = ordered.narrow(1, 0, most);
  out.places = kept.masked_fill(kept.ge(count), -1);
  return out;
}

at::Tensor spread_to_outputs(const Batch& batch, const at::Tensor& x) {
  return batch.predicts_tokens() ? x.index_select(0, batch.text->predictions.owners) : x;
}

at::Tensor sum_outputs(const Batch& batch, const at::Tensor& x) {
  return batch.predicts_tokens() ? sum_rows(batch.text->predictions, x) : x;
}

}  // namespace whence
