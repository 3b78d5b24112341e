#include "whence/text/shared_spans.h"

#include <algorithm>
#include <map>

namespace whence {
namespace {

struct Word {
  std::string text;
  std::size_t begin, end;
};

std::vector<Word> words_in(std::string_view text) {
  std::vector<Word> out;
  bool inside = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    if (!space) {
      if (!inside) {
        out.push_back({"", i, i});
      }
      out.back().text += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      out.back().end = i + 1;
    }
    inside = !space;
  }
  return out;
}

/// Accepts every run of words of a text. A. Blumer et al., "The smallest automaton recognizing the subwords of a text",
/// 1985.
class SuffixAutomaton {
 public:
  explicit SuffixAutomaton(const std::vector<Word>& words) : states_(1) {
    for (const auto& word : words) {
      add(word.text);
    }
  }

  /// For each word, how many words up to and with it the automaton's text has in a row.
  std::vector<std::size_t> lengths(const std::vector<Word>& words) const {
    std::vector<std::size_t> out;
    std::size_t at = 0, length = 0;
    for (const auto& word : words) {
      while (at != 0 && !states_[at].next.contains(word.text)) {
        at = states_[at].link;
        length = states_[at].length;
      }
      if (const auto next = states_[at].next.find(word.text); next != states_[at].next.end()) {
        at = next->second;
        ++length;
      }
      out.push_back(length);
    }
    return out;
  }

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  struct State {
    std::size_t length = 0, link = kNone;
    std::map<std::string, std::size_t> next = {};
  };

  void add(const std::string& word) {
    const auto made = states_.size();
    states_.push_back({states_[last_].length + 1, 0, {}});
    auto at = last_;
    last_ = made;
    for (; at != kNone && !states_[at].next.contains(word); at = states_[at].link) {
      states_[at].next[word] = made;
    }
    if (at == kNone) {
      return;
    }
    const auto target = states_[at].next[word];
    if (states_[target].length == states_[at].length + 1) {
      states_[made].link = target;
      return;
    }
    const auto copy = states_.size();
    auto split = states_[target];
    split.length = states_[at].length + 1;
    states_.push_back(std::move(split));
    states_[made].link = states_[target].link = copy;
    for (; at != kNone; at = states_[at].link) {
      const auto next = states_[at].next.find(word);
      if (next == states_[at].next.end() || next->second != target) {
        break;
      }
      next->second = copy;
    }
  }

  std::vector<State> states_;
  std::size_t last_ = 0;
};

}  // namespace

std::vector<SharedSpan> shared_spans(std::string_view query, std::string_view text, std::size_t least,
                                     std::size_t most) {
  const auto words = words_in(text);
  const auto lengths = SuffixAutomaton(words_in(query)).lengths(words);
  std::vector<SharedSpan> found;  // those that no next word prolongs
  for (std::size_t i = 0; i < words.size(); ++i) {
    const bool goes_on = i + 1 < words.size() && lengths[i + 1] == lengths[i] + 1;
    if (!goes_on && lengths[i] >= std::max<std::size_t>(1, least)) {
      found.push_back({words[i + 1 - lengths[i]].begin, words[i].end, lengths[i]});
    }
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const SharedSpan& a, const SharedSpan& b) { return a.words > b.words; });
  std::vector<SharedSpan> out;
  for (const auto& span : found) {
    const bool free = std::none_of(out.begin(), out.end(), [&](const SharedSpan& other) {
      return span.begin < other.end && other.begin < span.end;
    });
    if (free && out.size() < most) {
      out.push_back(span);
    }
  }
  std::sort(out.begin(), out.end(), [](const SharedSpan& a, const SharedSpan& b) { return a.begin < b.begin; });
  return out;
}

}  // namespace whence
