#include <doctest/doctest.h>

#include "whence/stages/detail/training_record.h"

using namespace whence;
using nlohmann::json;

TEST_SUITE_BEGIN("stages");

TEST_CASE("settings that differ are named key by key, from and to a table of none") {
  using Lines = std::vector<std::string>;
  const json some{{"train", {{"limit", 2000}}}};
  CHECK(whence::detail::changed_settings(some, {{"train", {{"limit", 1000}}}}) ==
        Lines{"train.limit = 2000, now 1000"});
  CHECK(whence::detail::changed_settings(json::object(), some) == Lines{"train.limit = not given, now 2000"});
  CHECK(whence::detail::changed_settings(some, json::object()) == Lines{"train.limit = 2000, now not given"});
  CHECK(whence::detail::changed_settings(json::object(), json::object()).empty());
}

TEST_SUITE_END();
