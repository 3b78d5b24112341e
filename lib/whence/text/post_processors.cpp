#include "whence/text/detail/post_processors.h"

#include <fmt/format.h>

#include <algorithm>

#include "whence/core/json.h"
#include "whence/text/detail/byte_letters.h"
#include "whence/text/detail/stage_readers.h"
#include "whence/text/detail/unicode.h"

namespace whence::detail {
namespace {

using Stages = std::vector<std::unique_ptr<PostProcessor>>;

/// Takes white space at the ends of a token out of its offsets.
class TrimOffsets : public PostProcessor {
 public:
  explicit TrimOffsets(bool prefix_space) : prefix_space_(prefix_space) {}
  bool trims() const override { return true; }

  void apply(std::vector<EncodedPart>& parts, bool) const override {
    for (auto& [text, encoding, margins] : parts) {
      for (std::size_t i = 0; i < margins.size(); ++i) {
        trim(text, encoding.offsets[i], margins[i], i == 0);
      }
    }
  }

 private:
  void trim(std::string_view text, std::pair<std::int64_t, std::int64_t>& offsets, const Margins& margins,
            bool first) const {
    auto& [begin, end] = offsets;
    const bool added = (first || begin == 0) && prefix_space_ && margins.left == 1;  // the text has no such space
    for (auto left = added ? 0 : margins.left; left > 0 && begin < end; --left) {
      begin = static_cast<std::int64_t>(character_end(text, static_cast<std::size_t>(begin)));
    }
    auto trimmed = end;
    for (auto right = margins.right; right > 0; --right) {
      if (trimmed == 0) {
        return;
      }
      trimmed = static_cast<std::int64_t>(character_begin(text, static_cast<std::size_t>(trimmed - 1)));
    }
    end = std::max(trimmed, begin);
  }

  bool prefix_space_;
};

/// Puts tokens around the texts.
class Template : public PostProcessor {
 public:
  struct Piece {
    std::size_t text;               // which of the texts; unused where there are ids
    std::vector<std::int32_t> ids;  // of the tokens added; empty for a text
    std::int32_t type;
  };
  Template(std::vector<Piece> single, std::vector<Piece> pair) : single_(std::move(single)), pair_(std::move(pair)) {}

  void apply(std::vector<EncodedPart>& parts, bool add_special_tokens) const override {
    std::vector<EncodedPart> result;
    for (const auto& piece : parts.size() == 1 ? single_ : pair_) {
      if (piece.ids.empty()) {
        result.push_back(parts[piece.text]);
        auto& types = result.back().encoding.types;
        std::fill(types.begin(), types.end(), piece.type);
      } else if (add_special_tokens) {
        const auto count = piece.ids.size();
        result.push_back({{},
                          {piece.ids, std::vector<std::pair<std::int64_t, std::int64_t>>(count),
                           std::vector<bool>(count, true), std::vector<std::int32_t>(count, piece.type)},
                          {}});
      }
    }
    parts = std::move(result);
  }

