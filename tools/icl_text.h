#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "whence/core/json.h"

namespace whence::cli {

// What icl.json says, in words: of the terminal, and in part of the page. A key that an older icl.json lacks is left
// out.

/// Every demonstration with its scores, shaded; every query with what was answered; the evidence; last what to drop.
/// `kept`: where the prompt without them was written.
std::string icl_text(const JsonView& json, const std::optional<std::string>& kept);
/// "8 (+0.61), 3 (+0.55)", or "none".
std::string dropped(const JsonView& json);
/// What the advice rests on, a sentence; empty where there is none.
std::string reason(const JsonView& json);
/// "ham, 71 % (expected spam, 29 %)".
std::string answered(const JsonView& query);
/// Three digits with a sign, or "-".
std::string value_text(const JsonView& value);
std::string value_text(double value);
/// The demonstrations of a query's test scores, the most helpful first, but those that have none.
std::vector<std::size_t> by_help(const JsonView& test);
/// The evidence's lines: name and value.
std::vector<std::pair<std::string, std::string>> icl_evidence(const JsonView& json);

}  // namespace whence::cli
