#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "whence/text/detail/aligned_text.h"
#include "whence/text/detail/component.h"

namespace whence::detail {

/// `token`. Throws DataError of `component` where it is too long: to look for tokens takes time in proportion to the
/// square of the longest.
std::string checked_token(const Component& component, std::string token);

/// Tokens by id and ids by token.
class Vocabulary {
 public:
  /// Throws DataError of `component` unless its key "vocab" is an object of ids.
  static Vocabulary read(const Component& component);

  static constexpr std::int32_t kNone = -1;
  void add(std::string token, std::int32_t id);
  std::int32_t find(std::string_view token) const;
  std::string_view token(std::int32_t id) const;                                  // empty where no token has the id
  std::int32_t end() const { return static_cast<std::int32_t>(tokens_.size()); }  // 1 + the highest id
  std::size_t count() const { return ids_.size(); }
  std::size_t longest() const { return longest_; }  // bytes of a token, at most

 private:
  std::deque<std::string> texts_;  // stay where they are
  std::unordered_map<std::string_view, std::int32_t> ids_;
  std::vector<std::string_view> tokens_;
  std::size_t longest_ = 0;
};

/// The tokens "<0x00>" to "<0xFF>", with which some vocabularies spell characters that they do not have.
class ByteTokens {
 public:
  ByteTokens() = default;  // none
  explicit ByteTokens(const Vocabulary& vocabulary);

  bool empty() const { return ids_.empty(); }
  bool can_spell(std::string_view text) const;  // whether every byte of it has a token
  std::int32_t operator[](char byte) const { return ids_[static_cast<unsigned char>(byte)]; }

 private:
  std::vector<std::int32_t> ids_;  // of each byte
};

/// A token, and which bytes of the word it stands for.
struct Token {
  std::int32_t id;
  Span span;
};

/// What makes tokens of words.
class TokenModel {
 public:
  virtual ~TokenModel() = default;
  /// Appends the tokens of a word, which is not empty.
  virtual void encode(std::string_view word, std::vector<Token>& tokens) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
  /// Switches from words whose bytes are spelled in letters to words as they are, whose bytes tokens then span. False,
  /// and nothing has changed, where the model cannot do so with the same tokens.
  virtual bool take_raw_bytes() { return false; }
  /// The token for what the vocabulary does not have, where there is one.
  virtual std::string unknown_token() const = 0;
};

std::unique_ptr<TokenModel> read_model(const Component& component);

std::unique_ptr<TokenModel> read_bpe(const Component& component);
std::unique_ptr<TokenModel> read_unigram(const Component& component);
std::unique_ptr<TokenModel> read_word_piece(const Component& component);
std::unique_ptr<TokenModel> read_word_level(const Component& component);

}  // namespace whence::detail
