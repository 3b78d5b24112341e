#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "whence/report/detail/text.h"
#include "whence/report/html.h"

namespace whence::detail {

/// Percent of a side's colour in the darkest ground under a text, on which the text can still be read.
inline constexpr double kDarkestShade = 45;

/// <name attributes>content</name>, the content being markup.
std::string element(std::string_view name, std::string_view attributes, std::string_view content);

/// The class of a side's colour: "helpful" (blue) for help >= 0, "harmful" (orange) below. One meaning on every page.
std::string_view side_class(double help);

/// A state's class attribute, "" for plain ones.
std::string_view state_class(Fact::State state);
/// A list of facts, each value marked by its state.
std::string facts(const std::vector<Fact>& list);

/// Throws InvalidArgument unless the address is a data:image/.
std::string image(const std::string& address, std::string_view attributes, const std::string& description);

/// A picture, a text that unfolds where it is long, its tokens shaded where they have scores, a table. `outcome` is the
/// sign of helpful scores.
std::string content(const Content& shown, const std::string& description, double outcome);

/// A text of which the beginning shows, the rest unfolding.
std::string folded_text(const std::string& text);

/// A query with its examples.
std::string query_card(const QueryCard& card, const ScoreWords& words);
std::string query_legend(const ScoreWords& words);
/// Query number `query` of several results, which is shown once, with the lists of each on a scale of their own.
std::string joint_card(const std::vector<Page>& results, std::size_t query);
/// Lists of examples that stand for themselves, on one scale.
std::string suspect_section(const std::vector<ExampleLists>& stages, const ScoreWords& words);

/// A prompt with its demonstrations and what was asked, and before it which to drop.
std::string prompt_section(const PromptCard& card);

}  // namespace whence::detail
