#include <cstring>
#include <nlohmann/json.hpp>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/data/dataset.h"

namespace whence::test {
namespace {

using nlohmann::json;

/// An IDX file: type byte, sizes, then the entries' bytes.
std::string idx(int type, const std::vector<int>& sizes, const std::string& data) {
  std::string bytes{0, 0, static_cast<char>(type), static_cast<char>(sizes.size())};
  for (const int size : sizes) {
    for (const int shift : {24, 16, 8, 0}) {
      bytes += static_cast<char>(size >> shift);
    }
  }
  return bytes + data;
}

template <class T>
std::string big_endian(const std::vector<T>& values) {
  std::string bytes;
  for (const T value : values) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes.append(std::reverse_iterator(raw + sizeof(T)), std::reverse_iterator(raw));
  }
  return bytes;
}

const std::string kImages = idx(8, {3, 2, 2}, std::string("\0\1\2\3\4\5\6\7\x08\x09\x0a\xff", 12));
const std::string kLabels = idx(8, {3}, std::string("\2\0\1", 3));

Dataset read(const Scratch& scratch, const std::string& images = "images", const std::string& labels = "labels") {
  return read_dataset({{"format", "idx"}, {"images", images}, {"labels", labels}}, scratch.folder(),
                      TargetKind::kClasses);
}

TEST_SUITE_BEGIN("data");

TEST_CASE("idx: bytes, plain and gzipped, become [N, H, W] in 0 to 1") {
  const Scratch scratch;
  scratch.put("images", kImages);
  scratch.put("labels.gz", kLabels);
  scratch.put("images.gz", kImages);
  for (const std::string images : {"images", "images.gz"}) {
    const auto data = read(scratch, images, "labels.gz");
    CHECK(data.size() == 3);
    CHECK(data.input_shape() == std::vector<std::int64_t>{2, 2});
    CHECK(data.classes() == std::vector<std::string>{"0", "1", "2"});
    CHECK(at::equal(data.targets(), at::tensor({2, 0, 1}, at::kLong)));
    CHECK(at::equal(data.ids(), at::arange(3, at::kLong)));
    CHECK(data.files() == std::vector<std::filesystem::path>{scratch / images, scratch / "labels.gz"});
    const auto expected = at::tensor({8.0, 9.0, 10.0, 255.0}, at::kDouble).view({2, 2}) / 255;
    CHECK(relative_error(data.batch(0, 3).inputs[2], expected) < Tolerance::kSameAlgebra);
  }
}

TEST_CASE("idx: every number type is big-endian and, but for bytes, unscaled") {
  const Scratch scratch;
  scratch.put("labels", idx(8, {2}, std::string("\0\1", 2)));
  const auto expected = at::tensor({-2.0, 100.0}, at::kDouble).view({2, 1});
  const std::map<int, std::string> files{{0x09, big_endian<std::int8_t>({-2, 100})},
                                         {0x0B, big_endian<std::int16_t>({-2, 100})},
                                         {0x0C, big_endian<std::int32_t>({-2, 100})},
                                         {0x0D, big_endian<float>({-2, 100})},
                                         {0x0E, big_endian<double>({-2, 100})}};
  for (const auto& [type, data] : files) {
    INFO("type ", type);
    scratch.put("images", idx(type, {2, 1}, data));
    CHECK(at::equal(read(scratch).batch(0, 2).inputs, expected));
  }
}

TEST_CASE("idx: floating labels are values") {
  const Scratch scratch;
  scratch.put("images", kImages);
  scratch.put("labels", idx(0x0D, {3}, big_endian<float>({0.5F, -1, 2})));
  const auto data = read(scratch);
  CHECK(data.target_kind() == TargetKind::kValues);
  CHECK(at::equal(data.batch(0, 3).targets, at::tensor({0.5, -1.0, 2.0}, at::kDouble).view({3, 1})));
}

TEST_CASE("idx: truncated anywhere, either file is refused by name") {
  const Scratch scratch;
  scratch.put("labels", kLabels);
  for (std::size_t size = 0; size < kImages.size(); ++size) {
    INFO("first ", size, " bytes of the images");
    scratch.put("images", kImages.substr(0, size));
    CHECK_MESSAGE_HOLDS(DataError, (scratch / "images").string() + ": ", read(scratch));
  }
  scratch.put("images", kImages);
  for (std::size_t size = 0; size < kLabels.size(); ++size) {
    INFO("first ", size, " bytes of the labels");
    scratch.put("labels", kLabels.substr(0, size));
    CHECK_MESSAGE_HOLDS(DataError, (scratch / "labels").string() + ": ", read(scratch));
  }
}

TEST_CASE("idx: what each refusal says") {
  const Scratch scratch;
  const auto refuse = [&](const std::string& images, const std::string& labels, const std::string& part) {
    scratch.put("images", images);
    scratch.put("labels", labels);
    CHECK_MESSAGE_HOLDS(DataError, part, read(scratch));
  };
  refuse("abc", kLabels, "images: 3 bytes, expected at least the 4");
  refuse(std::string("\0\0\x08\3\0\0", 6), kLabels, "images: 6 bytes, expected 16 for the sizes of 3 dimensions");
  refuse("abcdef", kLabels, "magic number 61626364, expected 0000");
  refuse(idx(7, {3, 4}, std::string(12, 'x')), kLabels, "magic number 00000702");
  refuse(idx(8, {}, "x"), kLabels, "magic number 00000800");
  refuse(idx(8, {3, 4}, std::string(11, 'x')), kLabels, "11 bytes from byte 12 on, expected 12 for the sizes [3, 4]");
  refuse(idx(8, {3, 4}, std::string(13, 'x')), kLabels, "13 bytes from byte 12 on, expected 12");
  refuse(idx(0x0E, {-1, -1, -1}, "x"), kLabels, "expected more than 2^63 for the sizes [4294967295");
  refuse(kLabels, kLabels, "images: 1 dimension, expected images");
  refuse(kImages, kImages, "labels: 3 dimensions, expected labels with 1");
  refuse(kImages, idx(8, {2}, std::string("\0\1", 2)), "3 inputs, but 2 targets in " + (scratch / "labels").string());
  refuse(idx(8, {0, 2}, ""), idx(8, {0}, ""), "images: no examples");
  refuse(idx(0x0D, {1, 2}, big_endian<float>({1, NAN})), idx(8, {1}, std::string(1, '\0')),
         "images: the inputs of example 0 hold NaN");
  refuse(kImages, idx(0x0D, {3}, big_endian<float>({1, 2, INFINITY})), "labels: the targets of example 2 hold NaN");
  refuse(kImages, idx(0x09, {3}, std::string("\0\1\xff", 3)),
         "labels: example 2: label -1, expected >= 0; drop-labels = [-1]");

  CHECK_MESSAGE_HOLDS(DataError, (scratch / "gone").string(), read(scratch, "gone"));
  std::filesystem::create_directory(scratch / "folder");
  CHECK_MESSAGE_HOLDS(DataError, "not a regular file", read(scratch, "folder"));
  const auto packed = bytes_of(scratch.put("packed.gz", kImages));
  std::ofstream(scratch / "packed.gz", std::ios::binary) << packed.substr(0, packed.size() - 9);
  CHECK_MESSAGE_HOLDS(DataError, "packed.gz: damaged or truncated gzip stream", read(scratch, "packed.gz"));
}

TEST_CASE("idx: MNIST") {
  const auto folder = std::filesystem::path(WHENCE_SHARED) / "data" / "image";
  if (!std::filesystem::exists(folder)) {
    MESSAGE("skipped: no ", folder.string());
    return;
  }
  const json table{{"format", "idx"},
                   {"images", "mnist-t10k-images-idx3-ubyte.gz"},
                   {"labels", "mnist-t10k-labels-idx1-ubyte.gz"},
                   {"classes", {5, 6}},
                   {"limit", 500}};
  const auto data = read_dataset(table, folder, TargetKind::kClasses);
  CHECK(data.size() == 500);
  CHECK(data.input_shape() == std::vector<std::int64_t>{28, 28});
  CHECK(data.classes() == std::vector<std::string>{"5", "6"});
  // The test set begins 7 2 1 0 4 1 4 9 5 9 0 6.
  CHECK(at::equal(data.ids().slice(0, 0, 2), at::tensor({8, 11}, at::kLong)));
  CHECK(at::equal(data.targets().slice(0, 0, 2), at::tensor({0, 1}, at::kLong)));
  const auto batch = data.to(at::kFloat, at::kCPU).batch(0, 500);
  CHECK(batch.inputs.max().item<float>() == doctest::Approx(1));
  CHECK(batch.inputs.mean().item<float>() == doctest::Approx(0.13).epsilon(0.1));
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
