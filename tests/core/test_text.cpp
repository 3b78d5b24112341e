#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/text.h"

namespace whence::test {
namespace {

TEST_SUITE_BEGIN("core");

TEST_CASE("text: UTF-8 of every length passes, without its byte order mark") {
  const std::string text = "a\xC2\xA2\xE2\x82\xAC\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x8D\x88\xF4\x8F\xBF\xBF\n";
  CHECK(utf8_text(text, "t") == text);
  CHECK(utf8_text("\xEF\xBB\xBF" + text, "t") == text);
  CHECK(utf8_text("", "t").empty());
  const Scratch scratch;
  CHECK(read_utf8(scratch.put("t.gz", "\xEF\xBB\xBF" + text)) == text);
}

TEST_CASE("text: a first column that is named as a format's bytes is text") {
  for (const std::string text : {"PAR1,PAR2\n1,2\n", "BZh1,\xC3\xA9\r\n3,4\n", "BZh"}) {
    CHECK(utf8_text(text, "t.csv") == text);
  }
  CHECK_MESSAGE_HOLDS(DataError, "bzip2", utf8_text("BZh91AY&SY\xA3\x12", "t.csv"));
}

TEST_CASE("text: what is no UTF-8 is named by its byte") {
  for (const std::string bad : {"\x80", "\xC0\xAF", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
                                "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE2\x82", "\xE9t", "\xFF"}) {
    const auto text = "ab\nc" + bad;
    CHECK_MESSAGE_HOLDS(DataError, "t.txt: line 2, byte 5 of the file: 0x", utf8_text(text, "t.txt"));
  }
  CHECK_MESSAGE_HOLDS(DataError, "the text is UTF-16", utf8_text("\xFE\xFF", "t.txt"));
  CHECK_MESSAGE_HOLDS(DataError, "is a parquet file", utf8_text("PAR1\x15\x04....", "t.txt"));
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
