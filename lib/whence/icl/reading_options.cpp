#include "whence/icl/reading_options.h"

#include <algorithm>
#include <array>
#include <utility>

#include "whence/icl/detail/words.h"

namespace whence {
namespace {

constexpr std::array<std::pair<ReadingPosition, std::string_view>, 3> kPositions{
    {{ReadingPosition::kColumn, "column"}, {ReadingPosition::kLabel, "label"}, {ReadingPosition::kMean, "mean"}}};

}  // namespace

ReadingPosition parse_reading_position(std::string_view word) {
  return detail::parse_word("position", word, kPositions);
}

std::string_view word_of(ReadingPosition position) {
  return std::find_if(kPositions.begin(), kPositions.end(), [&](const auto& known) { return known.first == position; })
      ->second;
}

TargetView parse_target_view(std::string_view word) {
  static constexpr std::array<std::pair<TargetView, std::string_view>, 3> kWords{
      {{TargetView::kAuto, "auto"}, {TargetView::kOneHot, "one-hot"}, {TargetView::kEmbedding, "embedding"}}};
  return detail::parse_word("targets", word, kWords);
}

}  // namespace whence
