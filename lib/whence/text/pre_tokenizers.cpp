#include "whence/text/detail/pre_tokenizers.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>

#include "whence/text/detail/byte_letters.h"
#include "whence/text/detail/regex.h"
#include "whence/text/detail/stage_readers.h"

namespace whence::detail {
namespace {

/// What becomes of the matches that words are cut at.
enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Behavior read_behavior(const Component& component, std::string_view otherwise) {
  static const std::map<std::string, Behavior> kBehaviors = {{"Removed", Behavior::kRemoved},
                                                             {"Isolated", Behavior::kIsolated},
                                                             {"MergedWithPrevious", Behavior::kMergedWithPrevious},
                                                             {"MergedWithNext", Behavior::kMergedWithNext},
                                                             {"Contiguous", Behavior::kContiguous}};
  return find_named("behavior", kBehaviors, component.text_or("behavior", otherwise), component);
}

/// Appends the words that `matches` cut a word into, which begins at `offset`.
void put_words(const std::vector<Match>& matches, Behavior behavior, std::uint32_t offset, std::vector<Span>& words) {
  const auto first = words.size();
  bool matched_before = false;
  const auto extends = [&](const Match& match) {
    switch (behavior) {
      case Behavior::kContiguous:
        return match.matched == matched_before;
      case Behavior::kMergedWithPrevious:
        return match.matched && !matched_before;
      default:
        return false;
    }
  };
  if (behavior == Behavior::kMergedWithNext) {
    bool matched_after = false;
    std::vector<Span> reversed;
    for (auto match = matches.rbegin(); match != matches.rend(); ++match) {
      if (match->matched && !matched_after && !reversed.empty()) {
        reversed.back().begin = match->span.begin + offset;
      } else {
        reversed.push_back({match->span.begin + offset, match->span.end + offset});
      }
      matched_after = match->matched;
    }
    words.insert(words.end(), reversed.rbegin(), reversed.rend());
  } else {
    for (const auto& match : matches) {
      if (match.matched && behavior == Behavior::kRemoved) {
        continue;
      }
      if (words.size() > first && extends(match)) {
        words.back().end = match.span.end + offset;
      } else {
        words.push_back({match.span.begin + offset, match.span.end + offset});
      }
      matched_before = match.matched;
    }
  }
}

/// Cuts words where `find` says: find(word, matches) as Pattern::find does.
template <class Find>
void cut(Words& words, Behavior behavior, Find&& find) {
  std::vector<Span> spans;
  std::vector<Match> matches;
  for (const auto& span : words.spans) {
    find(words.text.bytes().substr(span.begin, span.end - span.begin), matches);
    put_words(matches, behavior, span.begin, spans);
  }
  std::erase_if(spans, [](const Span& span) { return span.begin == span.end; });
  words.spans = std::move(spans);
}

/// As Pattern::find, each character that `wanted` holds for being a match of its own.
template <class Wanted>
void find_characters(std::string_view text, std::vector<Match>& matches, Wanted&& wanted) {
  matches.clear();
  std::uint32_t covered = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto begin = static_cast<std::uint32_t>(at);
    if (!wanted(next_character(text, at))) {
      continue;
    }
    if (covered < begin) {
      matches.push_back({{covered, begin}, false});
    }
    covered = static_cast<std::uint32_t>(at);
    matches.push_back({{begin, covered}, true});
  }
  if (covered < text.size()) {
    matches.push_back({{covered, static_cast<std::uint32_t>(text.size())}, false});
  }
}

/// Cuts at characters that `wanted` holds for.
class SplitCharacters : public PreTokenizer {
 public:
  SplitCharacters(std::function<bool(char32_t)> wanted, Behavior behavior)
      : wanted_(std::move(wanted)), behavior_(behavior) {}
  void apply(Words& words) const override {
    cut(words, behavior_, [&](std::string_view word, auto& matches) { find_characters(word, matches, wanted_); });
  }

