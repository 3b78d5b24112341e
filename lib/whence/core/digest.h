#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace whence {

/// SHA-256 of things one after the other, as hexadecimal. Nothing is copied but tensors that are not contiguous or on a
/// device, a piece at a time. 0.5 to 2 s a GB.
class Digest {
 public:
  Digest();
  ~Digest();
  /// The bytes as they are: text() is then what `sha256sum` prints of them.
  Digest& bytes(std::span<const std::byte> bytes);
  /// With its length, so that "ab", "c" is another thing than "a", "bc".
  Digest& add(std::string_view text);
  /// With its type and shape; undefined counts too.
  Digest& add(const at::Tensor& tensor);
  /// The values alone, in rows' order.
  Digest& values(const at::Tensor& tensor);
  /// Once, at the end. 64 characters.
  std::string text();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace whence
