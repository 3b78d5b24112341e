#pragma once
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "whence/text/detail/component.h"
#include "whence/text/tokenizer.h"

namespace whence::detail {

/// How many white characters a token begins and ends with.
struct Margins {
  std::uint32_t left = 0, right = 0;
};
Margins margins_of(std::string_view token);

/// The tokens of a text, or some that were added.
struct EncodedPart {
  std::string_view text;  // empty for tokens that were added
  Encoding encoding;
  std::vector<Margins> margins;  // of each token; may be empty where no stage trims
};

/// A stage that sees the tokens of one text or two and puts others around them.
class PostProcessor {
 public:
  virtual ~PostProcessor() = default;
  virtual void apply(std::vector<EncodedPart>& parts, bool add_special_tokens) const = 0;
  virtual bool trims() const { return false; }  // whether it reads the margins
};

/// The stages that a post-processor of a tokenizer.json is made of, in order.
std::vector<std::unique_ptr<PostProcessor>> read_post_processor(const Component& component);

}  // namespace whence::detail
