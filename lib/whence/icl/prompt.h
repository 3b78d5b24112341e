#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "whence/text/text_template.h"
#include "whence/text/tokenizer.h"

namespace whence {

/// An input with its output: a demonstration, or a query, whose output may be unknown.
struct Exchange {
  std::string input;
  std::optional<std::string> output = {};
};

/// Demonstrations and what is asked after them. interface.md, "Demonstrations".
struct PromptTask {
  std::string name;
  std::vector<Exchange> demonstrations, queries;
  std::vector<Exchange> validation = {};  ///< Queries with outputs that choose the layers.
  std::string pattern = "Input: {input}\nOutput: {output}";
  std::string separator = "\n\n";
};

/// The tasks of a file: one of a .json, one a line of a .jsonl, and of a folder every .json and .jsonl in order of
/// their names. A task is called by its key "name", else by its file, with the line where there are several. Throws
/// DataError naming the file, the line, the key, its value and what is expected; names must differ and be such as
/// check_file_name() takes.
std::vector<PromptTask> read_tasks(const std::filesystem::path& path);
/// The demonstrations of a file: a task's, or one {"input": …, "output": …} a line of a .jsonl.
std::vector<Exchange> read_pool(const std::filesystem::path& path);
/// As read_tasks() reads it.
nlohmann::ordered_json to_json(const PromptTask& task);

/// Where tokens of a prompt stand: [begin, end).
struct TokenSpan {
  std::int64_t begin, end;
};

/// A prompt that ends where a query's output would begin.
struct TokenizedPrompt {
  std::vector<std::int64_t> tokens;
  std::vector<TokenSpan> demonstrations;  ///< In the prompt's order.
  std::vector<std::int64_t> columns;      ///< Of each demonstration, the last token before its output,
  std::vector<std::int64_t> labels;       ///< and its output's first token.
  std::vector<TokenSpan> outputs;         ///< The tokens of each output, what follows in its last one included.
  std::int64_t query = 0;                 ///< Where the query's own tokens begin.
};

/// How a task's prompts are written. Places are found by the tokens' offsets in the text, so an output may have any
/// number of tokens and stand in an input as well.
class PromptWriter {
 public:
  /// Throws InvalidArgument where the template does not have {input} and behind it, once, {output}, and DataError where
  /// the task has no demonstration or a demonstration has an output that is blank.
  PromptWriter(const PromptTask& task, const Tokenizer& tokenizer);

  /// The text of demonstration `i`.
  std::string demonstration(std::size_t i) const;
  /// The prompt of demonstrations `order` and a query, without the blanks before the output.
  std::string text(const std::vector<std::int64_t>& order, const Exchange& query) const;
  TokenizedPrompt tokenize(const std::vector<std::int64_t>& order, const Exchange& query) const;
  /// The tokens of `output` as the answer to a query. Throws DataError where there are none.
  std::vector<std::int64_t> answer(const Exchange& query, const std::string& output) const;
  /// The output that generated text begins with: all before what follows an output in the prompt, without blanks.
  std::string output_of(const std::string& generated) const;

 private:
  struct Filled {
    std::string text;
    std::size_t output, end;  // bytes [output, end) are the output
  };
  Filled fill(const std::string& input, const std::string& output) const;
  std::string join(const std::vector<std::int64_t>& order, std::vector<Filled>* filled) const;

  const PromptTask& task_;
  const Tokenizer& tokenizer_;
  TextTemplate template_;
};

}  // namespace whence
