#include "whence/text/detail/aligned_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "whence/core/error.h"

namespace whence::detail {

AlignedText::AlignedText(std::string_view input, Span span)
    : bytes_(input.substr(span.begin, span.end - span.begin)),
      begin_(span.begin),
      room_(kMostGrowth * bytes_.size() + kFreeGrowth) {}

void AlignedText::check_room(std::size_t bytes) const {
  if (bytes > room_) {
    throw DataError(
        fmt::format("the tokenizer makes a text more than {} times as long: {} bytes and more, from byte {}",
                    kMostGrowth, room_, begin_));
  }
}

AlignedText AlignedText::slice(Span span) const {
  AlignedText part(bytes_, span);
  part.begin_ = origin(span).begin;
  part.room_ = room_;
  if (!origins_.empty()) {
    part.origins_.assign(origins_.begin() + span.begin, origins_.begin() + span.end);
  }
  return part;
}

void AlignedText::transform(const std::vector<Change>& changes, std::size_t removed) {
  std::size_t at = 0;  // in the old text
  const auto skip = [&](std::size_t characters) {
    for (; characters > 0 && at < bytes_.size(); --characters) {
      at = character_end(bytes_, at);
    }
  };
  const auto origin_at = [&](std::size_t byte) {
    const auto position = static_cast<std::uint32_t>(byte);
    return origin({position, position + 1});
  };
  skip(removed);
  std::string bytes;
  std::vector<Span> origins;
  bytes.reserve(bytes_.size() + 8);
  origins.reserve(bytes_.size() + 8);
  bool moved = removed > 0 || !origins_.empty();
  for (const auto& [character, change] : changes) {
    const auto before = at;
    const auto inserted = change > 0 || at == bytes_.size();
    const auto from = inserted ? (at == 0 ? Span{begin_, begin_} : origin_at(at - 1)) : origin_at(at);
    if (!inserted) {
      skip(1 + static_cast<std::size_t>(-change));
    }
    const auto size = encoded_size(character);
    append(bytes, character);
    check_room(bytes.size());
    origins.insert(origins.end(), size, from);
    moved = moved || change != 0 || at - before != size;
  }
  moved = moved || at != bytes_.size();
  bytes_ = std::move(bytes);
  if (moved) {
    origins_ = std::move(origins);
  }
}

TextBuilder::TextBuilder(const AlignedText& old) : old_(old) {
  bytes_.reserve(old.bytes().size() + 8);
  origins_.reserve(old.bytes().size() + 8);
}

void TextBuilder::copy(Span span) {
  bytes_.append(old_.bytes().substr(span.begin, span.end - span.begin));
  if (!old_.origins_.empty()) {
    origins_.insert(origins_.end(), old_.origins_.begin() + span.begin, old_.origins_.begin() + span.end);
    return;
  }
  for (auto at = span.begin; at < span.end;) {
    const auto end = old_.end_of(at);
    origins_.insert(origins_.end(), end - at, Span{old_.begin_ + at, old_.begin_ + end});
    at = end;
  }
}

void TextBuilder::insert(std::string_view bytes, Span origin) {
  old_.check_room(bytes_.size() + bytes.size());
  bytes_.append(bytes);
  origins_.insert(origins_.end(), bytes.size(), origin);
}

void TextBuilder::finish(AlignedText& text) && {
  text.bytes_ = std::move(bytes_);
  text.origins_ = std::move(origins_);
}

}  // namespace whence::detail
