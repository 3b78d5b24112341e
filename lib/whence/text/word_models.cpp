#include <fmt/format.h>

#include "whence/core/error.h"
#include "whence/text/detail/token_model.h"
#include "whence/text/detail/unicode.h"

namespace whence::detail {
namespace {

/// What WordPiece and WordLevel have in common: a word they do not know is one unknown token.
class WordModel : public TokenModel {
 public:
  WordModel(const Component& component, std::string_view unknown_token)
      : vocabulary_(Vocabulary::read(component)),
        unknown_token_(component.text_or("unk_token", unknown_token)),
        unknown_(vocabulary_.find(unknown_token_)) {}

  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::string unknown_token() const override { return unknown_token_; }

 protected:
  void put_unknown(std::string_view word, std::vector<Token>& tokens) const {
    if (unknown_ == Vocabulary::kNone) {
      throw DataError(
          fmt::format("\"{}\" is not in the vocabulary, nor is the unknown token \"{}\"", word, unknown_token_));
    }
    tokens.push_back({unknown_, {0, static_cast<std::uint32_t>(word.size())}});
  }

 private:
  Vocabulary vocabulary_;
  std::string unknown_token_;
  std::int32_t unknown_;
};

/// A word is one token, or unknown.
class WordLevel : public WordModel {
 public:
  explicit WordLevel(const Component& component) : WordModel(component, "<unk>") {}

  void encode(std::string_view word, std::vector<Token>& tokens) const override {
    const auto id = vocabulary().find(word);
    if (id == Vocabulary::kNone) {
      put_unknown(word, tokens);
    } else {
      tokens.push_back({id, {0, static_cast<std::uint32_t>(word.size())}});
    }
  }
};

/// The longest token that begins the word, then the longest that goes on. M. Schuster and K. Nakajima, "Japanese and
/// Korean Voice Search", 2012.
class WordPiece : public WordModel {
 public:
  explicit WordPiece(const Component& component)
      : WordModel(component, "[UNK]"),
        prefix_(component.text_or("continuing_subword_prefix", "##")),
        longest_(component.has("max_input_chars_per_word") ? component.count("max_input_chars_per_word") : 100) {}

  void encode(std::string_view word, std::vector<Token>& tokens) const override {
    const auto first = tokens.size();
    if (characters(word) > longest_) {
      put_unknown(word, tokens);
      return;
    }
    std::string candidate;
    for (std::size_t begin = 0; begin < word.size();) {
      candidate = begin > 0 ? prefix_ : "";
      const auto prefix_size = candidate.size();
      candidate += word.substr(begin, whole_characters(word, begin, vocabulary().longest()));
      auto id = vocabulary().find(candidate);
      while (id == Vocabulary::kNone && candidate.size() > prefix_size) {
        candidate.resize(character_begin(candidate, candidate.size() - 1));
        id = candidate.size() > prefix_size ? vocabulary().find(candidate) : Vocabulary::kNone;
      }
      if (id == Vocabulary::kNone) {
        tokens.resize(first);
        put_unknown(word, tokens);
        return;
      }
      const auto end = begin + candidate.size() - prefix_size;
      tokens.push_back({id, {static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end)}});
      begin = end;
    }
  }

 private:
  /// Bytes from `begin` on, at most so many and no part of a character; the first one always.
  static std::size_t whole_characters(std::string_view word, std::size_t begin, std::size_t most) {
    return begin + most >= word.size()
               ? word.size() - begin
               : std::max(character_begin(word, begin + most), character_end(word, begin)) - begin;
  }
  static std::int64_t characters(std::string_view word) {
    std::int64_t count = 0;
    for (std::size_t at = 0; at < word.size(); ++count) {
      at = character_end(word, at);
    }
    return count;
  }

  std::string prefix_;
  std::int64_t longest_;
};

}  // namespace

std::unique_ptr<TokenModel> read_word_level(const Component& component) {
  return std::make_unique<WordLevel>(component);
}

std::unique_ptr<TokenModel> read_word_piece(const Component& component) {
  return std::make_unique<WordPiece>(component);
}

}  // namespace whence::detail
