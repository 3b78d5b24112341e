#include "whence/text/detail/regex.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "whence/core/error.h"
#include "whence/core/progress.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace whence::detail {
namespace {

constexpr std::string_view kSpaces =
    R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

/// Rewrites an expression from Oniguruma's Ruby syntax to PCRE2's.
class Translation {
 public:
  explicit Translation(std::string_view pattern) : rest_(pattern) {}

  std::string run() && {
    while (!rest_.empty()) {
      if (take("\\")) {
        escape(false);
      } else if (take("[")) {
        bracket();
      } else if (rest_.starts_with("(?")) {
        group();
      } else if (take("}+")) {
        fail("an interval followed by +");
      } else {
        copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] static void fail(std::string_view what) {
    throw DataError(fmt::format("{} is not supported in a regular expression", what));
  }
  bool take(std::string_view token) {
    const bool found = rest_.starts_with(token);
    rest_.remove_prefix(found ? token.size() : 0);
    return found;
  }
  void copy(std::size_t size) {
    out_ += rest_.substr(0, size);
    rest_.remove_prefix(std::min(size, rest_.size()));
  }
  void put_class(std::string_view members, bool negated, bool within_brackets) {
    if (!within_brackets) {
      ((out_ += negated ? "[^" : "[") += members) += ']';
    } else if (negated) {
      fail("a negated class within brackets");
    } else {
      out_ += members;
    }
  }

  void escape(bool within_brackets) {  // behind the backslash
    if (take("s")) {
      put_class(kSpaces, false, within_brackets);
    } else if (take("S")) {
      within_brackets ? out_ += "\\P{White_Space}" : (put_class(kSpaces, true, false), out_);
    } else if (take("w")) {
      put_class(kWord, false, within_brackets);
    } else if (take("W")) {
      put_class(kWord, true, within_brackets);
    } else if (take("h")) {
      put_class("0-9a-fA-F", false, within_brackets);
    } else if (take("H")) {
      put_class("0-9a-fA-F", true, within_brackets);
    } else if (rest_.starts_with("p{") || rest_.starts_with("P{")) {
      out_ += '\\';
      copy(rest_.find('}') + 1);
    } else if (rest_.starts_with("b") || rest_.starts_with("B")) {
      fail("a word boundary");
    } else {
      out_ += '\\';
      copy(1);
    }
  }

  void bracket() {  // behind the opening one
    out_ += '[';
    if (rest_.starts_with("^")) {
      copy(1);
    }
    for (bool first = true; first || !rest_.starts_with("]"); first = false) {
      if (rest_.empty()) {
        fail("a bracket that is not closed");
      } else if (take("\\")) {
        escape(true);
      } else if (rest_.starts_with("[:")) {
        copy(rest_.find(":]") + 2);
      } else if (rest_.starts_with("[") || rest_.starts_with("&&")) {
        fail(fmt::format("\"{}\" within brackets", rest_.substr(0, rest_[0] == '[' ? 1 : 2)));
      } else {
        copy(1);
      }
    }
    copy(1);
  }

  /// The options of a group: there m lets a dot match newlines, here s does.
  void group() {
    copy(2);
    const auto end = rest_.find_first_not_of("imx-");
    if (end == 0 || end == rest_.npos || (rest_[end] != ':' && rest_[end] != ')')) {
      return;
    }
    for (const char option : rest_.substr(0, end)) {
      out_ += option == 'm' ? 's' : option;
    }
    rest_.remove_prefix(end);
  }

  std::string_view rest_;
  std::string out_;
};

/// Where a match is written and how far it is looked for; one for each thread is enough.
pcre2_match_data* match_data() {
  thread_local const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  return data.get();
}
pcre2_match_context* match_context() {
  thread_local const std::unique_ptr<pcre2_match_context, void (*)(pcre2_match_context*)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  return context.get();
}

/// The first match that begins at `at` or behind it, as pcre2_match() says it. An expression that goes through all that
/// follows from every place takes its time; it can be interrupted every so many places.
int first_match(const pcre2_code* code, std::string_view text, std::size_t at, std::uint32_t options) {
  constexpr std::size_t kPlaces = 1024;
  auto* const context = match_context();
  while (true) {
    pcre2_set_offset_limit(context, at + kPlaces);
    const int result = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                   options | PCRE2_NO_UTF_CHECK, match_data(), context);
    if (result != PCRE2_ERROR_NOMATCH || at + kPlaces >= text.size()) {
      return result;
    }
    at = character_end(text, at + kPlaces);
    check_interruption();
  }
}

}  // namespace

Pattern::Pattern(const std::string& pattern, Kind kind) {
  const auto text = kind == Kind::kLiteral ? pattern : Translation(pattern).run();
  const auto options =
      PCRE2_USE_OFFSET_LIMIT | PCRE2_UTF | (kind == Kind::kLiteral ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
  int code = 0;
  std::size_t at = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), options, &code, &at, nullptr),
              pcre2_code_free);
  if (!code_) {
    throw DataError(
        fmt::format("regular expression \"{}\", read as \"{}\": {} at byte {}", pattern, text, error_text(code), at));
  }
  pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where it cannot, pcre2_match interprets
}

void Pattern::find(std::string_view text, std::vector<Match>& matches) const {
  matches.clear();
  const auto* const ends = pcre2_get_ovector_pointer(match_data());
  std::size_t covered = 0;
  const auto put = [&](std::size_t begin, std::size_t end, bool matched) {
    matches.push_back({{static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end)}, matched});
    covered = end;
  };
  bool any = false;  // an empty match right behind another one does not count
  for (std::size_t at = 0; at <= text.size();) {
    int result = first_match(code_.get(), text, at, 0);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
      result = first_match(code_.get(), text, at, PCRE2_NO_JIT);
    }
    if (result == PCRE2_ERROR_NOMATCH) {
      break;
    }
    if (result < 0) {
      throw DataError(fmt::format("a regular expression of the tokenizer gave up on {} bytes: {}", text.size(),
                                  error_text(result)));
    }
    if (ends[0] == ends[1] && any && ends[1] == covered) {
      at = at == text.size() ? at + 1 : character_end(text, at);
      continue;
    }
    if (ends[0] > covered) {
      put(covered, ends[0], false);
    }
    put(ends[0], ends[1], true);
    any = true;
    at = ends[1];
  }
  if (covered < text.size()) {
    put(covered, text.size(), false);
  }
}

}  // namespace whence::detail
