#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "whence/report/interval_svg.h"
#include "whence/report/svg.h"

namespace whence {

/// One line of evidence: what was done, or how far it can be trusted.
struct Fact {
  enum class State { kPlain, kGood, kWarning, kBad };
  std::string name, value;
  State state = State::kPlain;
  std::string note = {};  ///< One sentence under the value; may be empty.
};

/// One column of a table's row.
struct Cell {
  std::string name, value;
  std::string beside = {};  ///< The query's value, where an example is shown against it.
};

/// What an example looks like. Any part may be empty.
struct Content {
  std::string image = {};  ///< "data:image/…" as image_data_uri makes it.
  std::string text = {};
  std::vector<Cell> cells = {};                             ///< The columns of a table.
  std::vector<std::pair<std::string, double>> tokens = {};  ///< A text whose tokens add that much to the score each.
  std::vector<std::pair<std::size_t, std::size_t>> shared = {};  ///< Bytes of the text that the query has too.
};

struct ExampleCard {
  std::int64_t id;
  std::string origin = {};  ///< "row 17"
  std::string label = {};
  std::optional<double> removal = {};  ///< Predicted change of the measurement when the example is left out.
  double score = 0;
  Content content = {};
  std::optional<std::pair<double, double>> interval = {};  ///< Where 90 % of such changes lie that retraining finds.
  bool order_unsure = false;                               ///< It may as well stand behind the next.
};

/// The strongest examples of one stage for one query.
struct ExampleLists {
  std::string stage = {};   ///< Empty where there is one stage only.
  std::string source = {};  ///< Where its examples come from: "rows of train.tsv".
  std::vector<ExampleCard> helpful = {}, harmful = {};
};

struct QueryCard {
  std::int64_t id;
  std::string origin = {};
  std::vector<Fact> facts = {};  ///< What the model predicts, what was expected, the measurement.
  Content content = {};
  std::vector<ExampleLists> stages = {};  ///< Side by side, on one scale.
  std::vector<double> shares = {};        ///< Of each stage in what moves the query; empty: not told. Add up to 1.
};

/// A demonstration of a prompt, shaded by its score.
struct PromptPart {
  std::int64_t number;
  std::string text = {}, answer = {};
  std::optional<double> score = {};   ///< Positive: helpful. Of several queries the mean.
  std::vector<double> by_query = {};  ///< Each query's.
  std::string note = {};
  bool drop = false;
  std::string instead = {};  ///< The answer that the others give it, where it is to be dropped.
};

/// What was asked after a prompt.
struct PromptQuestion {
  std::int64_t number;
  std::string text = {};
  std::vector<Fact> facts = {};  ///< What the model predicts, what was expected.
  std::vector<std::pair<std::int64_t, double>> helpful = {}, harmful = {};  ///< Demonstrations, the strongest first.
};

/// A prompt, shown once, with what was asked after it.
struct PromptCard {
  std::vector<PromptPart> parts = {};
  std::vector<PromptQuestion> questions = {};
  std::vector<std::int64_t> drop = {};  ///< Which to take out, the most suspect first.
  std::string title = "The prompt";
  std::string anchor = {};  ///< Begins the ids of its demonstrations, where the page has other prompts.
};

/// How scores compare with the truth.
struct EvaluationSection {
  std::string title = {};
  std::optional<ScatterPlot> plot = {};
  std::vector<Fact> figures = {};
  std::optional<IntervalPlot> intervals = {};  ///< In the place of `plot`.
};

/// What the scores of a page's examples are of.
struct ScoreWords {
  std::string measurement = "loss";
  double outcome = -1;  ///< outcome_sign of the measurement: of which sign the scores of helpful examples are.
  std::string helpful = "helpful", harmful = "harmful";
};

/// A result page: what the tool knows about one result directory.
struct Page {
  std::string title = {};
  std::string subtitle = {};
  Fact verdict = {"", ""};  ///< First on the page: how far the result can be trusted, in one line.
  std::vector<Fact> evidence = {};
  std::vector<std::string> warnings = {};
  std::vector<EvaluationSection> shown = {};  ///< Below the verdict: what the page is of, where it is of no examples.
  std::vector<EvaluationSection> evaluations = {};  ///< Folded, with the evidence.
  ScoreWords words = {};
  std::vector<QueryCard> queries = {};
  std::vector<ExampleLists> suspects = {};  ///< Of no query: the `helpful` of each list, the strongest first.
  std::optional<PromptCard> prompt = {};
  /// Several results of the same queries: queries[i] of each is the same one. Of these pages title, subtitle, verdict,
  /// evidence, words, queries and prompt are shown, queries once, each with what every result says of it.
  std::vector<Page> joined = {};
  std::string footer =
      "Made by whence. Scores are derivatives of the measurement with respect to an example's weight, times the number "
      "of examples.";
};

/// The page as one HTML document that needs no other file, no network and no script. Every text is escaped. Throws
/// InvalidArgument on an image that is no data address.
std::string render_page(const Page& page);

}  // namespace whence