 private:
  std::function<bool(char32_t)> wanted_;
  Behavior behavior_;
};

/// Cuts at matches of a pattern; `invert`: at what lies between them.
class SplitPattern : public PreTokenizer {
 public:
  SplitPattern(Pattern pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void apply(Words& words) const override {
    cut(words, behavior_, [&](std::string_view word, auto& matches) {
      pattern_.find(word, matches);
      for (auto& match : matches) {
        match.matched = match.matched != invert_;
      }
    });
  }

 private:
  Pattern pattern_;
  Behavior behavior_;
  bool invert_;
};

/// Words and runs of symbols, as the expression \w+|[^\w\s]+ finds them.
class Whitespace : public PreTokenizer {
 public:
  void apply(Words& words) const override {
    cut(words, Behavior::kRemoved, [](std::string_view word, auto& matches) {
      matches.clear();
      enum { kSpace, kLetters, kSymbols } before = kSpace;
      for (std::size_t at = 0; at < word.size();) {
        const auto begin = static_cast<std::uint32_t>(at);
        const auto character = next_character(word, at);
        const auto kind = is_word(character) ? kLetters : is_space(character) ? kSpace : kSymbols;
        if (kind != before && kind != kSpace) {
          matches.push_back({{begin, begin}, false});
        }
        if (kind != kSpace) {
          matches.back().span.end = static_cast<std::uint32_t>(at);
        }
        before = kind;
      }
    });
  }
};

/// Puts `prefix` before every word that does not begin with it; `first`: only before the word that begins the input.
void prepend(Words& words, std::string_view prefix, bool first) {
  const auto wants = [&](const Span& span) {
    const auto word = words.text.bytes().substr(span.begin, span.end - span.begin);
    return !word.starts_with(prefix) && !(first && words.text.origin(span).begin != 0);
  };
  if (std::none_of(words.spans.begin(), words.spans.end(), wants)) {
    return;
  }
  TextBuilder builder(words.text);
  std::vector<Span> spans;
  for (const auto& span : words.spans) {
    const auto begin = builder.size();
    if (wants(span)) {
      const auto end = static_cast<std::uint32_t>(character_end(words.text.bytes(), span.begin));
      builder.insert(prefix, words.text.origin({span.begin, end}));
    }
    builder.copy(span);
    spans.push_back({begin, builder.size()});
  }
  std::move(builder).finish(words.text);
  words.spans = std::move(spans);
}

class PrefixSpace : public PreTokenizer {
 public:
  void apply(Words& words) const override { prepend(words, " ", false); }
};

/// Rewrites every byte as its letter.
class SpellBytes : public PreTokenizer {
 public:
  void apply(Words& words) const override {
    TextBuilder builder(words.text);
    const auto bytes = words.text.bytes();
    for (auto& span : words.spans) {
      const auto begin = builder.size();
      for (auto at = span.begin; at < span.end; ++at) {
        builder.insert(spell_bytes(bytes.substr(at, 1)), words.text.origin({at, at + 1}));
      }
      span = {begin, builder.size()};
    }
    std::move(builder).finish(words.text);
  }
  bool spells_bytes() const override { return true; }
};

/// Before which words a mark of spaces is put: none, the one that begins the input, all.
enum class Prepend { kNever, kFirst, kAlways };

/// SentencePiece's: spaces become a mark that words begin with.
class Metaspace : public PreTokenizer {
 public:
  Metaspace(char32_t replacement, Prepend scheme, bool split) : scheme_(scheme), split_(split) {
    append(replacement_, replacement);
  }
  void apply(Words& words) const override {
    replace_spaces(words);
    if (scheme_ != Prepend::kNever) {
      prepend(words, replacement_, scheme_ == Prepend::kFirst);
    }
    if (split_) {
      std::size_t at = 0;
      const auto mark = next_character(replacement_, at);
      cut(words, Behavior::kMergedWithNext, [&](std::string_view word, auto& matches) {
        find_characters(word, matches, [&](char32_t character) { return character == mark; });
      });
    }
  }

 private:
  void replace_spaces(Words& words) const {
    const auto bytes = words.text.bytes();
    if (bytes.find(' ') == bytes.npos) {
      return;
    }
    TextBuilder builder(words.text);
    for (auto& span : words.spans) {
      const auto begin = builder.size();
      for (auto at = span.begin; at < span.end;) {
        const auto space = static_cast<std::uint32_t>(std::min<std::size_t>(bytes.find(' ', at), span.end));
        builder.copy({at, space});
        if (space < span.end) {
          builder.insert(replacement_, words.text.origin({space, space + 1}));
        }
        at = space + 1;
      }
      span = {begin, builder.size()};
    }
    std::move(builder).finish(words.text);
  }

