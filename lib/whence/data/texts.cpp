#include "whence/data/detail/texts.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "whence/core/parallel.h"
#include "whence/core/progress.h"
#include "whence/core/random.h"
#include "whence/text/text_template.h"
#include "whence/text/tokenizer.h"

namespace whence::detail {
namespace {

/// One example before it is laid end to end with the others.
struct Piece {
  std::vector<std::int32_t> tokens, targets;
  std::vector<std::uint8_t> types;
  std::int64_t asked = -1;
  bool cut = false;
};

class TextMaker {
 public:
  TextMaker(const SourceExamples& source, const nlohmann::json& table, std::string format, const TextReading& reading,
            TargetKind wanted, std::size_t classes)
      : source_(source),
        format_(std::move(format)),
        keys_(read_keys<TextKeys>(table, format_)),
        tokenizer_(*reading.tokenizer),
        wanted_(wanted),
        length_(keys_.length > 0 ? std::min(keys_.length, reading.context) : reading.context) {
    const auto& columns = source.records.columns;
    mask_ = tokenizer_.special("mask");
    const auto mask_text = mask_ ? std::optional<std::string>(std::string(tokenizer_.token(*mask_))) : std::nullopt;
    text_.emplace(keys_.pattern.empty() ? "{" + keys_.text + "}" : keys_.pattern, format_ + ": template", columns,
                  mask_text);
    if (!keys_.answer.empty()) {
      answer_.emplace(keys_.answer, format_ + ": answer", columns, mask_text);
    }
    if (!keys_.pair.empty()) {
      pair_.emplace("{" + keys_.pair + "}", format_ + ": pair", columns, mask_text);
    }
    check(reading, classes);
  }

  const std::vector<std::int64_t>& words() const { return words_; }

  /// The examples that a record becomes.
  std::vector<Piece> pieces(std::size_t row) const {
    const auto& records = source_.records;
    try {
      return pieces_of(records.rows[row], row);
    } catch (const Error& error) {
      throw DataError(fmt::format("{}: line {}: {}", source_.inputs_from, records.lines[row], error.what()));
    }
  }

 private:
  void check(const TextReading& reading, std::size_t classes) {
    const auto one_of = [&](const char* key, const std::string& value, const std::vector<std::string>& words) {
      if (std::find(words.begin(), words.end(), value) == words.end()) {
        throw InvalidArgument(
            fmt::format("{}: key {} = \"{}\": {}", format_, key, value, unknown_name("word", value, words)));
      }
    };
    one_of("long", keys_.too_long, {"cut", "split"});
    one_of("loss-on", keys_.loss_on, {"auto", "all", "answer"});
    if (keys_.loss_on == "answer" && !answer_) {
      throw InvalidArgument(fmt::format("{}: key loss-on = \"answer\" without the key answer", format_));
    }
    if (tokenizer_.size() > reading.vocabulary) {
      for (std::int64_t id = reading.vocabulary; id < tokenizer_.size(); ++id) {
        if (!tokenizer_.token(static_cast<std::int32_t>(id)).empty()) {
          throw InvalidArgument(fmt::format(
              "the tokenizer has a token {} (\"{}\"), but the model knows 0 to {}: it is another model's tokenizer", id,
              tokenizer_.token(static_cast<std::int32_t>(id)), reading.vocabulary - 1));
        }
      }
    }
    if (wanted_ == TargetKind::kMaskedTokens && !mask_) {
      throw InvalidArgument("the loss masked-token needs a tokenizer with a mask token");
    }
    if (keys_.end && !tokenizer_.special("eos") && !tokenizer_.special("sep")) {
      throw InvalidArgument(fmt::format("{}: key end = true, but the tokenizer names no end-of-text token", format_));
    }
    if (keys_.too_long == "split" && (answer_ || !are_tokens(wanted_))) {
      throw InvalidArgument(
          fmt::format("{}: key long = \"split\" makes several examples of a text, which one answer or class cannot "
                      "serve: use cut",
                      format_));
    }
    if (keys_.label_words.empty()) {
      return;
    }
    if (wanted_ != TargetKind::kClasses) {
      throw InvalidArgument(fmt::format("{}: key label-words needs the loss cross-entropy", format_));
    }
    if (keys_.label_words.size() != classes) {
      throw InvalidArgument(
          fmt::format("{}: key label-words has {} words for {} classes", format_, keys_.label_words.size(), classes));
    }
    for (std::size_t c = 0; c < classes; ++c) {
      const auto ids = tokenizer_.encode(keys_.label_words[c], false).ids;
      if (ids.empty()) {
        throw InvalidArgument(fmt::format("{}: label word \"{}\" has no token", format_, keys_.label_words[c]));
      }
      const auto found = std::find(words_.begin(), words_.end(), ids.front());
      if (found != words_.end()) {
        throw InvalidArgument(fmt::format("{}: label words \"{}\" and \"{}\" begin with the same token \"{}\"", format_,
                                          keys_.label_words[static_cast<std::size_t>(found - words_.begin())],
                                          keys_.label_words[c], tokenizer_.token(ids.front())));
      }
      words_.push_back(ids.front());
    }
  }

