#pragma once
#include <optional>
#include <string_view>
#include <vector>

#include "json.h"
#include "whence/icl/advice.h"
#include "whence/icl/icl_method.h"
#include "whence/icl/prompt_reader.h"
#include "whence/report/html.h"

namespace whence::cli {

/// What was found of one task: what icl.json holds and the terminal shows.
struct IclResult {
  const PromptTask& task;
  const PromptReading& reading;
  ReadingOptions options;  ///< With the layers and the position that were chosen.
  IclScores scores;
  std::vector<IclScores> by_layer = {};  ///< Of ridge.
  std::string_view self_by = {};         ///< IclMethod::self_by() of the method of the self scores.
  std::optional<Advice> advice = {};     ///< None of methods that tell no wrong label.
  std::optional<Removals> removals = {};
};

/// icl.json without its options: interface.md, "Demonstrations", what --by-layer and --verify add, and: per query
/// "probability" (of the prediction: among the outputs, or of all that could be written), "explained-probability";
/// "self-by", "foretold", "drop", "advice", "verdict".
Json icl_json(const IclResult& result, bool each_layer);
/// For `whence report`: the prompt, shaded, and each query.
Page icl_page(const JsonView& json);
/// The same queries, each with its most helpful and most harmful demonstrations as examples.
std::vector<QueryCard> icl_cards(const JsonView& json);

}  // namespace whence::cli
