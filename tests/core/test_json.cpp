#include <fmt/format.h>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/json.h"
#include "whence/core/progress.h"

namespace whence::test {
namespace {

TEST_SUITE_BEGIN("core");

TEST_CASE("json: nesting is limited, by default far above what any file has") {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  CHECK(parse_json(nested(512), "f").dump() == nested(512));
  CHECK_MESSAGE_HOLDS(DataError, "f: nests deeper than 512 lists and objects", parse_json(nested(513), "f"));
  CHECK_MESSAGE_HOLDS(DataError, "nests deeper than 512", parse_json(std::string(1'000'000, '['), "f"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) {
    objects += "{\"a\":";
  }
  CHECK_MESSAGE_HOLDS(DataError, "nests deeper than 512", parse_json<nlohmann::ordered_json>(objects, "f"));
  CHECK_MESSAGE_HOLDS(DataError, "nests deeper than 2", parse_json(nested(3), "f", {.depth = 2}));
}

TEST_CASE("json: values are those of nlohmann's own parser") {
  const std::string text =
      R"( {"b": [1, -2, 2.5e3, 18446744073709551615, true, false, null, "x\u00e9\n"], "a": {"": {}}, "c": []} )";
  CHECK(parse_json(text, "f") == nlohmann::json::parse(text));
  CHECK(parse_json<nlohmann::ordered_json>(text, "f").dump() == nlohmann::ordered_json::parse(text).dump());
  for (const char* scalar : {"1", "\"x\"", "null", "[]", "{}"}) {
    CHECK(parse_json(scalar, "f") == nlohmann::json::parse(scalar));
  }
}

TEST_CASE("json: what is not JSON is told with its byte, and only so much of it") {
  for (const std::string bad : {"", "{", "[1,", "{\"a\" 1}", "1e999", "\"\xFF\"", "[1] x", "nul", "{1:2}"}) {
    CAPTURE(bad);
    CHECK_MESSAGE_HOLDS(DataError, "f: not JSON at byte ", parse_json(bad, "f"));
  }
  CHECK_MESSAGE_HOLDS(DataError, "not JSON at byte 13", parse_json("{\"a\" 1}", "f", {.first_byte = 8}));
  CHECK(message_of<DataError>([] { parse_json('"' + std::string(1'000'000, 'x'), "f"); }).size() < 300);
}

TEST_CASE("json: of equal keys the last counts, or they are refused") {
  const std::string text = R"({"b":1,"a":2,"b":[3]})";
  CHECK(parse_json(text, "f").dump() == R"({"a":2,"b":[3]})");
  CHECK(parse_json<nlohmann::ordered_json>(text, "f").dump() == R"({"b":[3],"a":2})");
  CHECK_MESSAGE_HOLDS(DataError, "f: names \"b\" twice", parse_json(text, "f", {.repeated_keys = false}));
  CHECK(parse_json(R"({"a":{"a":1},"b":{"a":1}})", "f", {.repeated_keys = false}).size() == 2);
}

TEST_CASE("json: an object of 200,000 objects is read in proportion") {  // it took minutes
  std::string text = "{";
  for (int i = 0; i < 200'000; ++i) {
    text += fmt::format("\"k{}\":{{}},", i);
  }
  text.back() = '}';
  CHECK(parse_json(text, "f").size() == 200'000);
  CHECK(parse_json<nlohmann::ordered_json>(text, "f").size() == 200'000);
}

TEST_CASE("json: what stands deep within objects is read in proportion") {  // each object copied it as it grew
  std::string text = "[";
  for (int i = 0; i < 500'000; ++i) {
    text += "1,";
  }
  text += "1]";
  constexpr int kDepth = 500;
  for (int i = 0; i < kDepth; ++i) {
    text = R"({"a":)" + text + R"(,"b":1,"c":1})";
  }
  CHECK(parse_json<nlohmann::ordered_json>(text, "f").dump() == text);
}

TEST_CASE("json: reading can be interrupted") {
  set_interruption_check([] { throw Interrupted(); });
  std::string text = "[0";
  for (int i = 0; i < 100'000; ++i) {
    text += ",0";
  }
  CHECK_THROWS_AS(parse_json(text + "]", "f"), Interrupted);
  set_interruption_check({});
}

TEST_CASE("json views: what is missing or of another type is told with the way to it") {
  const JsonView run(
      parse_json<JsonView::Value>(
          R"({"stages":{"a":{"damping":"x","list":[1,2.5,"y"],"big":9223372036854775808}},"no":null})", "run.json"),
      "run.json");
  const auto a = run["stages"]["a"];
  CHECK(a["list"][1].get<double>() == 2.5);
  CHECK(a["big"].get<std::uint64_t>() == 9223372036854775808U);
  CHECK(a["list"].list().size() == 3);
  CHECK(run.items().front().first == "stages");
  CHECK(run.list("no").empty());
  CHECK(run.list("absent").empty());
  CHECK(a.value("absent", 7) == 7);
  CHECK(a["damping"] == "x");
  CHECK_MESSAGE_HOLDS(DataError, "run.json: the key \"options\" is missing", run["options"]);
  CHECK_MESSAGE_HOLDS(DataError, "run.json: stages: the key \"b\" is missing", run["stages"]["b"]);
  CHECK_MESSAGE_HOLDS(DataError, "run.json: stages.a.damping = \"x\", expected a number", a["damping"].get<double>());
  CHECK_MESSAGE_HOLDS(DataError, "stages.a.damping = \"x\", expected a number", a.value("damping", 0.5));
  CHECK_MESSAGE_HOLDS(DataError, "stages.a.damping = \"x\", expected an object", a["damping"]["deeper"]);
  CHECK_MESSAGE_HOLDS(DataError, "stages.a.list[1] = 2.5, expected a whole number", a["list"][1].get<int>());
  CHECK_MESSAGE_HOLDS(DataError, "a.big = 9223372036854775808, expected a whole", a["big"].get<std::int64_t>());
  CHECK_MESSAGE_HOLDS(DataError, "stages.a.list = a list of 3, expected a list of 4 or more", a["list"][3]);
  CHECK_MESSAGE_HOLDS(DataError, "expected a list, each entry a text", a["list"].get<std::vector<std::string>>());
  CHECK_MESSAGE_HOLDS(DataError, "stages = an object of 1, expected a list", run["stages"].list());
  CHECK_MESSAGE_HOLDS(DataError, "no = null, expected a text", run["no"].get<std::string>());
  CHECK_MESSAGE_HOLDS(DataError, "no = null, expected true or false", run["no"].get<bool>());
  CHECK_MESSAGE_HOLDS(DataError, "expected a list or an object", run["no"].size());
  CHECK_MESSAGE_HOLDS(DataError, "run.json: 3, expected an object", JsonView(3, "run.json")["x"]);
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