  std::vector<Piece> pieces_of(const std::vector<std::string>& cells, std::size_t row) const {
    const auto prompt = text_->fill(cells);
    const auto text = answer_ ? prompt + answer_->fill(cells) : prompt;
    if (text.find_first_not_of(" \t\r\n") == text.npos) {
      throw DataError("the text is empty");
    }
    auto encoding = pair_ ? tokenizer_.encode(text, pair_->fill(cells)) : tokenizer_.encode(text);
    if (keys_.end) {
      encoding.ids.push_back(tokenizer_.special("eos") ? *tokenizer_.special("eos") : *tokenizer_.special("sep"));
      encoding.offsets.emplace_back(static_cast<std::int64_t>(text.size()), static_cast<std::int64_t>(text.size()));
      encoding.special.push_back(false);
      encoding.types.push_back(0);
    }
    if (encoding.ids.empty()) {
      throw DataError("the text has no token");
    }
    std::vector<Piece> out;
    for (const auto& kept : parts(encoding)) {
      out.push_back(piece(encoding, kept, static_cast<std::int64_t>(prompt.size()), row, out.size()));
    }
    return out;
  }

  /// Which tokens each example keeps: all where they fit, else the special ones with a part of the others.
  std::vector<std::vector<std::size_t>> parts(const Encoding& encoding) const {
    std::vector<std::size_t> others, specials;
    for (std::size_t i = 0; i < encoding.ids.size(); ++i) {
      (encoding.special[i] ? specials : others).push_back(i);
    }
    const auto room = length_ - static_cast<std::int64_t>(specials.size());
    if (room < 1) {
      throw InvalidArgument(fmt::format("{}: key length = {} leaves no room beside {} special tokens", format_, length_,
                                        specials.size()));
    }
    const auto with_specials = [&](std::size_t begin, std::size_t end) {
      std::vector<std::size_t> kept;
      std::merge(specials.begin(), specials.end(), others.begin() + static_cast<std::ptrdiff_t>(begin),
                 others.begin() + static_cast<std::ptrdiff_t>(end), std::back_inserter(kept));
      return kept;
    };
    const auto count = others.size();
    const auto most = static_cast<std::size_t>(room);
    if (count <= most) {
      std::vector<std::size_t> all(encoding.ids.size());
      std::iota(all.begin(), all.end(), std::size_t{0});
      return {all};
    }
    if (keys_.too_long == "split" || source_.records.blocks) {
      std::vector<std::vector<std::size_t>> out;
      for (std::size_t begin = 0; begin < count; begin += most) {
        if (count - begin > 1 || begin == 0) {  // a last token alone predicts nothing
          out.push_back(with_specials(begin, std::min(count, begin + most)));
        }
      }
      return out;
    }
    const bool answer_last = answer_.has_value() || (!words_.empty() && !text_->masks());
    return {answer_last ? with_specials(count - most, count) : with_specials(0, most)};
  }

