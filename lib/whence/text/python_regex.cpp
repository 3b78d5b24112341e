#include "whence/text/python_regex.h"

#include <fmt/format.h>

#include <array>
#include <memory>

#include "whence/core/error.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace whence {
namespace {

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR bytes(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

bool matches_whole(const std::string& pattern, std::string_view text) {
  constexpr std::uint32_t kMostSteps = 1'000'000, kMostKibibytes = 1 << 16;
  int code = 0;
  PCRE2_SIZE place = 0;
  const std::shared_ptr<pcre2_code> compiled(
      pcre2_compile(bytes(pattern), pattern.size(), PCRE2_ANCHORED | PCRE2_ENDANCHORED, &code, &place, nullptr),
      &pcre2_code_free);
  if (!compiled) {
    throw DataError(fmt::format("a regular expression: {}", error_text(code)));
  }
  const std::shared_ptr<pcre2_match_data> match(pcre2_match_data_create_from_pattern(compiled.get(), nullptr),
                                                &pcre2_match_data_free);
  const std::shared_ptr<pcre2_match_context> limits(pcre2_match_context_create(nullptr), &pcre2_match_context_free);
  if (!match || !limits) {
    throw std::bad_alloc();
  }
  pcre2_set_match_limit(limits.get(), kMostSteps);
  pcre2_set_heap_limit(limits.get(), kMostKibibytes);
  const int found = pcre2_match(compiled.get(), bytes(text), text.size(), 0, 0, match.get(), limits.get());
  if (found < 0 && found != PCRE2_ERROR_NOMATCH) {
    throw DataError(fmt::format("a regular expression on \"{}\": {}", text, error_text(found)));
  }
  return found >= 0;
}

}  // namespace whence
