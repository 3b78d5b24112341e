#include <nlohmann/json.hpp>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/data/dataset.h"

namespace whence::test {
namespace {

using nlohmann::json;

/// A record whose pixel at (channel, row, column) is (7 channel + 3 row + column + seed) mod 256.
std::string record(const std::string& labels, int seed) {
  std::string bytes = labels;
  for (int i = 0; i < 3072; ++i) {
    bytes += static_cast<char>(7 * (i / 1024) + 3 * (i / 32 % 32) + i % 32 + seed);
  }
  return bytes;
}

TEST_SUITE_BEGIN("data");

TEST_CASE("cifar: records become [N, 3, 32, 32] in 0 to 1") {
  const Scratch scratch;
  scratch.put("batch.bin", record("\1", 0) + record("\3", 50));
  const auto data = read_dataset({{"format", "cifar"}, {"file", "batch.bin"}}, scratch.folder(), TargetKind::kClasses);
  CHECK(data.size() == 2);
  CHECK(data.input_shape() == std::vector<std::int64_t>{3, 32, 32});
  CHECK(at::equal(data.targets(), at::tensor({0, 1}, at::kLong)));
  CHECK(data.classes() == std::vector<std::string>{"1", "3"});
  const auto inputs = data.batch(0, 2).inputs;
  CHECK(inputs.is_contiguous());
  CHECK(inputs[1][2][31][4].item<double>() == doctest::Approx((7 * 2 + 3 * 31 + 4 + 50) / 255.0));
  CHECK(inputs[0][1][0][9].item<double>() == doctest::Approx((7 + 9) / 255.0));
  CHECK(at::equal(data.batch(at::tensor({1}, at::kLong)).inputs[0], inputs[1]));
}

TEST_CASE("cifar: several files are one source, and CIFAR-100's last label byte counts") {
  const Scratch scratch;
  scratch.put("one.bin", record(std::string("\0\5", 2), 1));
  scratch.put("two.bin.gz", record(std::string("\1\2", 2), 2) + record(std::string("\1\4", 2), 3));
  const json table{{"format", "cifar"}, {"files", {"one.bin", "two.bin.gz"}}, {"label-bytes", 2}};
  const auto data = read_dataset(table, scratch.folder(), TargetKind::kClasses);
  CHECK(at::equal(data.targets(), at::tensor({2, 0, 1}, at::kLong)));
  CHECK(data.files().size() == 2);
  const auto first_pixels = data.batch(0, 3).inputs.select(1, 0).select(1, 0).select(1, 0) * 255;
  CHECK(relative_error(first_pixels, at::tensor({1.0, 2.0, 3.0}, at::kDouble)) < Tolerance::kSameAlgebra);
}

TEST_CASE("cifar: what each refusal says") {
  const Scratch scratch;
  const auto read = [&](json table) {
    table["format"] = "cifar";
    return read_dataset(table, scratch.folder(), TargetKind::kClasses);
  };
  const auto whole = record("\1", 0) + record("\3", 50);
  for (const std::size_t size : {std::size_t{1}, std::size_t{3072}, std::size_t{3074}, whole.size() - 1}) {
    scratch.put("cut.bin", whole.substr(0, size));
    CHECK_MESSAGE_HOLDS(DataError, "cut.bin: " + std::to_string(size) + " bytes, expected a multiple of 3073",
                        read({{"file", "cut.bin"}}));
  }
  scratch.put("empty.bin", "");
  CHECK_MESSAGE_HOLDS(DataError, "empty.bin: no examples", read({{"file", "empty.bin"}}));
  CHECK_MESSAGE_HOLDS(DataError, "gone.bin", read({{"file", "gone.bin"}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "cifar: key file is missing", read(json::object()));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "both given", read({{"file", "a"}, {"files", {"b"}}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "cifar: key label-bytes = 3, expected 1 or 2",
                      read({{"file", "a"}, {"label-bytes", 3}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key files = \"a\", expected a list of paths", read({{"files", "a"}}));
}

TEST_CASE("cifar: real images, balanced classes") {
  const auto folder = std::filesystem::path(WHENCE_SHARED) / "data" / "image";
  if (!std::filesystem::exists(folder)) {
    MESSAGE("skipped: no ", folder.string());
    return;
  }
  const auto data =
      read_dataset({{"format", "cifar"}, {"file", "cifar10_test_1000.bin.gz"}}, folder, TargetKind::kClasses);
  CHECK(at::equal(at::bincount(data.targets()), at::full({10}, 100, at::kLong)));
  // Neighbouring pixels of photographs are alike; a wrong layout would break that.
  const auto images = data.to(at::kFloat, at::kCPU).batch(0, 100).inputs;
  const auto step = (images.slice(3, 1) - images.slice(3, 0, 31)).abs().mean().item<float>();
  CHECK(step < 0.3F * images.std().item<float>());
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