  Piece piece(const Encoding& encoding, const std::vector<std::size_t>& kept, std::int64_t prompt_bytes,
              std::size_t row, std::size_t number) const {
    Piece out;
    out.cut = kept.size() < encoding.ids.size() && keys_.too_long == "cut" && !source_.records.blocks;
    for (const auto i : kept) {
      out.tokens.push_back(encoding.ids[i]);
      out.types.push_back(static_cast<std::uint8_t>(encoding.types[i]));
    }
    if (wanted_ == TargetKind::kNextTokens) {
      const bool answer_only = answer_ && keys_.loss_on != "all";
      for (std::size_t t = 0; t < kept.size(); ++t) {
        const bool counts =
            t + 1 < kept.size() &&
            (!answer_only || (!encoding.special[kept[t + 1]] && encoding.offsets[kept[t + 1]].second > prompt_bytes) ||
             (answer_only && keys_.end && t + 2 == kept.size()));
        out.targets.push_back(counts ? out.tokens[t + 1] : -1);
      }
    } else if (wanted_ == TargetKind::kMaskedTokens) {
      const auto file = std::filesystem::path(source_.inputs_from).filename().string();  // wherever it lies
      hide(encoding, kept, out,
           Random(static_cast<std::uint64_t>(keys_.mask_seed)).stream(fmt::format("mask {} {} {}", file, row, number)));
    } else if (!words_.empty()) {
      out.asked = static_cast<std::int64_t>(kept.size()) - 1;
      if (text_->masks()) {
        const auto found = std::find(out.tokens.begin(), out.tokens.end(), *mask_);
        if (found == out.tokens.end()) {
          throw DataError("the text was cut before its {mask}");
        }
        out.asked = found - out.tokens.begin();
      }
    }
    return out;
  }

  /// J. Devlin et al., "BERT", 2019: of the tokens to be predicted 8 in 10 are hidden, 1 is another and 1 is as it was.
  void hide(const Encoding& encoding, const std::vector<std::size_t>& kept, Piece& out, Random random) const {
    const auto count = static_cast<std::int64_t>(kept.size());
    const auto draws = random.uniform({3, count}, 0, 1);
    const auto* choice = draws.const_data_ptr<double>();
    out.targets.assign(kept.size(), -1);
    std::int64_t least = -1;  // the one that is hidden where chance takes none
    bool any = false;
    for (std::int64_t t = 0; t < count; ++t) {
      if (!encoding.special[kept[static_cast<std::size_t>(t)]]) {
        least = least < 0 || choice[t] < choice[least] ? t : least;
        any = any || choice[t] < keys_.mask_probability;
      }
    }
    for (std::int64_t t = 0; t < count; ++t) {
      const auto i = static_cast<std::size_t>(t);
      if (encoding.special[kept[i]] || (any ? choice[t] >= keys_.mask_probability : t != least)) {
        continue;
      }
      out.targets[i] = out.tokens[i];
      const double how = choice[count + t];
      if (how < 0.8) {
        out.tokens[i] = *mask_;
      } else if (how < 0.9) {
        out.tokens[i] = static_cast<std::int32_t>(choice[2 * count + t] * static_cast<double>(tokenizer_.size()));
      }
    }
  }

