#include <ATen/ATen.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/random.h"
#include "whence/data/dataset.h"
#include "whence/data/safetensors.h"
#include "whence/data/training_checks.h"

using namespace whence;
using test::Scratch;

namespace {

const nlohmann::json kTable{{"format", "safetensors"}, {"file", "x.safetensors"}};

Dataset read(const Scratch& scratch, const at::Tensor& inputs, const nlohmann::json& more) {
  ParameterSet tensors;
  tensors.add("inputs", inputs);
  tensors.add("targets", at::zeros({inputs.size(0)}, at::kLong));
  write_safetensors(scratch / "x.safetensors", tensors);
  auto table = kTable;
  table.update(more);
  return read_dataset(table, scratch.folder(), TargetKind::kClasses);
}

}  // namespace

TEST_SUITE_BEGIN("data");

TEST_CASE("mean and std of channels are applied as torchvision's Normalize, and pictures stay as they were") {
  const Scratch scratch;
  const auto images = Random(1).uniform({4, 3, 2, 2}, 0, 1);
  const auto data = read(scratch, images, {{"mean", {0.5, 0.25, 0.1}}, {"std", {0.2, 1, 4}}}).to(at::kDouble, at::kCPU);
  const auto batch = data.batch(0, 4).inputs;
  for (std::int64_t c = 0; c < 3; ++c) {
    const double mean[] = {0.5, 0.25, 0.1}, deviation[] = {0.2, 1, 4};
    CHECK(test::relative_error(batch.select(1, c), (images.select(1, c) - mean[c]) / deviation[c]) < 1e-14);
  }
  CHECK(at::equal(data.batch(at::tensor({2}, at::kLong)).inputs, batch.narrow(0, 2, 1)));
  CHECK(at::equal(data.take(at::tensor({2}, at::kLong)).batch(0, 1).inputs, batch.narrow(0, 2, 1)));
  CHECK(at::allclose(data.picture(2), images[2].to(at::kFloat)));
  const auto flat = read(scratch, images.select(1, 0).contiguous(), {{"mean", {0.5}}, {"std", {0.25}}});
  CHECK(test::relative_error(flat.batch(0, 4).inputs, (images.select(1, 0) - 0.5) / 0.25) < 1e-14);
}

TEST_CASE("a mean of another number of channels, or a std of none, is refused by key") {
  const Scratch scratch;
  const auto images = at::zeros({2, 3, 2, 2});
  CHECK_MESSAGE_HOLDS(InvalidArgument, "safetensors: key mean has 2 numbers, expected 1 or one for each of 3 channels",
                      read(scratch, images, {{"mean", {1, 2}}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key std = [0,1,1], expected numbers > 0",
                      read(scratch, images, {{"std", {0, 1, 1}}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key mean = \"x\", expected a number, or a list with one for each channel",
                      read(scratch, images, {{"mean", "x"}}));
  for (const auto& none : {nlohmann::json(0), nlohmann::json(-0.5), nlohmann::json{0.0}}) {
    CHECK_MESSAGE_HOLDS(InvalidArgument, fmt::format("key std = {}, expected numbers > 0", none.dump()),
                        read(scratch, images, {{"std", none}}));
  }
}

TEST_CASE("one number is the mean, or the std, of every channel") {
  const Scratch scratch;
  const auto images = Random(2).uniform({3, 3, 2, 2}, 0, 1);
  const auto one = read(scratch, images, {{"mean", 0.1307}, {"std", 2}}).batch(0, 3).inputs;
  CHECK(at::equal(one, read(scratch, images, {{"mean", {0.1307}}, {"std", {2}}}).batch(0, 3).inputs));
  CHECK(test::relative_error(one, (images.to(at::kDouble) - 0.1307) / 2) < 1e-14);
}

TEST_CASE("inputs that mean and std leave far from 0 and 1 are told, with what was measured") {
  const Scratch scratch;
  const auto pixels = Random(3).uniform({2000, 3, 2, 2}, 0, 1);  // mean 0.5, deviation 0.29
  const auto told = [&](const at::Tensor& images, const nlohmann::json& keys) {
    return input_scale_text(read(scratch, images, keys));
  };
  for (const auto& fine : std::vector<nlohmann::json>{nlohmann::json::object(),
                                                      {{"mean", 0.5}, {"std", 0.29}},
                                                      {{"mean", {0.485, 0.456, 0.406}}},
                                                      {{"std", 0.3}}}) {
    CHECK(told(pixels, fine).empty());
  }
  CHECK(told(pixels, {{"mean", 33.3}}).starts_with("mean = [33.3] leave inputs of mean -32.8 and deviation 0.2"));
  CHECK(told(pixels, {{"mean", 127.5}, {"std", 127.5}})
            .starts_with("mean = [127.5] and std = [127.5] leave inputs of mean -0.996 and deviation 0.0022"));
  CHECK(told(pixels, {{"std", {1e-3, 1e-3, 1e-3}}}).find("deviation 2") != std::string::npos);
  CHECK(told(pixels * 255, {{"mean", 0.5}, {"std", 0.29}}).find("deviation 2") != std::string::npos);  // no byte scale
  CHECK(told(pixels * 1e6, nlohmann::json::object()).empty());  // nobody said what they should be
}

TEST_SUITE_END();
