#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <queue>
#include <set>

#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/core/progress.h"
#include "whence/text/detail/byte_letters.h"
#include "whence/text/detail/token_model.h"
#include "whence/text/detail/unicode.h"
#include "whence/text/detail/word_cache.h"

namespace whence::detail {
namespace {

/// Which pairs of ids merge, how early and into what. A hash table with open addressing.
class Merges {
 public:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};

  explicit Merges(std::size_t count) {
    std::size_t size = 16;
    while (size < 2 * count) {
      size *= 2;
      --shift_;
    }
    entries_.resize(size, {kNone, kNone});
  }

  /// The last one added for a pair counts.
  void add(std::int32_t left, std::int32_t right, std::uint32_t rank, std::int32_t merged) {
    auto& entry = entries_[place(key(left, right))];
    entry = {key(left, right), std::uint64_t{rank} << 32 | static_cast<std::uint32_t>(merged)};
  }

  /// The rank in the high half and the merged id in the low one, so that the least comes first; kNone when they do not
  /// merge.
  std::uint64_t find(std::int32_t left, std::int32_t right) const { return entries_[place(key(left, right))].value; }

 private:
  struct Entry {
    std::uint64_t key, value;
  };
  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  }
  std::size_t place(std::uint64_t key) const {  // of the key, or of the gap where it belongs
    auto at = static_cast<std::size_t>((key ^ key >> 32) * 0x9e3779b97f4a7c15u >> shift_);
    while (entries_[at].key != key && entries_[at].key != kNone) {
      at = (at + 1) & (entries_.size() - 1);
    }
    return at;
  }

  std::vector<Entry> entries_;
  int shift_ = 60;
};

/// A token in the making: its id and how many bytes of the word it stands for.
struct Symbol {
  std::int32_t id;
  std::uint32_t size;
};

/// Merges the pair of the lowest rank, the leftmost first, until none merges. For kFew symbols at most.
constexpr std::size_t kFew = 32;
void merge_by_scan(const Merges& merges, std::vector<Symbol>& symbols) {
  std::array<std::uint64_t, kFew> next;  // what a symbol and the one behind it make
  auto count = symbols.size();
  for (std::size_t i = 0; i + 1 < count; ++i) {
    next[i] = merges.find(symbols[i].id, symbols[i + 1].id);
  }
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      best = next[i] < next[best] ? i : best;
    }
    if (next[best] == Merges::kNone) {
      break;
    }
    symbols[best] = {static_cast<std::int32_t>(next[best]), symbols[best].size + symbols[best + 1].size};
    --count;
    for (std::size_t i = best + 1; i < count; ++i) {
      symbols[i] = symbols[i + 1];
      next[i - 1] = next[i];
    }
    if (best + 1 < count) {
      next[best] = merges.find(symbols[best].id, symbols[best + 1].id);
    }
    if (best > 0) {
      next[best - 1] = merges.find(symbols[best - 1].id, symbols[best].id);
    }
  }
  symbols.resize(count);
}

/// The same with a queue of pairs, for many symbols.
void merge_by_queue(const Merges& merges, std::vector<Symbol>& symbols) {
  struct Candidate {
    std::uint64_t merge;
    std::uint32_t place;
    bool operator>(const Candidate& other) const {
      return merge != other.merge ? merge > other.merge : place > other.place;
    }
  };
  const auto count = static_cast<std::uint32_t>(symbols.size());
  std::vector<std::uint32_t> before(count), behind(count);  // the symbols left; `count` at the end, itself at the front
  std::vector<Candidate> candidates;
  const auto consider = [&](std::uint32_t place, auto&& put) {
    if (behind[place] < count) {
      const auto merge = merges.find(symbols[place].id, symbols[behind[place]].id);
      if (merge != Merges::kNone) {
        put(Candidate{merge, place});
      }
    }
  };
  for (std::uint32_t i = 0; i < count; ++i) {
    before[i] = i == 0 ? 0 : i - 1;
    behind[i] = i + 1;
    consider(i, [&](const Candidate& candidate) { candidates.push_back(candidate); });
  }
  std::priority_queue queue(std::greater<Candidate>{}, std::move(candidates));
  const auto push = [&](const Candidate& candidate) { queue.push(candidate); };
  constexpr std::size_t kBetweenChecks = 1 << 16;
  for (std::size_t round = 1; !queue.empty(); ++round) {
    if (round % kBetweenChecks == 0) {
      check_interruption();
    }
    const auto [merge, place] = queue.top();
    queue.pop();
    const auto right = symbols[place].size == 0 ? count : behind[place];
    if (right == count || merges.find(symbols[place].id, symbols[right].id) != merge) {
      continue;  // one of the pair has merged with another since
    }
    symbols[place] = {static_cast<std::int32_t>(merge), symbols[place].size + symbols[right].size};
    symbols[right].size = 0;
    behind[place] = behind[right];
    if (behind[right] < count) {
      before[behind[right]] = place;
    }
    consider(place, push);
    if (place > 0) {
      consider(before[place], push);
    }
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.size == 0; });
}

