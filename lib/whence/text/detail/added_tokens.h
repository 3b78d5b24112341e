#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "whence/text/detail/token_model.h"
#include "whence/text/detail/trie.h"

namespace whence::detail {

/// Tokens found in a text before the model sees it.
class AddedTokens {
 public:
  AddedTokens() = default;
  /// The list "added_tokens": each has the id of the model's vocabulary, or the next one behind it, whatever the file
  /// says. `normalize` is what the tokenizer does to a text before it is cut into words. Special ones are looked for in
  /// texts where `find_special`.
  AddedTokens(const std::vector<Component>& list, const Vocabulary& vocabulary,
              const std::function<std::string(std::string)>& normalize, bool find_special = true);

  /// A part of a text: a token, or, where `id` is none, what lies between tokens.
  struct Part {
    Span span;
    std::int32_t id;
  };
  /// The parts of an input, by the tokens that are looked for there.
  std::vector<Part> split_input(std::string_view text) const { return split(text, as_written_); }
  /// The parts of a normalized text, by the other tokens.
  std::vector<Part> split_normalized(std::string_view text) const { return split(text, normalized_); }

  std::int32_t find(std::string_view token) const;
  std::string_view token(std::int32_t id) const;    // empty for an id that is not of an added token
  std::string_view spelled(std::int32_t id) const;  // the token as the normalizer leaves it
  bool is_special(std::string_view token) const { return special_.contains(std::string(token)); }
  std::int32_t end() const { return end_; }  // 1 + the highest id; 0 without tokens

 private:
  struct Entry {
    std::string content, spelled;
    bool single_word, strip_left, strip_right, normalized;
  };
  /// Tokens that are looked for in one kind of text.
  struct Finder {
    Trie tokens;
    std::array<bool, 256> begins{};  // whether one begins with this byte
    void add(std::string_view token, std::int32_t id);
    /// The longest token at `at`, or an empty one.
    Part find(std::string_view text, std::size_t at) const;
  };
  std::vector<Part> split(std::string_view text, const Finder& finder) const;

  std::unordered_map<std::int32_t, Entry> entries_;
  std::unordered_map<std::string, std::int32_t> ids_;
  std::unordered_set<std::string> special_;
  Finder as_written_, normalized_;
  std::int32_t end_ = 0;
};

}  // namespace whence::detail
