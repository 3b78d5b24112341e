#include "whence/text/detail/added_tokens.h"

#include <algorithm>

namespace whence::detail {
namespace {

char32_t character_before(std::string_view text, std::size_t at) {
  auto begin = character_begin(text, at - 1);
  return next_character(text, begin);
}

char32_t character_at(std::string_view text, std::size_t at) { return next_character(text, at); }

}  // namespace

AddedTokens::AddedTokens(const std::vector<Component>& list, const Vocabulary& vocabulary,
                         const std::function<std::string(std::string)>& normalize, bool find_special) {
  auto next = static_cast<std::int32_t>(vocabulary.count());
  for (const auto& item : list) {
    const auto content = checked_token(item, item.text("content"));
    if (content.empty()) {
      continue;
    }
    const auto known = ids_.find(content);
    auto id = known != ids_.end() ? known->second : vocabulary.find(content);
    if (id == Vocabulary::kNone) {
      id = next++;
    }
    const bool special = item.flag_or("special", false);
    const bool normalized = item.flag_or("normalized", !special);
    ids_[content] = id;
    entries_[id] = {content,
                    normalized ? normalize(content) : content,
                    item.flag_or("single_word", false),
                    item.flag_or("lstrip", false),
                    item.flag_or("rstrip", false),
                    normalized};
    if (special) {
      special_.insert(content);
    }
    end_ = std::max(end_, id + 1);
  }
  for (const auto& [id, entry] : entries_) {
    if (!find_special && special_.count(entry.content) > 0) {
      continue;
    }
    (entry.normalized ? normalized_ : as_written_).add(entry.spelled, id);
  }
}

void AddedTokens::Finder::add(std::string_view token, std::int32_t id) {
  if (!token.empty()) {
    tokens.add(token, id);
    begins[static_cast<unsigned char>(token[0])] = true;
  }
}

AddedTokens::Part AddedTokens::Finder::find(std::string_view text, std::size_t at) const {
  const auto begin = static_cast<std::uint32_t>(at);
  Part longest{{begin, begin}, Vocabulary::kNone};
  tokens.for_each_prefix(text.substr(at), [&](std::size_t size, std::int32_t id) {
    longest = {{begin, begin + static_cast<std::uint32_t>(size)}, id};
  });
  return longest;
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text, const Finder& finder) const {
  std::vector<Part> parts;
  std::uint32_t covered = 0;
  const auto size = static_cast<std::uint32_t>(text.size());
  for (std::size_t at = 0; at < text.size();) {
    if (!finder.begins[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    auto [span, id] = finder.find(text, at);
    if (id == Vocabulary::kNone) {
      ++at;
      continue;
    }
    at = span.end;
    const auto& entry = entries_.at(id);
    if (entry.single_word && ((span.begin > 0 && is_word(character_before(text, span.begin))) ||
                              (span.end < size && is_word(character_at(text, span.end))))) {
      continue;
    }
    while (entry.strip_left && span.begin > covered && is_space(character_before(text, span.begin))) {
      span.begin = static_cast<std::uint32_t>(character_begin(text, span.begin - 1));
    }
    span.begin = entry.strip_left ? std::max(span.begin, covered) : span.begin;
    while (entry.strip_right && span.end < size && is_space(character_at(text, span.end))) {
      span.end = static_cast<std::uint32_t>(character_end(text, span.end));
    }
    if (covered < span.begin) {
      parts.push_back({{covered, span.begin}, Vocabulary::kNone});
    }
    parts.push_back({span, id});
    covered = span.end;
  }
  if (covered != size) {
    parts.push_back({{covered, size}, Vocabulary::kNone});
  }
  return parts;
}

std::int32_t AddedTokens::find(std::string_view token) const {
  const auto found = ids_.find(std::string(token));
  return found == ids_.end() ? Vocabulary::kNone : found->second;
}

std::string_view AddedTokens::token(std::int32_t id) const {
  const auto found = entries_.find(id);
  return found == entries_.end() ? std::string_view{} : found->second.content;
}

std::string_view AddedTokens::spelled(std::int32_t id) const {
  const auto found = entries_.find(id);
  return found == entries_.end() ? std::string_view{} : found->second.spelled;
}

}  // namespace whence::detail
