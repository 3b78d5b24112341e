#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "whence/text/detail/aligned_text.h"

struct pcre2_real_code_8;

namespace whence::detail {

/// A stretch of a text that a pattern matched, or what lies between matches.
struct Match {
  Span span;
  bool matched;
};

/// A regular expression as Oniguruma's Ruby syntax reads it, or a literal text. What the two regular expression
/// libraries read differently is refused, if it cannot be said in PCRE2's way.
class Pattern {
 public:
  enum class Kind { kRegex, kLiteral };
  /// Throws DataError without a place: what is wrong with the expression.
  Pattern(const std::string& pattern, Kind kind);

  /// Replaces `matches` by the matches from left to right and all that lies between them. `text` is UTF-8.
  void find(std::string_view text, std::vector<Match>& matches) const;

 private:
  std::shared_ptr<pcre2_real_code_8> code_;
};

}  // namespace whence::detail
