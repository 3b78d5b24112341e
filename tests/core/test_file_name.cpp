#include "support/near.h"
#include "whence/core/error.h"
#include "whence/core/file_name.h"

using namespace whence;

TEST_SUITE_BEGIN("core");

TEST_CASE("names of files: whatever stays in its folder is one, in any script") {
  for (const char* name : {"a", "first task", "größe", "数据", "a.b", "a..b", "-x", "C:\\x", "~"}) {
    CAPTURE(name);
    CHECK_NOTHROW(check_file_name(name, "task"));
  }
  CHECK_NOTHROW(check_file_name(std::string(200, 'x'), "task"));
}

TEST_CASE("names of files: what leaves its folder, hides in it or commands a terminal is refused on one line") {
  const auto fails = [](std::string_view name, const char* shown, const char* why) {
    CHECK_THROWS_WITH_AS(
        check_file_name(name, "t.json: name"),
        (std::string("t.json: name = ") + shown + ", expected the name of a folder or file: " + why).c_str(),
        DataError);
  };
  fails("", "\"\"", "it is empty");
  fails(".", "\".\"", "it begins with a dot");
  fails("..", "\"..\"", "it begins with a dot");
  fails(".partial", "\".partial\"", "it begins with a dot");
  fails("../x", "\"../x\"", "it begins with a dot");
  fails("a/../../x", "\"a/../../x\"", "it has a slash in it");
  fails("/etc/x", "\"/etc/x\"", "it has a slash in it");
  fails("a\nb", "\"a\\nb\"", "it has a control character in it");
  fails("\x1b[31m", "\"\\u001b[31m\"", "it has a control character in it");
  fails(std::string_view("a\0b", 3), "\"a\\u0000b\"", "it has a control character in it");
  fails("caf\xe9", "\"caf\\ufffd\"", "it is not UTF-8");
  CHECK_THROWS_AS(check_file_name(std::string(201, 'x'), "task"), DataError);
}

TEST_SUITE_END();
