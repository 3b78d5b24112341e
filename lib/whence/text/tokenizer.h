#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace whence {

/// What a text became: one entry a token in each list.
struct Encoding {
  std::vector<std::int32_t> ids;
  /// Bytes [begin, end) of the text given to encode(), before any normalization; of the second text for the tokens of
  /// the second. {0, 0} for tokens that the post-processor added. Tokens of one character cut into bytes all span it.
  std::vector<std::pair<std::int64_t, std::int64_t>> offsets;
  std::vector<bool> special;        // added by the post-processor; not those written in the text itself
  std::vector<std::int32_t> types;  // 0 for the first text, 1 for the second, unless the post-processor says otherwise
};

/// The files that a Tokenizer of this tokenizer.json reads, or would where they were there: the others decide too.
std::vector<std::filesystem::path> tokenizer_files(const std::filesystem::path& tokenizer_json);

/// A tokenizer.json, the format of Hugging Face's `tokenizers`, whose ids, offsets and decoded texts these are.
///
/// Models BPE (without dropout), Unigram, WordPiece and WordLevel, with the normalizers, pre-tokenizers,
/// post-processors and decoders that published models use; what a file has beyond these is a DataError at construction
/// that names it. Its truncation and padding are ignored: encode() returns every token and no other. Letters and digits
/// that Unicode has had since version 15 alone may be cut or lowercased otherwise: Debian 12's PCRE2 and ICU do not
/// know them all.
///
/// Immutable, cheap to copy, and safe to use from several threads.
class Tokenizer {
 public:
  /// `path` is a tokenizer.json or the directory that holds one. tokenizer_config.json, special_tokens_map.json,
  /// added_tokens.json and config.json beside it are followed as transformers' AutoTokenizer follows them. Throws
  /// DataError naming the file, the component and what was expected.
  explicit Tokenizer(const std::filesystem::path& path);

  /// A line for each setting of those files that was followed though tokenizer.json says otherwise, or that was not.
  const std::vector<std::string>& notes() const;

  /// Throws DataError naming the byte when a text is not UTF-8, and when a text has a word that the vocabulary cannot
  /// spell and there is no unknown token.
  Encoding encode(std::string_view text, bool add_special_tokens = true) const;
  Encoding encode(std::string_view first, std::string_view second, bool add_special_tokens = true) const;
  Encoding encode(std::string_view first, const char* second, bool add_special_tokens = true) const {
    return encode(first, std::string_view(second), add_special_tokens);  // not the flag that a pointer converts to
  }

  /// Ids that no token has are left out. Bytes that are not UTF-8 become U+FFFD.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens = true) const;

  std::int64_t size() const;  // 1 + the highest id, added tokens included
  std::optional<std::int32_t> id(std::string_view token) const;
  std::string_view token(std::int32_t id) const;  // as the vocabulary spells it; empty where no token has the id

  /// The id of the token with this role, one of "bos" "eos" "unk" "pad" "mask" "cls" "sep", where the files name one,
  /// or a special token is called as usual: "[MASK]", "</s>". Throws InvalidArgument on another role.
  std::optional<std::int32_t> special(std::string_view role) const;

 private:
  class Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace whence
