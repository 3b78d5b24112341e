#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/files.h"
#include "whence/store/table_file.h"

namespace whence::test {
namespace {

TEST_SUITE_BEGIN("store");

TEST_CASE("csv: texts that a spreadsheet would compute stand behind an apostrophe, numbers stay numbers") {
  const Scratch scratch;
  const std::vector<std::string> texts{
      "=1+1", "+x",  "-x", "@SUM(A1)", "\t=1", "=HYPERLINK(\"x\",\"y\")", "-1", "+2", "-3e5", "-",
      "a=b",  "'=1", "",   "x",        "-1 2", "-2+3+cmd|' /C x'"};
  const std::vector<std::string> written{"'=1+1", "'+x",
                                         "'-x",   "'@SUM(A1)",
                                         "'\t=1", "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\"",
                                         "-1",    "+2",
                                         "-3e5",  "'-",
                                         "a=b",   "'=1",
                                         "",      "x",
                                         "'-1 2", "'-2+3+cmd|' /C x'"};
  write_csv(scratch / "t.csv", {{"label", {}, texts}, {"score", at::full({std::ssize(texts)}, -1, at::kLong)}});
  std::string expected = "label,score\n";
  for (const auto& cell : written) {
    expected += cell + ",-1\n";
  }
  CHECK(read_text(scratch / "t.csv") == expected);
  write_jsonl(scratch / "t.jsonl", {{"label", {}, {"=1+1"}}});
  CHECK(read_text(scratch / "t.jsonl") == "{\"label\": \"=1+1\"}\n");
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
