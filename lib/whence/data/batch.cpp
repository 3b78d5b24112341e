#include "whence/data/batch.h"

#include <ATen/ATen.h>

namespace whence {

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

at::Tensor spread_to_outputs(const Batch& batch, const at::Tensor& x) {
  return batch.predicts_tokens() ? x.index_select(0, batch.text->predictions.owners) : x;
}

at::Tensor sum_outputs(const Batch& batch, const at::Tensor& x) {
  return batch.predicts_tokens() ? sum_rows(batch.text->predictions, x) : x;
}

}  // namespace whence
