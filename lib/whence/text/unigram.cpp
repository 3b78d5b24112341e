#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/text/detail/token_model.h"
#include "whence/text/detail/trie.h"
#include "whence/text/detail/unicode.h"

namespace whence::detail {
namespace {

/// The most probable tokens, by log probabilities that add up. T. Kudo, "Subword Regularization", 2018.
class Unigram : public TokenModel {
 public:
  explicit Unigram(const Component& component) {
    const auto& list = component.value("vocab");
    if (!list.is_array()) {
      component.fail("key \"vocab\": expected a list");
    }
    double least = std::numeric_limits<double>::infinity();
    for (const auto& entry : list) {
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
        component.fail(fmt::format("vocab[{}] = {}, expected [TOKEN, SCORE]", scores_.size(), brief(entry)));
      }
      vocabulary_.add(checked_token(component, entry[0].get<std::string>()), static_cast<std::int32_t>(scores_.size()));
      scores_.push_back(entry[1].get<double>());
      least = std::min(least, scores_.back());
    }
    for (std::int32_t id = 0; id < vocabulary_.end(); ++id) {
      trie_.add(vocabulary_.token(id), vocabulary_.find(vocabulary_.token(id)));
    }
    unknown_score_ = least - 10;
    if (component.has("unk_id")) {
      unknown_ = static_cast<std::int32_t>(component.count("unk_id"));
      if (unknown_ >= vocabulary_.end()) {
        component.fail(
            fmt::format("unk_id = {}, expected less than {}, the number of tokens", unknown_, scores_.size()));
      }
    }
    if (component.flag_or("byte_fallback", false)) {
      fallback_ = ByteTokens(vocabulary_);
    }
  }

  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::string unknown_token() const override { return std::string(vocabulary_.token(unknown_)); }

  void encode(std::string_view word, std::vector<Token>& tokens) const override {
    const auto first = static_cast<std::ptrdiff_t>(tokens.size());
    const auto best = best_paths(word);
    const auto put = [&](std::size_t begin, std::size_t end) {
      put_piece(word.substr(begin, end - begin), begin, tokens);
    };
    std::size_t unknown_end = 0;  // of the unknown pieces met last, which are one; 0 for none
    for (auto end = word.size(); end > 0; end = best[end].begin) {
      const bool unknown = best[end].id == unknown_;
      if (unknown) {
        unknown_end = unknown_end == 0 ? end : unknown_end;
        continue;
      }
      if (unknown_end > 0) {
        put(end, unknown_end);
        unknown_end = 0;
      }
      put(best[end].begin, end);
    }
    if (unknown_end > 0) {
      put(0, unknown_end);
    }
    std::reverse(tokens.begin() + first, tokens.end());
  }

 private:
  /// The last piece of the best way to an end.
  struct Step {
    double score = 0;
    std::size_t begin = kUnreached;
    std::int32_t id = Vocabulary::kNone;
  };
  static constexpr auto kUnreached = std::numeric_limits<std::size_t>::max();

  std::vector<Step> best_paths(std::string_view word) const {
    std::vector<Step> best(word.size() + 1);
    for (std::size_t begin = 0; begin < word.size();) {
      const auto so_far = best[begin].score;
      const auto reach = [&](std::size_t end, std::int32_t id, double score) {
        if (best[end].begin == kUnreached || so_far + score > best[end].score) {
          best[end] = {so_far + score, begin, id};
        }
      };
      const auto next = character_end(word, begin);
      bool single = false;  // whether the character is a token
      trie_.for_each_prefix(word.substr(begin), [&](std::size_t size, std::int32_t id) {
        reach(begin + size, id, scores_[static_cast<std::size_t>(id)]);
        single = single || begin + size == next;
      });
      if (!single) {
        if (unknown_ == Vocabulary::kNone) {
          throw DataError(fmt::format("\"{}\" is not in the vocabulary, which has no unknown token",
                                      word.substr(begin, next - begin)));
        }
        reach(next, unknown_, unknown_score_);
      }
      begin = next;
    }
    return best;
  }

  /// Appends the tokens of a piece, the last of them first.
  void put_piece(std::string_view piece, std::size_t begin, std::vector<Token>& tokens) const {
    const Span span{static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(begin + piece.size())};
    if (const auto id = vocabulary_.find(piece); id != Vocabulary::kNone) {
      tokens.push_back({id, span});
    } else if (fallback_.can_spell(piece)) {
      for (auto byte = piece.rbegin(); byte != piece.rend(); ++byte) {
        tokens.push_back({fallback_[*byte], span});
      }
    } else {
      tokens.push_back({unknown_, span});
    }
  }

  Vocabulary vocabulary_;
  std::vector<double> scores_;
  Trie trie_;
  std::int32_t unknown_ = Vocabulary::kNone;
  double unknown_score_ = 0;
  ByteTokens fallback_;  // none without byte_fallback
};

}  // namespace

std::unique_ptr<TokenModel> read_unigram(const Component& component) { return std::make_unique<Unigram>(component); }

}  // namespace whence::detail
