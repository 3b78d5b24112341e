// Labels as the cells of tables have them: which are one class and which are not.
#include <nlohmann/json.hpp>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/data/dataset.h"
#include "whence/data/detail/cells.h"
#include "whence/data/training_checks.h"

using namespace whence;
using nlohmann::json;
using test::Scratch;
using Names = std::vector<std::string>;

namespace {

Dataset read(const std::string& text, json keys = json::object(), const std::string& format = "csv") {
  const Scratch scratch;
  scratch.put("t", text);
  keys["format"] = format;
  keys["file"] = "t";
  return read_dataset(keys, scratch.folder(), TargetKind::kClasses);
}

/// A table of one input and these labels, a row each.
std::string table_of(const Names& labels) {
  std::string out = "x,label\n";
  for (const auto& label : labels) {
    out += "1," + label + "\n";
  }
  return out;
}

at::Tensor numbers(const Names& labels) { return read(table_of(labels)).targets(); }

}  // namespace

TEST_SUITE_BEGIN("data");

TEST_CASE("labels: whole numbers are classes digit by digit, beyond 2^53 and 2^64 too") {
  for (const auto& pair : std::vector<Names>{{"9007199254740992", "9007199254740993"},
                                             {"9223372036854775807", "9223372036854775808"},
                                             {"18446744073709551615", "18446744073709551616"},
                                             {"123456789012345678901234567890", "123456789012345678901234567891"}}) {
    const auto [low, high] = std::pair(pair[0], pair[1]);
    const auto data = read(table_of({high, low, high, low + ".0", "+" + high, "0" + low}));
    CHECK(data.classes() == Names{low, high});
    CHECK(at::equal(data.targets(), at::tensor({1, 0, 1, 0, 1, 0}, at::kLong)));
  }
  // -1 and other names below 0 are asked for, and of more digits than another they are still in order
  const Names order{"-10000000000000000000001", "-9999999999999999999999", "5", "99999999999999999999",
                    "100000000000000000000"};
  auto keys = json{{"classes", order}};
  CHECK(read(table_of({order[4], order[0], order[3], order[1], order[2]}), keys).classes() == order);
  CHECK_MESSAGE_HOLDS(DataError,
                      "classes = [\"-10000000000000000000001\", \"-9999999999999999999999\", 5, "
                      "\"99999999999999999999\", \"100000000000000000000\"]",
                      read(table_of({order[4], order[0], order[3], order[1], order[2]})));
}

TEST_CASE("labels: a number is one class however it is written") {
  for (const auto& [cell, name] :
       {std::pair("3", "3"), std::pair("+3", "3"), std::pair("3.0", "3"), std::pair("3.", "3"), std::pair("003", "3"),
        std::pair("3e2", "300"), std::pair("0.03e4", "300"), std::pair("3E+0", "3"), std::pair("30e-1", "3"),
        std::pair("-0", "0"), std::pair("0.00e7", "0"), std::pair("-12.50e1", "-125"), std::pair("1.25", "1.25"),
        std::pair("3e-1", "3e-1"), std::pair("1e-400", "1e-400"), std::pair("9007199254740993.0", "9007199254740993"),
        std::pair("3x", "3x"), std::pair("1e400", "1e400"), std::pair(" a ", "a")}) {
    CAPTURE(cell);
    CHECK(whence::detail::canonical_label(cell) == name);
  }
  CHECK(at::equal(numbers({"1e16", "10000000000000000", "10000000000000001"}), at::tensor({0, 0, 1}, at::kLong)));
}

TEST_CASE("labels: numbers of jsonl that reading rounds are refused by line") {
  const auto row = [](const std::string& label) { return "{\"x\": 1, \"label\": " + label + "}\n"; };
  const auto data =
      read(row("18446744073709551615") + row("18446744073709551614") + row("-9223372036854775808"),
           {{"classes", {"18446744073709551615", "18446744073709551614", "-9223372036854775808"}}}, "jsonl");
  CHECK(at::equal(data.targets(), at::tensor({0, 1, 2}, at::kLong)));
  for (const char* label : {"18446744073709551616", "9007199254740993.0", "-1e300"}) {
    CHECK_MESSAGE_HOLDS(DataError, "line 2: \"label\": a label that reading JSON rounds, to ",
                        read(row("1") + row(label), json::object(), "jsonl"));
  }
  CHECK(read(row("1") + row("\"18446744073709551616\""), json::object(), "jsonl").classes().size() == 2);
}

TEST_CASE("labels: one class is nothing to learn from, and said so") {
  const auto refusal = [](const Dataset& data, bool fresh = true) {
    return test::message_of<DataError>([&] { check_classes_differ(data, fresh); });
  };
  CHECK(refusal(read(table_of({"x", "x"})))
            .find("/t is \"x\": one class leaves nothing to tell apart, expected two or "
                  "more: label = takes another column than \"label\"") != std::string::npos);
  CHECK(refusal(read(table_of({"x", "x"})), false).starts_with("every label of "));  // no checkpoint makes it two
  CHECK(refusal(read(table_of({"x"}))).starts_with("every label of "));
  CHECK(refusal(read(table_of({"x", "y"}))).empty());
  for (const auto& keys : std::vector<json>{{{"limit", 2}}, {{"classes", {"y", "x"}}, {"limit", 1}}, {{"rows", {1}}}}) {
    const auto data = read(table_of({"x", "x", "y"}), keys);
    CHECK(refusal(data).find(" that classes, drop-labels, rows, skip and limit leave is \"x\"") != std::string::npos);
    CHECK(refusal(data, false).empty());  // of a checkpoint's two
  }
  CHECK(refusal(read(table_of({"x", "x", "y"}), {{"drop-labels", {"y"}}})).starts_with("every label of "));
}

TEST_SUITE_END();