  const SourceExamples& source_;
  std::string format_;
  TextKeys keys_;
  const Tokenizer& tokenizer_;
  TargetKind wanted_;
  std::int64_t length_;
  std::optional<TextTemplate> text_, answer_, pair_;
  std::optional<std::int32_t> mask_;
  std::vector<std::int64_t> words_;
};

}  // namespace

bool asks_for_texts(const nlohmann::json& table) { return table.contains("text") || table.contains("template"); }

std::string hint_without_label(const nlohmann::json& table) {
  return asks_for_texts(table) && !table.contains("label")
             ? "; for texts without labels use the loss next-token or masked-token"
             : "";
}

std::vector<std::size_t> columns_of_texts(const nlohmann::json& table, const std::string& format,
                                          const std::vector<std::string>& columns) {
  const auto keys = read_keys<TextKeys>(table, format);
  std::vector<std::size_t> out;
  const auto add = [&](const std::string& pattern, const char* key) {
    if (!pattern.empty() && !columns.empty()) {
      const auto order = TextTemplate(pattern, format + ": " + key, columns, "{mask}").order();
      out.insert(out.end(), order.begin(), order.end());
    }
  };
  add(keys.pattern.empty() ? "{" + keys.text + "}" : keys.pattern, "template");
  add(keys.answer, "answer");
  add(keys.pair.empty() ? "" : "{" + keys.pair + "}", "pair");
  return out;
}

TokenSequences taken(const SourceExamples& source, const at::Tensor& rows, const TextReading& reading,
                     TargetKind wanted) {
  auto out = source.tokens;
  out.begins = out.begins.index_select(0, rows);
  out.lengths = out.lengths.index_select(0, rows);
  out.vocabulary = reading.vocabulary;
  out.tokenizer = reading.tokenizer;
  if (const auto longest = out.lengths.max().item<std::int64_t>(); longest > reading.context) {
    throw DataError(fmt::format("{}: an example has {} tokens, expected at most the model's {}", source.inputs_from,
                                longest, reading.context));
  }
  if (!are_tokens(wanted)) {
    out.targets = at::Tensor();
  } else if (!out.targets.defined()) {
    if (wanted != TargetKind::kNextTokens) {
      throw DataError(
          fmt::format("{}: the loss masked-token needs a tensor `predicted` beside `tokens`: the token at "
                      "each hidden place, -1 elsewhere",
                      source.inputs_from));
    }
    out.targets = at::cat({out.tokens.narrow(0, 1, out.tokens.size(0) - 1), at::full({1}, -1, out.tokens.options())});
    out.targets.index_fill_(0, source.tokens.begins + source.tokens.lengths - 1, -1);
  }
  return out;
}

TokenSequences tokenize(const SourceExamples& source, const nlohmann::json& table, const std::string& format,
                        const TextReading& reading, TargetKind wanted, const std::vector<std::string>& classes,
                        std::int64_t skip, std::int64_t limit, std::vector<std::int64_t>& rows, bool& split) {
  if (!reading.tokenizer) {
    throw InvalidArgument(
        "texts need a tokenizer.json in the model's directory, or the key tokenizer beside it; or give tokens as "
        "safetensors");
  }
  const TextMaker maker(source, table, format, reading, wanted, classes.size());
  std::vector<std::vector<Piece>> made(rows.size());
  parallel_for(static_cast<std::int64_t>(rows.size()), [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    check_interruption();
    made[at] = maker.pieces(static_cast<std::size_t>(rows[at]));
  });
  split = std::any_of(made.begin(), made.end(), [](const auto& of_row) { return of_row.size() > 1; });
  std::vector<std::int32_t> tokens, targets;
  std::vector<std::uint8_t> types;
  std::vector<std::int64_t> begins, lengths, asked, ids;
  TokenSequences out;
  bool typed = false;
  std::int64_t number = 0;  // of the piece
  for (std::size_t i = 0; i < made.size(); ++i) {
    for (const auto& piece : made[i]) {
      if (number++ < skip) {
        continue;
      }
      if (static_cast<std::int64_t>(ids.size()) == limit) {
        break;
      }
      ids.push_back(split ? number - 1 : rows[i]);
      begins.push_back(static_cast<std::int64_t>(tokens.size()));
      lengths.push_back(static_cast<std::int64_t>(piece.tokens.size()));
      tokens.insert(tokens.end(), piece.tokens.begin(), piece.tokens.end());
      targets.insert(targets.end(), piece.targets.begin(), piece.targets.end());
      types.insert(types.end(), piece.types.begin(), piece.types.end());
      typed = typed || std::any_of(piece.types.begin(), piece.types.end(), [](auto type) { return type != 0; });
      asked.push_back(piece.asked);
      out.cut += piece.cut ? 1 : 0;
    }
  }
  if (ids.empty()) {
    throw InvalidArgument(fmt::format("{}: key skip = {} leaves none of {} pieces", format, skip, number));
  }
  rows = ids;
  out.tokens = at::tensor(tokens, at::kInt);
  if (typed) {
    out.types = at::tensor(types, at::kByte);
  }
  if (!targets.empty()) {
    out.targets = at::tensor(targets, at::kInt);
  }
  out.begins = at::tensor(begins, at::kLong);
  out.lengths = at::tensor(lengths, at::kLong);
  if (!maker.words().empty()) {
    out.asked = at::tensor(asked, at::kLong);
    out.words = at::tensor(maker.words(), at::kLong);
  }
  out.vocabulary = reading.vocabulary;
  out.tokenizer = reading.tokenizer;
  return out;
}

}  // namespace whence::detail
