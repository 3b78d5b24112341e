#include "guess_columns.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "whence/core/error.h"
#include "whence/core/quoted.h"

namespace whence::cli {
namespace {

std::string in_lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

/// The first of `names` that is a column; empty where none is.
template <class Names>
std::string first_column(const Source& table, const Names& names) {
  for (const char* name : names) {
    for (const auto& column : table.columns) {
      if (in_lower_case(column) == name) {
        return column;
      }
    }
  }
  return "";
}

constexpr std::array kLabelNames{"label", "labels", "class", "target", "y", "category", "sentiment", "intent"};
constexpr std::array kLabelWordsNames{"label_name", "label_text"};

/// Whether a column that is called as labels are is the label once more, or a finer one that tells it.
bool tells_label(const Source& table, const std::map<std::string, ColumnFacts>& facts, const std::string& column,
                 const std::string& label) {
  const auto lower = in_lower_case(column);
  const auto is_one_of = [&](const auto& names) { return std::find(names.begin(), names.end(), lower) != names.end(); };
  if (!is_one_of(kLabelNames) && !is_one_of(kLabelWordsNames)) {
    return false;
  }
  const auto place = [&](const std::string& name) {
    return static_cast<std::size_t>(std::find(table.columns.begin(), table.columns.end(), name) -
                                    table.columns.begin());
  };
  const auto from = place(column), to = place(label);
  std::map<std::string, std::string> known;
  bool identical = true;
  for (const auto& row : table.rows) {
    identical = identical && row[from] == row[to];
    if (known.try_emplace(row[from], row[to]).first->second != row[to]) {
      return false;
    }
  }
  // numbers that hardly ever repeat tell anything
  const auto& fact = facts.at(column);
  return identical || fact.distinct * 2 <= fact.filled ||
         (fact.distinct == facts.at(label).distinct && fact.distinct < fact.filled);
}

std::string guess_label(const Source& table, const std::map<std::string, ColumnFacts>& facts, const std::string& text) {
  auto found = first_column(table, kLabelNames);
  const auto named = first_column(table, kLabelWordsNames);
  if (!named.empty() && (found.empty() || facts.at(named).distinct == facts.at(found).distinct)) {
    return named;  // the same classes, in words
  }
  if (found.empty() && table.columns.size() > 1 && text.empty()) {
    found = table.columns.back();  // where most tables have it
  } else if (found.empty() && !text.empty()) {
    for (const auto& column : table.columns) {
      const auto& fact = facts.at(column);
      if (column != text && !fact.is_text() && fact.distinct >= 2 && fact.distinct <= 100 &&
          fact.distinct * 2 <= fact.filled) {
        found = column;
      }
    }
  }
  return found;
}

/// A column that only numbers the rows: whole, each number once, and called so.
bool numbers_rows(const std::string& name, const ColumnFacts& fact) {
  return fact.whole > 2 && fact.whole == fact.filled && fact.distinct == fact.filled &&
         (name == "id" || name == "ID" || name == "index" || name.ends_with("_id") || name.ends_with("Id"));
}

}  // namespace

Columns columns_of_texts(const Source& table) {
  const auto facts = facts_of(table);
  Columns out;
  const std::pair<const char*, const char*> answers[] = {
      {"prompt", "completion"}, {"instruction", "output"}, {"instruction", "response"}, {"question", "answer"}};
  for (const auto& [asked, answer] : answers) {
    if (facts.contains(asked) && facts.contains(answer)) {
      out.text = asked;
      out.answer = fmt::format("{{{}}}", answer);
      return out;
    }
  }
  const std::pair<const char*, const char*> pairs[] = {
      {"sentence1", "sentence2"}, {"premise", "hypothesis"}, {"question1", "question2"}, {"text1", "text2"}};
  for (const auto& [one, two] : pairs) {
    if (facts.contains(one) && facts.contains(two)) {
      out.text = one;
      out.pair = two;
    }
  }
  if (out.text.empty()) {
    static constexpr std::array kNames{"text",    "sentence", "content",   "review", "message",
                                       "comment", "body",     "utterance", "story",  "document"};
    out.text = first_column(table, kNames);
  }
  if (out.text.empty()) {
    double most = 0;
    for (const auto& [name, fact] : facts) {
      if (!fact.is_number() && fact.words > most) {
        most = fact.words;
        out.text = name;
      }
    }
  }
  if (out.text.empty()) {
    throw DataError(
        fmt::format("{}: no column of texts among {}", table.path.string(), fmt::join(table.columns, ", ")));
  }
  out.label = guess_label(table, facts, out.text);
  return out;
}

Columns columns_of_inputs(const Source& table) {
  constexpr std::int64_t kFewValues = 20, kMostLevels = 256;
  const auto facts = facts_of(table);
  Columns out;
  out.label = guess_label(table, facts, "");
  if (out.label.empty()) {
    throw DataError(table.columns.empty() ? fmt::format("{}: no columns", table.path.string())
                                          : fmt::format("{}: one column, {}, is no table of inputs and labels",
                                                        table.path.string(), table.columns.front()));
  }
  const auto& labels = facts.at(out.label);
  out.values = labels.is_number() && (labels.whole < labels.numbers || labels.distinct > kFewValues);
  std::size_t inputs = 0, texts = 0;
  out.ignored.assign(table.structured.begin(), table.structured.end());
  for (const auto& column : table.columns) {
    const auto& fact = facts.at(column);
    if (column == out.label) {
      continue;
    }
    const bool constant = table.rows.size() > 1 && fact.distinct <= 1 &&
                          (fact.filled == 0 || fact.filled == static_cast<std::int64_t>(table.rows.size()));
    if (constant || tells_label(table, facts, column, out.label) || numbers_rows(column, fact) ||
        (!fact.is_number() && fact.distinct > kMostLevels)) {
      out.ignored.push_back(column);
      if (constant) {
        out.constant.push_back(column);
      }
      texts += fact.is_text() ? 1 : 0;
      continue;
    }
    ++inputs;
    out.fills = out.fills || (fact.is_number() && fact.filled < static_cast<std::int64_t>(table.rows.size()));
  }
  if (inputs == 0) {
    std::vector<std::string> reasons;
    if (!out.constant.empty()) {
      reasons.push_back(fmt::format(": {} the same in every row", fmt::join(out.constant, ", ")));
    }
    if (!table.structured.empty()) {
      reasons.push_back(fmt::format(": {} holds lists or objects", fmt::join(table.structured, ", ")));
    }
    throw DataError(texts > 0 ? fmt::format("{}: the columns besides {} are texts, which a model of texts reads: "
                                            "whence init MODEL_DIR {}",
                                            table.path.string(), out.label, shell_word(table.path.string()))
                              : fmt::format("{}: no column besides {} can be an input{}", table.path.string(),
                                            out.label, fmt::join(reasons, "")));
  }
  return out;
}

}  // namespace whence::cli
