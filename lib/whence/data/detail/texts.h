#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "whence/data/detail/keys.h"
#include "whence/data/format.h"

namespace whence::detail {

/// The keys of every format of texts: how a record becomes the tokens of an example.
struct TextKeys {
  std::string text = "text";
  std::string pattern;
  std::string pair;
  std::string answer;
  std::string loss_on = "auto";
  std::vector<std::string> label_words;
  std::int64_t length = 0;
  std::string too_long = "cut";
  bool end = false;
  double mask_probability = 0.15;
  std::int64_t mask_seed = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("text", self.text, Takes{"a column name"}, "column of the text; with it, csv and tsv hold texts");
    field("template", self.pattern, Takes{"a text", "{the text's column}"},
          "what the model is given: columns in braces, {mask} for the token that hides one, {{ for a brace");
    field("pair", self.pair, Takes{"a column name", "none"}, "column of a second text, for models of pairs");
    field("answer", self.answer, Takes{"a text", "none"}, "a template of what follows the text, as its answer");
    field("loss-on", self.loss_on, Takes{"auto, all or answer"},
          "which tokens a next-token loss counts; auto: the answer's where there is one");
    field("label-words", self.label_words, Takes{"a list of words", "none"},
          "a word for each class, in the order of classes, asked for at {mask} or after the text: no head is made");
    field("length", self.length, Takes{">= 2", "the model's context", false, 2}, "most tokens of an example");
    field("long", self.too_long, Takes{"cut or split"},
          "texts of more tokens lose their end (their beginning where an answer is at the end), or become several "
          "examples");
    field("end", self.end, Takes{"true or false"}, "add the tokenizer's end-of-text token to every text");
    field("mask-probability", self.mask_probability, Takes{"from 0 to 1", "", false, 0, 1},
          "share of the tokens that a masked-token loss hides, once for all; one at least");
    field("mask-seed", self.mask_seed, Takes{">= 0"}, "of the choice of those tokens");
  }
};

/// Whether a table of a format that also holds numbers asks for texts.
bool asks_for_texts(const nlohmann::json& table);
/// What to say where a column of labels is missing: the losses without, of texts of which no label is asked for; else
/// empty.
std::string hint_without_label(const nlohmann::json& table);

/// The columns, by number, that `table` makes texts of. Throws InvalidArgument for one that is none of `columns`.
std::vector<std::size_t> columns_of_texts(const nlohmann::json& table, const std::string& format,
                                          const std::vector<std::string>& columns);

/// Examples `rows` of a source of tokens, for what a loss wants.
TokenSequences taken(const SourceExamples& source, const at::Tensor& rows, const TextReading& reading,
                     TargetKind wanted);

/// The tokens of records `rows` of a source for what a loss wants, and the records that they are of: `rows`, or where
/// long texts are split the running number of each piece. The first `skip` pieces are left out, and at most `limit` of
/// the others kept. Throws DataError naming the file and
/// line of an empty text or one that is not UTF-8, InvalidArgument naming the key. `split`: whether any was.
TokenSequences tokenize(const SourceExamples& source, const nlohmann::json& table, const std::string& format,
                        const TextReading& reading, TargetKind wanted, const std::vector<std::string>& classes,
                        std::int64_t skip, std::int64_t limit, std::vector<std::int64_t>& rows, bool& split);

}  // namespace whence::detail
