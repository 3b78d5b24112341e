#include "whence/core/digest.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/evp.h>

#include <array>

#include "whence/core/chunks.h"
#include "whence/core/error.h"

namespace whence {
namespace {

void check(bool done) {
  if (!done) {
    throw Error("SHA-256 failed: not enough memory");  // nothing else makes it fail
  }
}

/// OpenSSL's first use ends the program where it runs out of memory: it begins where there is some.
const EVP_MD* sha256() {
  static const EVP_MD* const method = [] {
    constexpr std::int64_t kEnough = 4 << 20;
    at::empty({kEnough}, at::kByte);
    return EVP_MD_fetch(nullptr, "SHA256", nullptr);
  }();
  check(method != nullptr);
  return method;
}

}  // namespace

struct Digest::Context {
  Context() { check(evp != nullptr); }
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> evp{EVP_MD_CTX_new(), EVP_MD_CTX_free};
};

Digest::Digest() : context_(std::make_unique<Context>()) {
  check(EVP_DigestInit_ex(context_->evp.get(), sha256(), nullptr) == 1);
}

Digest::~Digest() = default;

Digest& Digest::bytes(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(context_->evp.get(), bytes.data(), bytes.size()) == 1);
  return *this;
}

Digest& Digest::add(std::string_view text) {
  const auto size = static_cast<std::uint64_t>(text.size());
  bytes(std::as_bytes(std::span(&size, 1)));
  return bytes(std::as_bytes(std::span(text.data(), text.size())));
}

Digest& Digest::add(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    return add("undefined");
  }
  add(fmt::format("{} [{}]", c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ", ")));
  return values(tensor);
}

Digest& Digest::values(const at::Tensor& tensor) {
  const auto piece = [this](const at::Tensor& part) {
    const auto held = part.detach().cpu().contiguous();
    bytes(std::as_bytes(std::span(static_cast<const char*>(held.const_data_ptr()), held.nbytes())));
  };
  if (tensor.dim() == 0 || (tensor.is_cpu() && tensor.is_contiguous())) {
    piece(tensor);
  } else {
    const auto count = tensor.size(0);
    in_chunks(count, static_cast<std::int64_t>(tensor.nbytes()) / std::max<std::int64_t>(1, count),
              [&](std::int64_t begin, std::int64_t length) { piece(tensor.narrow(0, begin, length)); });
  }
  return *this;
}

std::string Digest::text() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
  unsigned length = 0;
  check(EVP_DigestFinal_ex(context_->evp.get(), hash.data(), &length) == 1);
  return fmt::format("{:02x}", fmt::join(hash.begin(), hash.begin() + length, ""));
}

}  // namespace whence
