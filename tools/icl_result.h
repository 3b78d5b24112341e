#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

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
  std::optional<Removals> removals = {};
};

/// icl.json without its options: interface.md, "Demonstrations", and what --by-layer and --verify add.
nlohmann::ordered_json icl_json(const IclResult& result, bool each_layer);
/// For the terminal: every demonstration with its scores, shaded; every query with what was answered; the evidence.
std::string icl_text(const nlohmann::ordered_json& json);
/// For `whence report`: the prompt, shaded, and each query.
Page icl_page(const nlohmann::ordered_json& json);

}  // namespace whence::cli
