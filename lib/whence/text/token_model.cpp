#include "whence/text/detail/token_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "whence/core/json.h"
#include "whence/text/detail/stage_readers.h"

namespace whence::detail {

std::string checked_token(const Component& component, std::string token) {
  constexpr std::size_t kLongest = 4096;
  if (token.size() > kLongest) {
    component.fail(fmt::format("a token of {} bytes, expected at most {}", token.size(), kLongest));
  }
  return token;
}

Vocabulary Vocabulary::read(const Component& component) {
  const auto& entries = component.value("vocab");
  if (!entries.is_object()) {
    component.fail("key \"vocab\": expected an object of ids");
  }
  Vocabulary vocabulary;
  for (const auto& [token, entry] : entries.items()) {
    const auto id = read_id(entry);
    if (!id || static_cast<std::size_t>(*id) > 16 * (entries.size() + 65536)) {
      component.fail(
          fmt::format("vocab: token \"{}\" has the id {}, expected an integer in proportion to the {} tokens", token,
                      brief(entry), entries.size()));
    }
    vocabulary.add(checked_token(component, token), *id);
  }
  return vocabulary;
}

void Vocabulary::add(std::string token, std::int32_t id) {
  const std::string_view text = texts_.emplace_back(std::move(token));
  longest_ = std::max(longest_, text.size());
  ids_.insert_or_assign(text, id);
  tokens_.resize(std::max(tokens_.size(), static_cast<std::size_t>(id) + 1));
  tokens_[static_cast<std::size_t>(id)] = text;
}

std::int32_t Vocabulary::find(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? kNone : found->second;
}

std::string_view Vocabulary::token(std::int32_t id) const {
  return id < 0 || id >= end() ? std::string_view{} : tokens_[static_cast<std::size_t>(id)];
}

ByteTokens::ByteTokens(const Vocabulary& vocabulary) {
  for (int byte = 0; byte < 256; ++byte) {
    ids_.push_back(vocabulary.find(fmt::format("<0x{:02X}>", byte)));
  }
}

bool ByteTokens::can_spell(std::string_view text) const {
  return !empty() &&
         std::none_of(text.begin(), text.end(), [&](char byte) { return (*this)[byte] == Vocabulary::kNone; });
}

std::unique_ptr<TokenModel> read_model(const Component& component) {
  static const StageReaders<std::unique_ptr<TokenModel>(const Component&)> kReaders = {
      {"BPE", read_bpe}, {"Unigram", read_unigram}, {"WordLevel", read_word_level}, {"WordPiece", read_word_piece}};
  return find_reader("model", kReaders, component)(component);
}

}  // namespace whence::detail