  std::string replacement_;
  Prepend scheme_;
  bool split_;
};

using Stages = std::vector<std::unique_ptr<PreTokenizer>>;

void read_stages(const Component& component, Stages& stages);

void read_byte_level(const Component& component, Stages& stages) {
  if (component.flag_or("add_prefix_space", true)) {
    stages.push_back(std::make_unique<PrefixSpace>());
  }
  if (component.flag_or("use_regex", true)) {
    stages.push_back(std::make_unique<SplitPattern>(
        Pattern(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", Pattern::Kind::kRegex),
        Behavior::kIsolated, false));
  }
  stages.push_back(std::make_unique<SpellBytes>());
}

void read_metaspace(const Component& component, Stages& stages) {
  static const std::map<std::string, Prepend> kSchemes = {
      {"never", Prepend::kNever}, {"first", Prepend::kFirst}, {"always", Prepend::kAlways}};
  const auto name = component.text_or("prepend_scheme", "always");
  auto scheme = find_named("prepend_scheme", kSchemes, name, component);
  if (!component.flag_or("add_prefix_space", true)) {
    if (component.has("prepend_scheme") && scheme != Prepend::kNever) {
      component.fail(fmt::format("add_prefix_space = false contradicts prepend_scheme = \"{}\"", name));
    }
    scheme = Prepend::kNever;
  }
  stages.push_back(
      std::make_unique<Metaspace>(component.character("replacement"), scheme, component.flag_or("split", true)));
}

void read_split(const Component& component, Stages& stages) {
  stages.push_back(std::make_unique<SplitPattern>(read_pattern(component), read_behavior(component, "Isolated"),
                                                  component.flag_or("invert", false)));
}

Stages::value_type split_at(std::function<bool(char32_t)> wanted, Behavior behavior) {
  return std::make_unique<SplitCharacters>(std::move(wanted), behavior);
}

void read_bert(const Component&, Stages& stages) {
  stages.push_back(split_at(is_space, Behavior::kRemoved));
  stages.push_back(split_at(is_punctuation, Behavior::kIsolated));
}

void read_whitespace(const Component&, Stages& stages) { stages.push_back(std::make_unique<Whitespace>()); }

void read_whitespace_split(const Component&, Stages& stages) {
  stages.push_back(split_at(is_space, Behavior::kRemoved));
}

void read_punctuation(const Component& component, Stages& stages) {
  stages.push_back(split_at(is_punctuation, read_behavior(component, "Isolated")));
}

void read_digits(const Component& component, Stages& stages) {
  stages.push_back(split_at(
      is_numeric, component.flag_or("individual_digits", false) ? Behavior::kIsolated : Behavior::kContiguous));
}

void read_delimiter(const Component& component, Stages& stages) {
  const auto delimiter = component.character("delimiter");
  stages.push_back(split_at([=](char32_t character) { return character == delimiter; }, Behavior::kRemoved));
}

void read_sequence(const Component& component, Stages& stages) {
  read_parts(component, "pretokenizers", stages, read_stages);
}

void read_stages(const Component& component, Stages& stages) {
  static const StageReaders<void(const Component&, Stages&)> kReaders = {{"BertPreTokenizer", read_bert},
                                                                         {"ByteLevel", read_byte_level},
                                                                         {"CharDelimiterSplit", read_delimiter},
                                                                         {"Delimiter", read_delimiter},
                                                                         {"Digits", read_digits},
                                                                         {"Metaspace", read_metaspace},
                                                                         {"Punctuation", read_punctuation},
                                                                         {"Sequence", read_sequence},
                                                                         {"Split", read_split},
                                                                         {"Whitespace", read_whitespace},
                                                                         {"WhitespaceSplit", read_whitespace_split}};
  find_reader("pre-tokenizer", kReaders, component)(component, stages);
}

}  // namespace

Stages read_pre_tokenizer(const Component& component) {
  Stages stages;
  read_stages(component, stages);
  return stages;
}

}  // namespace whence::detail
