#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "whence/data/coarse_inputs.h"

using namespace whence;

namespace {

Dataset table(const at::Tensor& inputs) {
  Dataset::Contents contents;
  contents.inputs = inputs;
  contents.targets = at::zeros({inputs.size(0)}, at::kLong);
  contents.classes = {"a"};
  contents.ids = at::arange(inputs.size(0));
  return Dataset(std::move(contents));
}

}  // namespace

TEST_SUITE_BEGIN("data");

TEST_CASE("an input whose differences float32 rounds away is found, from what is stored") {
  const auto steps = at::arange(50, at::kDouble);
  // milliseconds since 1970; a common feature; a constant; a large one that is spread out; one for float64
  const auto inputs =
      at::stack({1.7e12 + steps, steps / 50, at::full({50}, 1e12, at::kDouble), 1e6 * steps, 1e6 + steps}, 1);
  const auto narrow = table(inputs).to(at::kFloat, at::kCPU);  // batches are rounded already
  const auto found = coarse_inputs(narrow, at::kFloat);
  REQUIRE(found.size() == 2);
  CHECK(found[1].index == 4);
  CHECK(found[0].index == 0);
  CHECK(found[0].magnitude == 1.7e12 + 49);
  CHECK(found[0].spread == 49);
  const auto in_double = coarse_inputs(narrow, at::kDouble);
  REQUIRE(in_double.size() == 1);  // its squares take 80 bits
  CHECK(in_double[0].index == 0);
  const auto text = coarse_inputs_text(found, {}, at::kFloat, false);
  CHECK(text.find("input 0 goes up to 1.7e+12 and differs between examples by 49") != std::string::npos);
  CHECK(text.find("(1 more inputs likewise)") != std::string::npos);
  CHECK(text.find("standardize = true); --dtype float64 alone helps little") != std::string::npos);
  const auto trained = coarse_inputs_text({found[1]}, {}, at::kFloat, true);  // other inputs need another training
  CHECK(trained.ends_with("use --dtype float64, or subtract its mean (a table: standardize = true) and train again"));
  CHECK(coarse_inputs_text(found, {"t", "b"}, at::kFloat, true).starts_with("column t goes"));
  CHECK(coarse_inputs_text({}, {}, at::kFloat, true).empty());
}

TEST_SUITE_END();
