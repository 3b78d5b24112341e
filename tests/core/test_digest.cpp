#include <ATen/ATen.h>

#include "support/near.h"
#include "whence/core/digest.h"

using namespace whence;

namespace {

std::string of(const at::Tensor& tensor) { return Digest().add(tensor).text(); }

}  // namespace

TEST_SUITE_BEGIN("core");

TEST_CASE("a digest of bytes is sha256sum's; of parts, it knows where one ends") {
  const std::string_view abc = "abc";  // FIPS 180-4
  CHECK(Digest()
            .bytes(std::as_bytes(std::span(abc.data(), 1)))
            .bytes(std::as_bytes(std::span(abc.data() + 1, 2)))
            .text() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(Digest().add("ab").add("c").text() != Digest().add("a").add("bc").text());
}

TEST_CASE("a digest of a tensor knows its type, shape and every value, however it lies in memory") {
  const auto x = at::arange(12, at::kInt).view({3, 4});
  CHECK(of(x) == of(x.clone()));
  CHECK(of(x.t()) == of(x.t().contiguous()));
  CHECK(of(x.narrow(1, 1, 2)) == of(x.narrow(1, 1, 2).clone()));
  CHECK(of(x.t()) != of(x));
  CHECK(of(x) != of(x.view({4, 3})));
  CHECK(of(x) != of(x.view(at::kFloat)));
  CHECK(of(at::Tensor()) != of(at::empty({0})));
  for (std::int64_t i = 0; i < 12; ++i) {
    auto other = x.clone();
    other.view({-1})[i] += 1;
    CHECK(of(other) != of(x));
  }
}

TEST_SUITE_END();