 private:
  std::vector<Piece> single_, pair_;
};

std::vector<Template::Piece> read_pieces(const Component& component, const char* key, std::size_t texts) {
  std::vector<Template::Piece> pieces;
  for (const auto& item : component.objects(key)) {
    if (item.has("Sequence")) {
      const auto sequence = item.object("Sequence");
      const auto id = sequence.text("id");
      const std::size_t text = id == "B" ? 1 : 0;
      if ((id != "A" && id != "B") || text >= texts) {
        sequence.fail(fmt::format("id \"{}\", expected {}", id, texts == 1 ? "\"A\"" : "\"A\" or \"B\""));
      }
      pieces.push_back({text, {}, static_cast<std::int32_t>(sequence.count("type_id"))});
      check_count(component, pieces);
      continue;
    }
    const auto special = item.object("SpecialToken");
    const auto name = special.text("id");
    const auto tokens = component.object("special_tokens");
    if (!tokens.has(name.c_str())) {
      special.fail(fmt::format("token \"{}\" is not in special_tokens", name));
    }
    const auto token = tokens.object(name.c_str());
    Template::Piece piece{0, {}, static_cast<std::int32_t>(special.count("type_id"))};
    for (const auto& entry : token.value("ids")) {
      const auto id = read_id(entry);
      if (!id) {
        token.fail(fmt::format("ids: {}, expected an integer in [0, 2^31)", brief(entry)));
      }
      piece.ids.push_back(*id);
    }
    if (!piece.ids.empty()) {
      pieces.push_back(std::move(piece));
    }
    check_count(component, pieces);
  }
  return pieces;
}

/// [token, id]
std::int32_t read_token_pair(const Component& component, const char* key) {
  const auto& pair = component.value(key);
  const auto id = pair.is_array() && pair.size() == 2 ? read_id(pair[1]) : std::nullopt;
  if (!id) {
    component.fail(fmt::format("key \"{}\" = {}, expected [TOKEN, ID]", key, brief(pair)));
  }
  return *id;
}

void read_stages(const Component& component, Stages& stages);

void read_trimming(const Component& component, Stages& stages) {
  if (component.flag_or("trim_offsets", true)) {
    stages.push_back(std::make_unique<TrimOffsets>(component.flag_or("add_prefix_space", true)));
  }
}

void read_template(const Component& component, Stages& stages) {
  stages.push_back(std::make_unique<Template>(read_pieces(component, "single", 1), read_pieces(component, "pair", 2)));
}

void read_bert(const Component& component, Stages& stages) {
  const auto cls = read_token_pair(component, "cls"), sep = read_token_pair(component, "sep");
  stages.push_back(std::make_unique<Template>(
      std::vector<Template::Piece>{{0, {cls}, 0}, {0, {}, 0}, {0, {sep}, 0}},
      std::vector<Template::Piece>{{0, {cls}, 0}, {0, {}, 0}, {0, {sep}, 0}, {1, {}, 1}, {0, {sep}, 1}}));
}

void read_roberta(const Component& component, Stages& stages) {
  read_trimming(component, stages);
  const auto cls = read_token_pair(component, "cls"), sep = read_token_pair(component, "sep");
  stages.push_back(std::make_unique<Template>(
      std::vector<Template::Piece>{{0, {cls}, 0}, {0, {}, 0}, {0, {sep}, 0}},
      std::vector<Template::Piece>{{0, {cls}, 0}, {0, {}, 0}, {0, {sep, sep}, 0}, {1, {}, 0}, {0, {sep}, 0}}));
}

void read_sequence(const Component& component, Stages& stages) {
  read_parts(component, "processors", stages, read_stages);
}

void read_stages(const Component& component, Stages& stages) {
  static const StageReaders<void(const Component&, Stages&)> kReaders = {{"BertProcessing", read_bert},
                                                                         {"ByteLevel", read_trimming},
                                                                         {"RobertaProcessing", read_roberta},
                                                                         {"Sequence", read_sequence},
                                                                         {"TemplateProcessing", read_template}};
  find_reader("post-processor", kReaders, component)(component, stages);
}

}  // namespace

Margins margins_of(std::string_view token) {
  Margins margins;
  bool all_white = true;
  for (std::size_t at = 0; at < token.size();) {
    const auto character = next_character(token, at);
    const bool white = character == byte_letters()[' '] || is_space(character);
    all_white = all_white && white;
    margins.left += all_white ? 1 : 0;
    margins.right = white ? margins.right + 1 : 0;
  }
  return margins;
}

Stages read_post_processor(const Component& component) {
  Stages stages;
  read_stages(component, stages);
  if (std::count_if(stages.begin(), stages.end(), [](const auto& stage) { return !stage->trims(); }) > 1) {
    component.fail("a Sequence with more than one stage that adds tokens is not supported");
  }
  return stages;
}

}  // namespace whence::detail
