#include "whence/text/detail/normalizers.h"

#include <algorithm>

#include "whence/text/detail/byte_letters.h"
#include "whence/text/detail/regex.h"
#include "whence/text/detail/stage_readers.h"

namespace whence::detail {
namespace {

using Stages = std::vector<std::unique_ptr<Normalizer>>;

template <class Take>
void for_each_character(std::string_view text, Take&& take) {
  for (std::size_t at = 0; at < text.size();) {
    take(next_character(text, at));
  }
}

/// Keeps the characters that `wanted` holds for.
template <class Wanted>
void filter(AlignedText& text, Wanted&& wanted) {
  std::vector<Change> changes;
  int removed = 0;
  std::size_t removed_first = 0;
  const auto close = [&] {
    if (changes.empty()) {
      removed_first = static_cast<std::size_t>(removed);
    } else {
      changes.back().change = -removed;
    }
    removed = 0;
  };
  for_each_character(text.bytes(), [&](char32_t character) {
    if (wanted(character)) {
      close();
      changes.push_back({character, 0});
    } else {
      ++removed;
    }
  });
  close();
  text.transform(changes, removed_first);
}

template <class Map>
void map(AlignedText& text, Map&& to) {
  std::vector<Change> changes;
  for_each_character(text.bytes(), [&](char32_t character) { changes.push_back({to(character), 0}); });
  text.transform(changes);
}

/// Each character becomes what `expand(characters, character)` appends.
template <class Expand>
void expand_each(AlignedText& text, Expand&& expand) {
  std::vector<Change> changes;
  std::u32string expanded;
  for_each_character(text.bytes(), [&](char32_t character) {
    expanded.clear();
    expand(expanded, character);
    for (std::size_t i = 0; i < expanded.size(); ++i) {
      changes.push_back({expanded[i], i > 0 ? 1 : 0});
    }
  });
  text.transform(changes);
}

/// The decomposition in canonical order. Unicode Standard Annex 15.
std::vector<Change> decomposed(std::string_view text, Decomposition kind) {
  std::vector<Change> changes;
  std::u32string parts;
  std::size_t ordered = 0;  // characters before this stay where they are
  const auto order = [&] {
    std::stable_sort(
        changes.begin() + static_cast<std::ptrdiff_t>(ordered), changes.end(),
        [](const Change& a, const Change& b) { return combining_class(a.character) < combining_class(b.character); });
    ordered = changes.size();
  };
  for_each_character(text, [&](char32_t character) {
    parts.clear();
    append_decomposition(parts, character, kind);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (combining_class(parts[i]) == 0) {
        order();
      }
      changes.push_back({parts[i], i > 0 ? 1 : 0});
    }
  });
  order();
  return changes;
}

/// Composes what decomposed() returned. Unicode Standard Annex 15.
std::vector<Change> composed(const std::vector<Change>& parts) {
  std::vector<Change> changes;
  std::size_t starter = parts.size();  // in `changes`, of the character that composes; none yet
  int last_class = -1;                 // of what stands between it and the next; -1 for nothing
  for (const auto& part : parts) {
    const int own_class = combining_class(part.character);
    if (starter < parts.size() && last_class < own_class) {
      auto& first = changes[starter];
      if (const auto both = compose(first.character, part.character)) {
        first = {both, first.change + part.change - 1};
        continue;
      }
    }
    if (own_class == 0) {
      starter = changes.size();
      last_class = -1;
    } else if (starter < parts.size()) {
      last_class = own_class;
    }
    changes.push_back(part);
  }
  return changes;
}

class Normalization : public Normalizer {
 public:
  Normalization(Decomposition kind, bool compose) : kind_(kind), compose_(compose) {}
  void apply(AlignedText& text) const override {
    if (!is_normal(text.bytes())) {
      const auto parts = decomposed(text.bytes(), kind_);
      text.transform(compose_ ? composed(parts) : parts);
    }
  }

 private:
  /// Whether the text stays as it is, by a look at each character alone.
  bool is_normal(std::string_view bytes) const {
    const bool canonical = compose_ && kind_ == Decomposition::kCanonical;
    for (std::size_t at = 0; at < bytes.size();) {
      const auto character = next_character(bytes, at);
      if (character >= 0x80 && !(canonical && is_composed(character))) {
        return false;
      }
    }
    return true;
  }

  Decomposition kind_;
  bool compose_;
};

/// A stage without options: a function of the text.
template <void (*kApply)(AlignedText&)>
class Simple : public Normalizer {
 public:
  void apply(AlignedText& text) const override { kApply(text); }
};

void lowercase(AlignedText& text) { expand_each(text, append_lower); }

void strip_accents(AlignedText& text) {
  filter(text, [](char32_t character) { return !is_mark(character); });
}

void spell_as_letters(AlignedText& text) {
  expand_each(text, [](std::u32string& letters, char32_t character) {
    std::string bytes;
    append(bytes, character);
    for (const char byte : bytes) {
      letters.push_back(byte_letters()[static_cast<unsigned char>(byte)]);
    }
  });
}

/// SentencePiece's nmt rules: control characters vanish, other separators become spaces.
void nmt(AlignedText& text) {
  filter(text, [](char32_t c) {
    return !((c >= 0x01 && c <= 0x08) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f);
  });
  map(text, [](char32_t c) {
    const bool separator = c == 0x09 || c == 0x0a || c == 0x0c || c == 0x0d || c == 0x1680 ||
                           (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff ||
                           c == 0xfffd;
    return separator ? U' ' : c;
  });
}

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(AlignedText& text) const override {
    const auto bytes = text.bytes();
    std::size_t begin = 0, end = bytes.size();
    while (left_ && begin < end) {
      auto at = begin;
      if (!is_space(next_character(bytes, at))) {
        break;
      }
      begin = at;
    }
    while (right_ && begin < end) {
      const auto last = character_begin(bytes, end - 1);
      auto at = last;
      if (!is_space(next_character(bytes, at))) {
        break;
      }
      end = last;
    }
    TextBuilder builder(text);
    builder.copy({static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end)});
    std::move(builder).finish(text);
  }

