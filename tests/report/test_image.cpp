#include <png.h>

#include <cmath>

#include "support/near.h"
#include "whence/core/error.h"
#include "whence/report/image.h"

using namespace whence;

namespace {

/// [H, W, C] uint8 of PNG bytes, read by libpng as `format`.
at::Tensor decode(const std::string& bytes, png_uint_32 format) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  REQUIRE(png_image_begin_read_from_memory(&png, bytes.data(), bytes.size()) != 0);
  CHECK(png.format == format);
  auto out = at::empty({png.height, png.width, PNG_IMAGE_SAMPLE_CHANNELS(format)}, at::kByte);
  REQUIRE(png_image_finish_read(&png, nullptr, out.data_ptr(), 0, nullptr) != 0);
  return out;
}

}  // namespace

TEST_SUITE("report") {
  TEST_CASE("base64 of RFC 4648, section 10, and of bytes above 127") {
    CHECK(base64("") == "");
    CHECK(base64("f") == "Zg==");
    CHECK(base64("fo") == "Zm8=");
    CHECK(base64("foo") == "Zm9v");
    CHECK(base64("foob") == "Zm9vYg==");
    CHECK(base64("fooba") == "Zm9vYmE=");
    CHECK(base64("foobar") == "Zm9vYmFy");
    CHECK(base64(std::string("\xff\xfe\x00", 3)) == "//4A");
    CHECK(base64("\xfb\xef\xbe") == "++++");
  }

  TEST_CASE("grey and colour images decode to the same pixels") {
    const auto grey = at::arange(6, at::kByte).mul(50).view({2, 3});
    CHECK(decode(encode_png(grey), PNG_FORMAT_GRAY).squeeze(2).equal(grey));
    CHECK(decode(encode_png(grey.unsqueeze(0)), PNG_FORMAT_GRAY).squeeze(2).equal(grey));
    const auto colour = at::arange(60, at::kByte).mul(4).view({3, 4, 5});
    CHECK(decode(encode_png(colour), PNG_FORMAT_RGB).permute({2, 0, 1}).equal(colour));
    CHECK(decode(encode_png(colour.transpose(1, 2)), PNG_FORMAT_RGB).permute({2, 1, 0}).equal(colour));
  }

  TEST_CASE("floating values are clamped and rounded") {
    const auto image = at::tensor({-3.0, 0.0, 0.5, 1.0, 7.0, 100.4 / 255}, at::kDouble).view({1, 6});
    const auto expected = at::tensor({0, 0, 128, 255, 255, 100}, at::kByte);
    CHECK(decode(encode_png(image), PNG_FORMAT_GRAY).view({6}).equal(expected));
    CHECK(decode(encode_png(image.to(at::kFloat)), PNG_FORMAT_GRAY).view({6}).equal(expected));
    CHECK(decode(encode_png(image.to(at::kBFloat16)), PNG_FORMAT_GRAY).size(1) == 6);
  }

  TEST_CASE("a data address holds the PNG") {
    const auto image = at::zeros({2, 2}, at::kByte);
    CHECK(image_data_uri(image) == "data:image/png;base64," + base64(encode_png(image)));
    CHECK(image_data_uri(image).starts_with("data:image/png;base64,iVBORw0KGgo"));
  }

  TEST_CASE("what is no image is refused") {
    CHECK_THROWS_AS(encode_png(at::zeros({2, 4, 4})), InvalidArgument);
    CHECK_THROWS_AS(encode_png(at::zeros({4})), InvalidArgument);
    CHECK_THROWS_AS(encode_png(at::zeros({1, 3, 4, 4})), InvalidArgument);
    CHECK_THROWS_AS(encode_png(at::zeros({0, 4})), InvalidArgument);
    CHECK_THROWS_AS(encode_png(at::zeros({4, 4}, at::kLong)), InvalidArgument);
    CHECK_THROWS_AS(encode_png(at::full({2, 2}, NAN)), NumericalError);
  }
}
