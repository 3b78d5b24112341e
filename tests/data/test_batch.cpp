#include <ATen/ATen.h>

#include "support/near.h"
#include "whence/data/batch.h"

namespace whence::test {
namespace {

at::Tensor longs(std::initializer_list<std::int64_t> values) {
  return at::tensor(at::ArrayRef<std::int64_t>(values), at::kLong);
}

/// Five rows: 0 and 3 are example 0's, 2 is example 1's, 1 and 4 are padding.
RowMap made_map() {
  RowMap map;
  map.owners = longs({0, 0, 1, 0, 0});
  map.places = longs({0, 3, 2, -1}).view({2, 2});
  return map;
}

TEST_SUITE_BEGIN("data");

TEST_CASE("rows that become several each keep their examples") {
  const auto map = split_rows(made_map(), 2);
  CHECK(at::equal(map.places, longs({0, 1, 6, 7, 4, 5, -1, -1}).view({2, 4})));
  CHECK(at::equal(map.owners, longs({0, 0, 0, 0, 1, 1, 0, 0, 0, 0})));
  CHECK(at::equal(map.origins, longs({0, 0, 1, 1, 2, 2, 3, 3, 4, 4})));
  const auto x = at::arange(10, at::kDouble);
  CHECK(at::equal(sum_rows(map, x), at::tensor({0.0 + 1 + 6 + 7, 4.0 + 5}, at::kDouble)));
  CHECK_FALSE(split_rows(RowMap{}, 3).places.defined());
}

TEST_CASE("some of the rows keep their examples, in order, and padding is nobody's") {
  const auto map = some_rows(made_map(), longs({1, 2, 3}));
  CHECK(at::equal(map.places, longs({2, 1}).view({2, 1})));
  CHECK(at::equal(map.owners, longs({0, 1, 0})));
  CHECK(at::equal(map.origins, longs({1, 2, 3})));
  CHECK(at::equal(sum_rows(map, at::tensor({100.0, 5.0, 7.0}, at::kDouble)), at::tensor({7.0, 5.0}, at::kDouble)));
  const auto none = some_rows(made_map(), longs({}));
  CHECK(none.places.sizes() == at::IntArrayRef({2, 0}));
  CHECK(at::equal(sum_rows(none, at::zeros({0, 3}, at::kDouble)), at::zeros({2, 3}, at::kDouble)));
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