 private:
  bool left_, right_;
};

class Replace : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void apply(AlignedText& text) const override {
    std::vector<Match> matches;
    pattern_.find(text.bytes(), matches);
    if (std::none_of(matches.begin(), matches.end(), [](const Match& match) { return match.matched; })) {
      return;
    }
    TextBuilder builder(text);
    for (const auto& [span, matched] : matches) {
      if (matched) {  // the content comes from the match's last character
        builder.insert(content_,
                       span.end == 0 ? Span{text.begin(), text.begin()} : text.origin({span.end - 1, span.end}));
      } else {
        builder.copy(span);
      }
    }
    std::move(builder).finish(text);
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(AlignedText& text) const override {
    if (text.empty()) {
      return;
    }
    TextBuilder builder(text);
    const auto size = static_cast<std::uint32_t>(text.bytes().size());
    builder.insert(prefix_, text.origin({0, static_cast<std::uint32_t>(character_end(text.bytes(), 0))}));
    builder.copy({0, size});
    std::move(builder).finish(text);
  }

 private:
  std::string prefix_;
};

/// J. Devlin et al., "BERT", 2019, tokenization.py.
class Bert : public Normalizer {
 public:
  explicit Bert(const Component& component)
      : clean_(component.flag_or("clean_text", true)),
        chinese_(component.flag_or("handle_chinese_chars", true)),
        lowercase_(component.flag_or("lowercase", true)),
        strip_(component.flag_or("strip_accents", lowercase_)) {}

  void apply(AlignedText& text) const override {
    if (clean_) {
      filter(text, [](char32_t c) { return is_kept_space(c) || !(c == 0 || c == 0xfffd || is_other(c)); });
      map(text, [](char32_t c) { return is_kept_space(c) || is_space(c) ? U' ' : c; });
    }
    if (chinese_) {
      space_chinese(text);
    }
    if (strip_) {
      decompose_.apply(text);
      filter(text, [](char32_t character) { return !is_nonspacing_mark(character); });
    }
    if (lowercase_) {
      lowercase(text);
    }
  }

 private:
  static bool is_kept_space(char32_t c) { return c == U'\t' || c == U'\n' || c == U'\r'; }
  static bool is_chinese(char32_t c) {
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) || (c >= 0xf900 && c <= 0xfaff) ||
           (c >= 0x2f800 && c <= 0x2fa1f);
  }
  static void space_chinese(AlignedText& text) {
    expand_each(text, [](std::u32string& characters, char32_t character) {
      if (is_chinese(character)) {
        characters.append({U' ', character, U' '});
      } else {
        characters.push_back(character);
      }
    });
  }

  bool clean_, chinese_, lowercase_, strip_;
  Normalization decompose_{Decomposition::kCanonical, false};
};

void read_stages(const Component& component, Stages& stages);

void read_sequence(const Component& component, Stages& stages) {
  read_parts(component, "normalizers", stages, read_stages);
}

template <Decomposition kKind, bool kCompose>
void read_normalization(const Component&, Stages& stages) {
  stages.push_back(std::make_unique<Normalization>(kKind, kCompose));
}

template <void (*kApply)(AlignedText&)>
void read_simple(const Component&, Stages& stages) {
  stages.push_back(std::make_unique<Simple<kApply>>());
}

void read_bert(const Component& component, Stages& stages) { stages.push_back(std::make_unique<Bert>(component)); }

void read_prepend(const Component& component, Stages& stages) {
  stages.push_back(std::make_unique<Prepend>(component.text("prepend")));
}

void read_replace(const Component& component, Stages& stages) {
  stages.push_back(std::make_unique<Replace>(read_pattern(component), component.text("content")));
}

void read_strip(const Component& component, Stages& stages) {
  stages.push_back(
      std::make_unique<Strip>(component.flag_or("strip_left", true), component.flag_or("strip_right", true)));
}

void read_charsmap(const Component& component, Stages& stages) { stages.push_back(read_precompiled(component)); }

void read_stages(const Component& component, Stages& stages) {
  using enum Decomposition;
  static const StageReaders<void(const Component&, Stages&)> kReaders = {
      {"Bert", read_bert},
      {"BertNormalizer", read_bert},
      {"ByteLevel", read_simple<spell_as_letters>},
      {"Lowercase", read_simple<lowercase>},
      {"NFC", read_normalization<kCanonical, true>},
      {"NFD", read_normalization<kCanonical, false>},
      {"NFKC", read_normalization<kCompatible, true>},
      {"NFKD", read_normalization<kCompatible, false>},
      {"Nmt", read_simple<nmt>},
      {"Precompiled", read_charsmap},
      {"Prepend", read_prepend},
      {"Replace", read_replace},
      {"Sequence", read_sequence},
      {"Strip", read_strip},
      {"StripAccents", read_simple<strip_accents>}};
  find_reader("normalizer", kReaders, component)(component, stages);
}

}  // namespace

Stages read_normalizer(const Component& component) {
  Stages stages;
  read_stages(component, stages);
  return stages;
}

}  // namespace whence::detail
