#pragma once
#include <memory>
#include <string>
#include <vector>

#include "whence/text/detail/component.h"

namespace whence::detail {

/// A stage on the way from tokens to the text, which is all of them put together in the end.
class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual void apply(std::vector<std::string>& tokens) const = 0;
};

/// The stages that a decoder of a tokenizer.json is made of, in order.
std::vector<std::unique_ptr<Decoder>> read_decoder(const Component& component);

}  // namespace whence::detail
