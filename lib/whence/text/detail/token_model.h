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

/// `token`, once it is known not to be so long that looking for it takes time in proportion to its square. Throws
/// DataError of `component`.
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
  /// From now on words come as they are, not spelled in letters for bytes, and tokens span their bytes. False, and
  /// nothing has changed, where the model cannot do so with the same tokens.
  virtual bool read_bytes() { return false; }
  /// The token for what the vocabulary does not have, where there is one.
  virtual std::string unknown_token() const = 0;
};

std::unique_ptr<TokenModel> read_model(const Component& component);

std::unique_ptr<TokenModel> read_bpe(const Component& component);
std::unique_ptr<TokenModel> read_unigram(const Component& component);
std::unique_ptr<TokenModel> read_word_piece(const Component& component);
std::unique_ptr<TokenModel> read_word_level(const Component& component);

/// "<0x0A>": the token of a byte, for vocabularies that spell unknown characters so.
std::string byte_token(unsigned char byte);

}  // namespace whence::detail
