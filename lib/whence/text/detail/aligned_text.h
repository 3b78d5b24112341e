#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "whence/text/detail/unicode.h"

namespace whence::detail {

/// Bytes [begin, end) of a text.
struct Span {
  std::uint32_t begin, end;
  bool operator==(const Span&) const = default;
};

/// A character of a new text: 1 is inserted after what came before it, 0 replaces the next character of the old text,
/// and -n does so and removes the n after that.
struct Change {
  char32_t character;
  int change;
};

/// How many times as long a tokenizer may make a text, beside the first 64 KiB: normal forms make a character 11 times
/// as long at most, and replacements could go on for ever.
inline constexpr std::size_t kMostGrowth = 16, kFreeGrowth = 1 << 16;

/// A part of the input as normalized so far, with the bytes of the input that each of its bytes came from. A byte
/// comes from whole characters.
class AlignedText {
 public:
  /// Bytes [span.begin, span.end) of `input`, as they are.
  AlignedText(std::string_view input, Span span);

  std::string_view bytes() const { return bytes_; }
  bool empty() const { return bytes_.empty(); }
  AlignedText slice(Span span) const;

  /// What input bytes [span.begin, span.end) of this came from; `span` is not empty.
  Span origin(Span span) const {
    return origins_.empty() ? Span{begin_ + begin_of(span.begin), begin_ + end_of(span.end - 1)}
                            : Span{origins_[span.begin].begin, origins_[span.end - 1].end};
  }
  std::uint32_t begin() const { return begin_; }  // of the part, in the input

  /// Throws DataError where the text must not become so many bytes.
  void check_room(std::size_t bytes) const;

  /// Becomes the characters of `changes`, which go on behind the first `removed` characters of the old text.
  void transform(const std::vector<Change>& changes, std::size_t removed = 0);

 private:
  friend class TextBuilder;
  std::uint32_t begin_of(std::uint32_t at) const { return static_cast<std::uint32_t>(character_begin(bytes_, at)); }
  std::uint32_t end_of(std::uint32_t at) const { return static_cast<std::uint32_t>(character_end(bytes_, at)); }

  std::string bytes_;
  std::vector<Span> origins_;  // of each byte; empty while every byte is still where it was in the input
  std::uint32_t begin_;
  std::size_t room_;  // bytes that it may have at most
};

/// Puts a new text together from parts of an old one and insertions.
class TextBuilder {
 public:
  explicit TextBuilder(const AlignedText& old);
  void copy(Span span);                              // of the old text
  void insert(std::string_view bytes, Span origin);  // all of them from there in the input
  std::uint32_t size() const { return static_cast<std::uint32_t>(bytes_.size()); }
  void finish(AlignedText& text) &&;

 private:
  const AlignedText& old_;
  std::string bytes_;
  std::vector<Span> origins_;
};

}  // namespace whence::detail