/// Byte pair encoding: characters or bytes, merged pair by pair. R. Sennrich et al., "Neural Machine Translation of
/// Rare Words with Subword Units", 2016.
class Bpe : public TokenModel {
 public:
  explicit Bpe(const Component& component)
      : vocabulary_(Vocabulary::read(component)),
        merges_(read_merges(component)),
        prefix_(component.text_or("continuing_subword_prefix", "")),
        suffix_(component.text_or("end_of_word_suffix", "")),
        unknown_token_(component.text_or("unk_token", "")),
        fuse_unknown_(component.flag_or("fuse_unk", false)),
        ignore_merges_(component.flag_or("ignore_merges", false)) {
    if (component.has("dropout") && component.value("dropout") != 0) {
      component.fail("dropout, which makes tokens random, is not supported");
    }
    unknown_ = unknown_token_.empty() ? Vocabulary::kNone : vocabulary_.find(unknown_token_);
    if (component.flag_or("byte_fallback", false)) {
      fallback_ = ByteTokens(vocabulary_);
    }
  }

  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::string unknown_token() const override { return unknown_token_; }

  bool take_raw_bytes() override {
    if (!prefix_.empty() || !suffix_.empty() || !fallback_.empty()) {
      return false;
    }
    std::vector<std::int32_t> ids;
    for (const auto letter : byte_letters()) {
      std::string text;
      append(text, letter);
      ids.push_back(vocabulary_.find(text));
      if (ids.back() == Vocabulary::kNone && unknown_ == Vocabulary::kNone) {
        return false;
      }
    }
    byte_ids_ = std::move(ids);
    return true;
  }

  void encode(std::string_view word, std::vector<Token>& tokens) const override {
    if (ignore_merges_) {
      const auto id = vocabulary_.find(byte_ids_.empty() ? word : spell_bytes(word));
      if (id != Vocabulary::kNone) {
        tokens.push_back({id, {0, static_cast<std::uint32_t>(word.size())}});
        return;
      }
    }
    constexpr std::size_t kLong = 1 << 10;  // seldom a word: a text that no pre-tokenizer cuts
    word.size() > kLong&& neighbours_&& byte_ids_.empty() ? merge_by_parts(word, tokens) : merge(word, tokens);
  }

 private:
  /// Appends the tokens that the word's characters or bytes merge into.
  void merge(std::string_view word, std::vector<Token>& tokens) const {
    std::vector<Symbol> symbols;
    byte_ids_.empty() ? put_characters(word, symbols) : put_bytes(word, symbols);
    symbols.size() <= kFew ? merge_by_scan(merges_, symbols) : merge_by_queue(merges_, symbols);
    std::uint32_t begin = 0;
    for (const auto& [id, size] : symbols) {
      tokens.push_back({id, {begin, begin + size}});
      begin += size;
    }
  }

  /// The same of a long word, cut where no merge reaches across: behind a character of the vocabulary that no token has
  /// before the next one. Most of the parts are words that come again.
  void merge_by_parts(std::string_view word, std::vector<Token>& tokens) const {
    constexpr std::size_t kBetweenChecks = 1 << 14;
    WordCache known;
    std::size_t begin = 0, left_begin = 0, at = 0, count = 0;
    for (auto left = next_character(word, at); begin < word.size();) {
      const auto end = at;
      const bool last = end == word.size();
      const auto right = last ? U'\0' : next_character(word, at);
      if (last ||
          (neighbours_->find(static_cast<std::int32_t>(left), static_cast<std::int32_t>(right)) == Merges::kNone &&
           vocabulary_.find(word.substr(left_begin, end - left_begin)) != Vocabulary::kNone)) {
        if (++count % kBetweenChecks == 0) {
          check_interruption();
        }
        const auto part = word.substr(begin, end - begin);
        const auto offset = static_cast<std::uint32_t>(begin);
        for (const auto& [id, span] : known.find(part, [&](auto& made) { merge(part, made); })) {
          tokens.push_back({id, {offset + span.begin, offset + span.end}});
        }
        begin = end;
      }
      left = right;
      left_begin = end;
    }
  }

