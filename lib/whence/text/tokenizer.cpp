#include "whence/text/tokenizer.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/core/progress.h"
#include "whence/text/detail/added_tokens.h"
#include "whence/text/detail/decoders.h"
#include "whence/text/detail/normalizers.h"
#include "whence/text/detail/post_processors.h"
#include "whence/text/detail/pre_tokenizers.h"
#include "whence/text/detail/token_model.h"
#include "whence/text/detail/tokenizer_settings.h"
#include "whence/text/detail/unicode.h"
#include "whence/text/detail/word_cache.h"

namespace whence {
namespace fs = std::filesystem;
using namespace detail;
namespace {

template <class Read>
auto read_stage(const Component& file, const char* key, Read&& read) {
  return file.has(key) ? read(file.object(key)) : decltype(read(file)){};
}

/// What special tokens are called where no file gives them roles.
constexpr std::pair<std::string_view, std::string_view> kUsualNames[] = {
    {"bos", "<s>"},   {"eos", "</s>"},  {"eos", "<|endoftext|>"}, {"unk", "<unk>"},   {"unk", "[UNK]"},
    {"pad", "<pad>"}, {"pad", "[PAD]"}, {"mask", "<mask>"},       {"mask", "[MASK]"}, {"cls", "[CLS]"},
    {"cls", "<s>"},   {"sep", "[SEP]"}, {"sep", "</s>"}};

}  // namespace

class Tokenizer::Impl {
 public:
  explicit Impl(const fs::path& path) : Impl(path, read_json(path)) {}

  const std::vector<std::string>& notes() const { return settings_.notes; }

  Encoding encode(std::span<const std::string_view> texts, bool add_special_tokens) const {
    std::vector<EncodedPart> parts;
    for (const auto text : texts) {
      parts.push_back(encode_text(text));
      auto& encoding = parts.back().encoding;
      encoding.special.assign(encoding.ids.size(), false);
      encoding.types.assign(encoding.ids.size(), static_cast<std::int32_t>(parts.size()) - 1);
    }
    for (const auto& stage : post_processors_) {
      stage->apply(parts, add_special_tokens);
    }
    auto result = parts.empty() ? Encoding{} : std::move(parts[0].encoding);
    for (std::size_t i = 1; i < parts.size(); ++i) {
      const auto extend = [](auto& list, const auto& more) { list.insert(list.end(), more.begin(), more.end()); };
      extend(result.ids, parts[i].encoding.ids);
      extend(result.offsets, parts[i].encoding.offsets);
      extend(result.special, parts[i].encoding.special);
      extend(result.types, parts[i].encoding.types);
    }
    return result;
  }

  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
    std::vector<std::string> tokens;
    for (const auto id : ids) {
      const auto added = added_.spelled(id);
      const auto token = added.empty() ? model_->vocabulary().token(id) : added;
      if (!token.empty() && !(skip_special_tokens && added_.is_special(token))) {
        tokens.emplace_back(token);
      }
    }
    for (const auto& stage : decoders_) {
      stage->apply(tokens);
    }
    return fmt::format("{}", fmt::join(tokens, decodes_ ? "" : " "));
  }

  std::int64_t size() const { return std::max(added_.end(), model_->vocabulary().end()); }

  std::optional<std::int32_t> id(std::string_view token) const {
    const auto added = added_.find(token);
    const auto id = added != Vocabulary::kNone ? added : model_->vocabulary().find(token);
    return id == Vocabulary::kNone ? std::nullopt : std::optional(id);
  }

  std::string_view token(std::int32_t id) const {
    const auto added = added_.token(id);
    return added.empty() ? model_->vocabulary().token(id) : added;
  }

  std::optional<std::int32_t> special(std::string_view role) const {
    if (std::find(kTokenizerRoles.begin(), kTokenizerRoles.end(), role) == kTokenizerRoles.end()) {
      throw InvalidArgument(unknown_name("role", role, {kTokenizerRoles.begin(), kTokenizerRoles.end()}));
    }
    const auto& roles = settings_.roles;
    if (const auto found = roles.find(role); found != roles.end()) {
      return id(found->second);
    }
    for (const auto& [known, name] : kUsualNames) {
      if (known == role && added_.is_special(name)) {
        return id(name);
      }
    }
    return std::nullopt;
  }

 private:
  Impl(const fs::path& path, nlohmann::json json) {
    const Component file(json, path.string());
    settings_ = apply_settings(json, path.parent_path());
    normalizers_ = read_stage(file, "normalizer", read_normalizer);
    pre_tokenizers_ = read_stage(file, "pre_tokenizer", read_pre_tokenizer);
    model_ = read_model(file.object("model"));
    post_processors_ = read_stage(file, "post_processor", read_post_processor);
    decoders_ = read_stage(file, "decoder", read_decoder);
    decodes_ = file.has("decoder");
    if (file.has("added_tokens")) {
      added_ = AddedTokens(
          file.objects("added_tokens"), model_->vocabulary(),
          [&](std::string content) {
            AlignedText text(content, {0, static_cast<std::uint32_t>(content.size())});
            normalize(text);
            return std::string(text.bytes());
          },
          !settings_.split_special_tokens);
    }
    if (!pre_tokenizers_.empty() && pre_tokenizers_.back()->spells_bytes() && model_->take_raw_bytes()) {
      pre_tokenizers_.pop_back();  // not to spell what the model would only read back
    }
    if (std::any_of(post_processors_.begin(), post_processors_.end(),
                    [](const auto& stage) { return stage->trims(); })) {
      for (std::int32_t token_id = 0; token_id < size(); ++token_id) {
        margins_.push_back(margins_of(model_->vocabulary().token(token_id)));
      }
    }
    if (!model_->unknown_token().empty()) {
      settings_.roles.emplace("unk", model_->unknown_token());
    }
  }

