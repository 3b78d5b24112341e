#pragma once
#include <memory>
#include <vector>

#include "whence/text/detail/aligned_text.h"
#include "whence/text/detail/component.h"

namespace whence::detail {

/// A stage that rewrites a text before it is cut into words.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(AlignedText& text) const = 0;
};

/// The stages that a normalizer of a tokenizer.json is made of, in order.
std::vector<std::unique_ptr<Normalizer>> read_normalizer(const Component& component);

/// SentencePiece's own: a map from byte strings to texts.
std::unique_ptr<Normalizer> read_precompiled(const Component& component);

}  // namespace whence::detail
