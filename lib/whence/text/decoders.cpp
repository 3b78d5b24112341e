#include "whence/text/detail/decoders.h"

#include <algorithm>
#include <charconv>

#include "whence/text/detail/aligned_text.h"
#include "whence/text/detail/byte_letters.h"
#include "whence/text/detail/regex.h"
#include "whence/text/detail/stage_readers.h"
#include "whence/text/detail/unicode.h"

namespace whence::detail {
namespace {

using Stages = std::vector<std::unique_ptr<Decoder>>;
using Tokens = std::vector<std::string>;

void replace_all(std::string& text, std::string_view old, std::string_view with) {
  for (std::size_t at = text.find(old); at != text.npos; at = text.find(old, at + with.size())) {
    text.replace(at, old.size(), with);
  }
}

std::string join(const Tokens& tokens) {
  std::string text;
  for (const auto& token : tokens) {
    text += token;
  }
  return text;
}

/// Reads letters back as the bytes that they spell.
class ByteLevel : public Decoder {
 public:
  void apply(Tokens& tokens) const override {
    std::string bytes;
    for (const auto& token : tokens) {
      bytes += read_letters(token).value_or(token);
    }
    tokens = {repair_utf8(bytes)};
  }
};

/// Makes one token of all.
class Fuse : public Decoder {
 public:
  void apply(Tokens& tokens) const override { tokens = {join(tokens)}; }
};

/// Puts the bytes of tokens like <0x0A> together.
class ByteFallback : public Decoder {
 public:
  void apply(Tokens& tokens) const override {
    Tokens result;
    std::string bytes;
    const auto finish = [&] {
      if (!bytes.empty() && is_utf8(bytes)) {
        result.push_back(bytes);
      } else {
        result.insert(result.end(), bytes.size(), "\uFFFD");
      }
      bytes.clear();
    };
    for (auto& token : tokens) {
      unsigned char byte = 0;
      if (read_byte(token, byte)) {
        bytes.push_back(static_cast<char>(byte));
        continue;
      }
      finish();
      result.push_back(std::move(token));
    }
    finish();
    tokens = std::move(result);
  }

 private:
  static bool read_byte(const std::string& token, unsigned char& byte) {
    if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) {
      return false;
    }
    const char* const end = token.data() + 5;
    return std::from_chars(token.data() + 3, end, byte, 16).ptr == end;
  }
};

/// Makes spaces of the marks that words begin with; none of the first, where it was put there.
class Metaspace : public Decoder {
 public:
  Metaspace(char32_t replacement, bool prepended) : prepended_(prepended) { append(replacement_, replacement); }
  void apply(Tokens& tokens) const override {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      replace_all(tokens[i], replacement_, i == 0 && prepended_ ? "" : " ");
    }
  }

 private:
  std::string replacement_;
  bool prepended_;
};

/// Puts a space before every token but the first and those that go on with a word, which lose their prefix.
class WordPiece : public Decoder {
 public:
  WordPiece(std::string prefix, bool cleanup) : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  void apply(Tokens& tokens) const override {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0 && tokens[i].starts_with(prefix_)) {
        tokens[i].erase(0, prefix_.size());
      } else if (i > 0) {
        std::string spaced = " ";
        tokens[i].swap(spaced += tokens[i]);
      }
      if (cleanup_) {
        clean_up(tokens[i]);
      }
    }
  }

 private:
  static void clean_up(std::string& token) {
    constexpr std::pair<std::string_view, std::string_view> kRules[] = {
        {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (const auto& [old, with] : kRules) {
      replace_all(token, old, with);
    }
  }

  std::string prefix_;
  bool cleanup_;
};

/// Makes spaces of the marks that words end with.
class Bpe : public Decoder {
 public:
  explicit Bpe(std::string suffix) : suffix_(std::move(suffix)) {}
  void apply(Tokens& tokens) const override {
    for (auto& token : tokens) {
      replace_all(token, suffix_, &token == &tokens.back() ? "" : " ");
    }
  }

 private:
  std::string suffix_;
};

class Replace : public Decoder {
 public:
  Replace(Pattern pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void apply(Tokens& tokens) const override {
    std::vector<Match> matches;
    for (auto& token : tokens) {
      pattern_.find(token, matches);
      std::string replaced;
      for (const auto& [span, matched] : matches) {
        replaced += matched ? content_ : token.substr(span.begin, span.end - span.begin);
        if (replaced.size() > kMostGrowth * token.size() + kFreeGrowth) {
          throw DataError(fmt::format("the tokenizer's decoder makes a token of {} bytes more than {} times as long",
                                      token.size(), kMostGrowth));
        }
      }
      token = std::move(replaced);
    }
  }

 private:
  Pattern pattern_;
  std::string content_;
};

/// Takes up to so many of one character off the ends of each token.
class Strip : public Decoder {
 public:
  Strip(char32_t character, std::int64_t left, std::int64_t right) : left_(left), right_(right) {
    append(character_, character);
  }
  void apply(Tokens& tokens) const override {
    for (auto& token : tokens) {
      std::string_view rest = token;
      for (auto i = left_; i > 0 && rest.starts_with(character_); --i) {
        rest.remove_prefix(character_.size());
      }
      for (auto i = right_; i > 0 && rest.ends_with(character_); --i) {
        rest.remove_suffix(character_.size());
      }
      token = std::string(rest);
    }
  }

 private:
  std::string character_;
  std::int64_t left_, right_;
};

void read_stages(const Component& component, Stages& stages);

template <class Stage>
void read_simple(const Component&, Stages& stages) {
  stages.push_back(std::make_unique<Stage>());
}

void read_bpe(const Component& component, Stages& stages) {
  const auto suffix = component.text("suffix");
  if (!suffix.empty()) {
    stages.push_back(std::make_unique<Bpe>(suffix));
  }
}

void read_metaspace(const Component& component, Stages& stages) {
  const bool prepended =
      component.flag_or("add_prefix_space", true) && component.text_or("prepend_scheme", "always") != "never";
  stages.push_back(std::make_unique<Metaspace>(component.character("replacement"), prepended));
}

void read_replace(const Component& component, Stages& stages) {
  stages.push_back(std::make_unique<Replace>(read_pattern(component), component.text("content")));
}

void read_sequence(const Component& component, Stages& stages) {
  read_parts(component, "decoders", stages, read_stages);
}

void read_strip(const Component& component, Stages& stages) {
  stages.push_back(
      std::make_unique<Strip>(component.character("content"), component.count("start"), component.count("stop")));
}

void read_word_piece(const Component& component, Stages& stages) {
  stages.push_back(std::make_unique<WordPiece>(component.text("prefix"), component.flag_or("cleanup", true)));
}

void read_stages(const Component& component, Stages& stages) {
  static const StageReaders<void(const Component&, Stages&)> kReaders = {{"BPEDecoder", read_bpe},
                                                                         {"ByteFallback", read_simple<ByteFallback>},
                                                                         {"ByteLevel", read_simple<ByteLevel>},
                                                                         {"Fuse", read_simple<Fuse>},
                                                                         {"Metaspace", read_metaspace},
                                                                         {"Replace", read_replace},
                                                                         {"Sequence", read_sequence},
                                                                         {"Strip", read_strip},
                                                                         {"WordPiece", read_word_piece}};
  find_reader("decoder", kReaders, component)(component, stages);
}

}  // namespace

Stages read_decoder(const Component& component) {
  Stages stages;
  read_stages(component, stages);
  return stages;
}

}  // namespace whence::detail
