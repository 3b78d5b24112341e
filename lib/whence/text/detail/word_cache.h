#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "whence/text/detail/token_model.h"

namespace whence::detail {

/// The tokens of words seen before, for one thread at a time. Forgets everything once it holds 2^16 words.
class WordCache {
 public:
  /// The tokens of `word`; `encode(tokens)` appends them where they are not known. Valid until the next call.
  template <class Encode>
  std::span<const Token> find(std::string_view word, Encode&& encode) {
    if (word.size() > kLongest) {
      long_word_.clear();
      encode(long_word_);
      return long_word_;
    }
    const auto hash = std::hash<std::string_view>{}(word);
    auto& slot = slots_[place(word, hash)];
    if (slot.size == 0) {
      return put(word, hash, encode);
    }
    return {tokens_.data() + slot.tokens, slot.count};
  }

 private:
  static constexpr std::size_t kLongest = 255, kWords = 1 << 16;
  struct Slot {
    std::size_t hash = 0;
    std::uint32_t word = 0, tokens = 0;  // where in words_ and in tokens_
    std::uint32_t size = 0, count = 0;   // bytes of the word, 0 for a free slot; its tokens
  };

  std::size_t place(std::string_view word, std::size_t hash) const {
    auto at = hash & (slots_.size() - 1);
    while (slots_[at].size != 0 &&
           (slots_[at].hash != hash || word != std::string_view(words_).substr(slots_[at].word, slots_[at].size))) {
      at = (at + 1) & (slots_.size() - 1);
    }
    return at;
  }

  template <class Encode>
  std::span<const Token> put(std::string_view word, std::size_t hash, Encode&& encode) {
    if (2 * (filled_ + 1) > slots_.size()) {
      grow();
    }
    const auto begin = tokens_.size();
    encode(tokens_);
    const auto count = tokens_.size() - begin;
    slots_[place(word, hash)] = {hash, static_cast<std::uint32_t>(words_.size()), static_cast<std::uint32_t>(begin),
                                 static_cast<std::uint32_t>(word.size()), static_cast<std::uint32_t>(count)};
    words_ += word;
    ++filled_;
    return {tokens_.data() + begin, count};
  }

  void grow() {
    if (filled_ >= kWords) {
      *this = WordCache();
      return;
    }
    std::vector<Slot> larger(slots_.size() * 2);
    larger.swap(slots_);
    for (const auto& slot : larger) {
      if (slot.size != 0) {
        slots_[place(std::string_view(words_).substr(slot.word, slot.size), slot.hash)] = slot;
      }
    }
  }

  std::vector<Slot> slots_ = std::vector<Slot>(256);
  std::size_t filled_ = 0;
  std::string words_;
  std::vector<Token> tokens_, long_word_;
};

/// Caches that threads borrow.
class WordCaches {
 public:
  class Loan {
   public:
    explicit Loan(WordCaches& owner) : owner_(owner), cache_(owner.take()) {}
    ~Loan() { owner_.give(std::move(cache_)); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    WordCache& operator*() const { return *cache_; }

   private:
    WordCaches& owner_;
    std::unique_ptr<WordCache> cache_;
  };

 private:
  std::unique_ptr<WordCache> take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) {
      return std::make_unique<WordCache>();
    }
    auto cache = std::move(idle_.back());
    idle_.pop_back();
    return cache;
  }
  void give(std::unique_ptr<WordCache> cache) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(cache));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<WordCache>> idle_;
};

}  // namespace whence::detail
