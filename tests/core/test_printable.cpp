#include "support/near.h"
#include "whence/core/printable.h"

namespace whence::test {
namespace {

TEST_SUITE_BEGIN("core");

TEST_CASE("printable: text of any language stays as it is") {
  for (const std::string text :
       {"", "plain text", "é ß 漢字 🙂 עברית العربية", "a\\b", "👩‍👧"}) {
    CHECK(printable(text) == text);
  }
}

TEST_CASE("printable: what commands a terminal or ends a line is spelled out") {
  CHECK(printable("a\nb\tc\rd") == "a\\nb\\tc\\rd");
  CHECK(printable("\x1b[31mred\x1b[0m \x07\x7f") == "\\x1b[31mred\\x1b[0m \\x07\\x7f");
  CHECK(printable(std::string_view("\0", 1)) == "\\x00");
  CHECK(printable("\xC2\x9B"
                  "2J") == "\\u{9b}2J");  // a control sequence in one character
  CHECK(printable("\u202Etxt.exe\u2066x\u200F\u061C\u2028\uFEFF") ==
        "\\u{202e}txt.exe\\u{2066}x\\u{200f}\\u{61c}\\u{2028}\\u{feff}");
  CHECK(printable("\U000E0041") == "\\u{e0041}");
}

TEST_CASE("printable: bytes that are not UTF-8 are spelled out") {
  CHECK(printable("caf\xE9!") == "caf\\xe9!");
  CHECK(printable("\xE2\x82") == "\\xe2\\x82");
  CHECK(printable("\xFF\xC3\xA9") == "\\xff\xC3\xA9");
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