  void normalize(AlignedText& text) const {
    for (const auto& stage : normalizers_) {
      stage->apply(text);
    }
  }

  /// The tokens of one text, before the post-processor sees them.
  EncodedPart encode_text(std::string_view text) const {
    if (text.size() > 0xffff0000u) {
      throw DataError(fmt::format("a text of {} bytes, expected less than 4 GiB", text.size()));
    }
    check_utf8(text);
    EncodedPart part{text, {}, {}};
    const WordCaches::Loan cache(caches_);
    for (const auto& [span, id] : added_.split_input(text)) {
      AlignedText section(text, span);
      if (id != Vocabulary::kNone) {
        put_added(id, section, part);
        continue;
      }
      normalize(section);
      for (const auto& [inner, inner_id] : added_.split_normalized(section.bytes())) {
        if (inner_id != Vocabulary::kNone) {
          put_added(inner_id, section.slice(inner), part);
        } else if (inner.end - inner.begin == section.bytes().size()) {
          encode_words({std::move(section), {inner}}, *cache, part);
          break;
        } else {
          encode_words({section.slice(inner), {{0, inner.end - inner.begin}}}, *cache, part);
        }
      }
    }
    return part;
  }

  void put_added(std::int32_t id, const AlignedText& text, EncodedPart& part) const {
    if (text.empty()) {
      return;
    }
    const auto [begin, end] = text.origin({0, static_cast<std::uint32_t>(text.bytes().size())});
    part.encoding.ids.push_back(id);
    part.encoding.offsets.emplace_back(begin, end);
    if (!margins_.empty()) {
      part.margins.push_back(margins_of(text.bytes()));
    }
  }

  void encode_words(Words words, WordCache& cache, EncodedPart& part) const {
    for (const auto& stage : pre_tokenizers_) {
      stage->apply(words);
    }
    auto& encoding = part.encoding;
    constexpr std::size_t kBetweenChecks = 1 << 14;
    std::size_t count = 0;
    for (const auto& span : words.spans) {
      if (++count % kBetweenChecks == 0) {
        check_interruption();
      }
      const auto word = words.text.bytes().substr(span.begin, span.end - span.begin);
      for (const auto& token : cache.find(word, [&](auto& tokens) { model_->encode(word, tokens); })) {
        encoding.ids.push_back(token.id);
        encoding.offsets.push_back(origin(words.text, span, token.span));
        if (!margins_.empty()) {
          part.margins.push_back(margins_[static_cast<std::size_t>(token.id)]);
        }
      }
    }
  }

  /// Where a token, which lies at `within` of the word at `word`, comes from.
  static std::pair<std::int64_t, std::int64_t> origin(const AlignedText& text, const Span& word, const Span& within) {
    if (within.begin == within.end || word.begin + within.end > word.end) {  // it stands for none of the word's bytes
      return {within.begin, within.end};
    }
    const auto [begin, end] = text.origin({word.begin + within.begin, word.begin + within.end});
    return {begin, end};
  }

  std::vector<std::unique_ptr<Normalizer>> normalizers_;
  std::vector<std::unique_ptr<PreTokenizer>> pre_tokenizers_;
  std::unique_ptr<TokenModel> model_;
  std::vector<std::unique_ptr<PostProcessor>> post_processors_;
  std::vector<std::unique_ptr<Decoder>> decoders_;
  bool decodes_ = false;  // whether there is a decoder, even one of no stages
  AddedTokens added_;
  std::vector<Margins> margins_;  // of each token of the model; empty where no stage trims
  TokenizerSettings settings_;
  mutable WordCaches caches_;
};

std::vector<std::filesystem::path> tokenizer_files(const std::filesystem::path& tokenizer_json) {
  std::vector<std::filesystem::path> out{tokenizer_json};
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"}) {
    out.push_back(tokenizer_json.parent_path() / name);
  }
  return out;
}

Tokenizer::Tokenizer(const fs::path& path)
    : impl_(std::make_shared<const Impl>(fs::is_directory(path) ? path / "tokenizer.json" : path)) {}

Encoding Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  return impl_->encode(std::array{text}, add_special_tokens);
}

Encoding Tokenizer::encode(std::string_view first, std::string_view second, bool add_special_tokens) const {
  return impl_->encode(std::array{first, second}, add_special_tokens);
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  return impl_->decode(ids, skip_special_tokens);
}

const std::vector<std::string>& Tokenizer::notes() const { return impl_->notes(); }
std::int64_t Tokenizer::size() const { return impl_->size(); }
std::optional<std::int32_t> Tokenizer::id(std::string_view token) const { return impl_->id(token); }
std::string_view Tokenizer::token(std::int32_t id) const { return impl_->token(id); }
std::optional<std::int32_t> Tokenizer::special(std::string_view role) const { return impl_->special(role); }

}  // namespace whence
