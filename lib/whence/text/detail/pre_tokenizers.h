#pragma once
#include <memory>
#include <vector>

#include "whence/text/detail/aligned_text.h"
#include "whence/text/detail/component.h"

namespace whence::detail {

/// A text cut into words, none of them empty.
struct Words {
  AlignedText text;
  std::vector<Span> spans;  // in order; what lies between them is dropped
};

/// A stage that cuts words further, or rewrites them.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(Words& words) const = 0;
  /// Whether all this does is to spell every byte as a character of its own.
  virtual bool spells_bytes() const { return false; }
};

/// The stages that a pre-tokenizer of a tokenizer.json is made of, in order.
std::vector<std::unique_ptr<PreTokenizer>> read_pre_tokenizer(const Component& component);

}  // namespace whence::detail