  Merges read_merges(const Component& component) {
    const auto& list = component.value("merges");
    if (!list.is_array()) {
      component.fail("key \"merges\": expected a list");
    }
    const auto prefix_size = component.text_or("continuing_subword_prefix", "").size();
    Merges merges(list.size());
    std::uint32_t rank = 0;
    std::set<std::pair<char32_t, char32_t>> neighbours;
    const auto unknown = component.text_or("unk_token", "");
    const auto is_spelled = [&](const std::string& token) {  // it stands for these characters, and not for a byte
      return !token.empty() && token != unknown && !token.starts_with("<0x");
    };
    bool spelled = prefix_size == 0 && component.text_or("end_of_word_suffix", "").empty();
    for (const auto& entry : list) {
      const auto [left, right] = read_pair(component, entry);
      if (left.starts_with("#version") && entry.is_string()) {
        continue;
      }
      const auto merged = left + (right.size() < prefix_size ? "" : right.substr(prefix_size));
      for (const auto& token : {left, right, merged}) {
        if (vocabulary_.find(token) == Vocabulary::kNone) {
          component.fail(fmt::format("merge {} of \"{}\" and \"{}\": token \"{}\" is not in the vocabulary", rank, left,
                                     right, token));
        }
      }
      merges.add(vocabulary_.find(left), vocabulary_.find(right), rank++, vocabulary_.find(merged));
      spelled = spelled && is_spelled(left) && is_spelled(right);
      if (spelled) {
        std::size_t at = character_begin(left, left.size() - 1), begin = 0;
        const auto last = next_character(left, at);
        neighbours.emplace(last, next_character(right, begin));
      }
    }
    std::size_t ids = 0;
    for (std::int32_t id = 0; id < vocabulary_.end(); ++id) {
      ids += vocabulary_.token(id).empty() ? 0 : 1;
    }
    if (spelled && ids == vocabulary_.count()) {
      neighbours_.emplace(neighbours.size());
      for (const auto& [left, right] : neighbours) {
        neighbours_->add(static_cast<std::int32_t>(left), static_cast<std::int32_t>(right), 0, 0);
      }
    }
    return merges;
  }

  static std::pair<std::string, std::string> read_pair(const Component& component, const nlohmann::json& entry) {
    if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
      return {entry[0].get<std::string>(), entry[1].get<std::string>()};
    }
    if (entry.is_string()) {
      const auto text = entry.get<std::string>();
      if (const auto space = text.find(' '); space != text.npos && text.find(' ', space + 1) == text.npos) {
        return {text.substr(0, space), text.substr(space + 1)};
      }
    }
    component.fail(fmt::format("merge {}: expected \"LEFT RIGHT\" or [\"LEFT\", \"RIGHT\"]", brief(entry)));
  }

  /// What the vocabulary does not have and no token was made of yet; comes before the next one that it has.
  struct Unknown {
    std::uint32_t size = 0;
    void put(std::int32_t id, std::vector<Symbol>& symbols) {
      if (size > 0) {
        symbols.push_back({id, size});
      }
      size = 0;
    }
  };

  void note_unknown(std::string_view piece, std::uint32_t size, Unknown& unknown, std::vector<Symbol>& symbols) const {
    if (unknown_token_.empty()) {
      return;  // it vanishes
    }
    if (unknown_ == Vocabulary::kNone) {
      throw DataError(
          fmt::format("\"{}\" is not in the vocabulary, nor is the unknown token \"{}\"", piece, unknown_token_));
    }
    if (!fuse_unknown_) {
      unknown.put(unknown_, symbols);
    }
    unknown.size += size;
  }

  void put_bytes(std::string_view word, std::vector<Symbol>& symbols) const {
    Unknown unknown;
    for (std::size_t at = 0; at < word.size(); ++at) {
      const auto id = byte_ids_[static_cast<unsigned char>(word[at])];
      if (id != Vocabulary::kNone) {
        unknown.put(unknown_, symbols);
        symbols.push_back({id, 1});
      } else {
        note_unknown(word.substr(at, 1), 1, unknown, symbols);
      }
    }
    unknown.put(unknown_, symbols);
  }

  void put_characters(std::string_view word, std::vector<Symbol>& symbols) const {
    Unknown unknown;
    std::string spelled;
    for (std::size_t at = 0; at < word.size();) {
      const auto end = character_end(word, at);
      auto piece = word.substr(at, end - at);
      const auto size = static_cast<std::uint32_t>(piece.size());
      if ((at > 0 && !prefix_.empty()) || (end == word.size() && !suffix_.empty())) {
        spelled = at > 0 ? prefix_ : "";
        spelled += piece;
        spelled += end == word.size() ? suffix_ : "";
        piece = spelled;
      }
      at = end;
      const auto id = vocabulary_.find(piece);
      if (id != Vocabulary::kNone) {
        unknown.put(unknown_, symbols);
        symbols.push_back({id, size});
      } else if (!put_fallback(piece, symbols)) {
        note_unknown(piece, size, unknown, symbols);
      }
    }
    unknown.put(unknown_, symbols);
  }

  /// The bytes of a character as tokens; false when one of them has none.
  bool put_fallback(std::string_view piece, std::vector<Symbol>& symbols) const {
    if (!fallback_.can_spell(piece)) {
      return false;
    }
    for (const char byte : piece) {
      symbols.push_back({fallback_[byte], 1});
    }
    return true;
  }

  Vocabulary vocabulary_;
  /// Characters that stand beside each other in tokens; none where tokens are more than their characters.
  std::optional<Merges> neighbours_;
  Merges merges_;
  std::string prefix_, suffix_, unknown_token_;
  bool fuse_unknown_, ignore_merges_;
  std::int32_t unknown_ = Vocabulary::kNone;
  ByteTokens fallback_;                 // none without byte_fallback
  std::vector<std::int32_t> byte_ids_;  // of each byte; empty while words are spelled in letters
};

}  // namespace

std::unique_ptr<TokenModel> read_bpe(const Component& component) { return std::make_unique<Bpe>(component); }

}  // namespace whence::detail
