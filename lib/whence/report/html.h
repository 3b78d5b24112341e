#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "whence/report/svg.h"

namespace whence {

/// One line of evidence: what was done, or how far it can be trusted.
struct Fact {
  enum class State { kPlain, kGood, kWarning };
  std::string name, value;
  State state = State::kPlain;
  std::string note = {};  ///< One sentence under the value; may be empty.
};

/// What an example looks like. Any part may be empty.
struct Content {
  std::string image = {};  ///< "data:image/…" as image_data_uri makes it.
  std::string text = {};
  std::vector<std::pair<std::string, std::string>> values = {};  ///< Named numbers: the columns of a table.
  std::vector<std::pair<std::string, double>> tokens = {};       ///< A text whose tokens are shaded by a number each.
};

struct ExampleCard {
  std::int64_t id;
  std::string stage = {};  ///< Empty where there is one stage only.
  std::string label = {};
  double score = 0;
  double removal = 0;  ///< Predicted change of the measurement when the example is left out.
  Content content = {};
};

struct QueryCard {
  std::int64_t id;
  std::string label = {};
  std::string measurement = {};  ///< "loss 0.231"
  Content content = {};
  std::vector<ExampleCard> proponents = {}, opponents = {};
};

/// A demonstration of a prompt, shaded by its score.
struct PromptPart {
  std::int64_t number;
  std::string text = {}, answer = {};
  double score = 0;  ///< Positive: it helps.
  std::string note = {};
};

/// A prompt with what was asked after it.
struct PromptCard {
  std::string title = {};
  std::vector<PromptPart> parts = {};
  std::string question = {}, answer = {};  ///< Empty where the scores are of several queries.
};

/// How scores compare with the truth.
struct EvaluationSection {
  std::string title = {};
  std::optional<ScatterPlot> plot = {};
  std::vector<Fact> figures = {};
};

/// A result page: what the tool knows about one result directory.
struct Page {
  std::string title = {};
  std::string subtitle = {};
  std::vector<Fact> evidence = {};
  std::vector<std::string> warnings = {};
  std::vector<EvaluationSection> evaluations = {};
  std::vector<QueryCard> queries = {};
  std::vector<PromptCard> prompts = {};
  std::string footer =
      "Made by whence. Scores are derivatives of the measurement with respect to an example's weight, times the number "
      "of examples.";
};

/// The page as one HTML document that needs no other file, no network and no script. Every text is escaped. Throws
/// InvalidArgument on an image that is no data address.
std::string render_page(const Page& page);

}  // namespace whence
