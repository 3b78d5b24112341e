#include <nlohmann/json.hpp>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/data/dataset.h"
#include "whence/data/target_values.h"

namespace whence::test {
namespace {

using nlohmann::json;

/// The dataset of a csv or tsv file that holds `text`.
Dataset read(const std::string& format, const std::string& text, json keys = json::object(),
             TargetKind wanted = TargetKind::kClasses) {
  const Scratch scratch;
  scratch.put("t." + format, text);
  keys["format"] = format;
  keys["file"] = "t." + format;
  return read_dataset(keys, scratch.folder(), wanted);
}

at::Tensor row(std::initializer_list<double> values) { return at::tensor(at::ArrayRef<double>(values), at::kDouble); }

TEST_SUITE_BEGIN("data");

TEST_CASE("csv and tsv: columns are found by name") {
  for (const std::string format : {"csv", "tsv"}) {
    const std::string separator = format == "csv" ? "," : "\t";
    std::string text;
    for (const char c : std::string("a,label,b\n1,2,-0.5\r\n3e2,0, 4 \n\n5,1,6")) {
      text += c == ',' ? separator : std::string(1, c);
    }
    const auto data = read(format, text);
    CHECK(at::equal(data.batch(0, 3).inputs, at::stack({row({1, -0.5}), row({300, 4}), row({5, 6})})));
    CHECK(at::equal(data.targets(), at::tensor({2, 0, 1}, at::kLong)));
    CHECK(data.classes() == std::vector<std::string>{"0", "1", "2"});
  }
}

TEST_CASE("csv: input picks columns, in the order given") {
  const std::string text = "a,label,b\n1,1,2\n3,0,4\n";
  CHECK(
      at::equal(read("csv", text, {{"input", {"b", "a"}}}).batch(0, 2).inputs, at::stack({row({2, 1}), row({4, 3})})));
  CHECK((read("csv", text, {{"label", "b"}, {"input", {"label"}}}).classes() == std::vector<std::string>{"2", "4"}));
}

TEST_CASE("csv: without a header columns are numbered") {
  const json keys{{"header", false}, {"label", 0}};
  const auto data = read("csv", "1,2,3\n0,5,6\n", keys);
  CHECK(at::equal(data.batch(0, 2).inputs, at::stack({row({2, 3}), row({5, 6})})));
  CHECK(at::equal(data.targets(), at::tensor({1, 0}, at::kLong)));
}

TEST_CASE("csv: quotes hold commas, quotes and line ends; lines are counted through them") {
  const std::string text = "\"x, \"\"y\"\"\",\"la\nbel\"\r\n\"1\",\"b\r\n\"\"c\"\"\"\n2,a\n";
  const auto data = read("csv", text, {{"label", "la\nbel"}, {"input", {"x, \"y\""}}});
  CHECK(data.classes() == std::vector<std::string>{"a", "b\r\n\"c\""});
  CHECK(at::equal(data.targets(), at::tensor({1, 0}, at::kLong)));
  CHECK_MESSAGE_HOLDS(
      DataError,
      "line 6, column \"x\": \"z\" is not a finite number, but 1 of the column's 2 cells are numbers; or "
      "categorical = [\"x\"]",
      read("csv", "x,label\n1,\"a\n\n\n\"\nz,b\n"));
  CHECK_MESSAGE_HOLDS(DataError, "line 3, column 2: a quoted cell has no end",
                      read("csv", "x,label\n1,a\n1,\"b\n2,c\n"));
  CHECK_MESSAGE_HOLDS(DataError, "line 2, column 1: text after a quoted cell", read("csv", "x,label\n\"1\"2,a\n"));
}

TEST_CASE("tsv: quotes and commas are ordinary letters") {
  const auto data = read("tsv", "x\tlabel\n1\t\"a,b\n2\t\"a,b\n3\tc\"d\n");
  CHECK(data.classes() == std::vector<std::string>{"\"a,b", "c\"d"});
}

TEST_CASE("csv: labels that are not all integers are the sorted distinct strings") {
  const auto data = read("csv", "x,label\n1,cat\n2,7\n3,ant\n4,cat\n");
  CHECK(data.classes() == std::vector<std::string>{"7", "ant", "cat"});
  CHECK(at::equal(data.targets(), at::tensor({2, 0, 1, 2}, at::kLong)));
  const auto chosen = read("csv", "x,label\n1,cat\n2,7\n3,ant\n4,cat\n", {{"classes", {"cat", 7}}});
  CHECK(chosen.classes() == std::vector<std::string>{"cat", "7"});
  CHECK(at::equal(chosen.targets(), at::tensor({0, 1, 0}, at::kLong)));
  CHECK(at::equal(chosen.ids(), at::tensor({0, 1, 3}, at::kLong)));
}

TEST_CASE("csv: a loss that wants values gets them where the labels are numbers") {
  const std::string text = "x,label\n1,2\n3,-4.5\n";
  const auto values = read("csv", text, json::object(), TargetKind::kValues);
  CHECK(values.target_kind() == TargetKind::kValues);
  CHECK(at::equal(values.batch(0, 2).targets, at::stack({row({2}), row({-4.5})})));
  CHECK(read("csv", text, {{"limit", 1}}, TargetKind::kValues).size() == 1);
  CHECK(read("csv", text).classes() == std::vector<std::string>{"-4.5", "2"});
  CHECK(read("csv", "x,label\n1,a\n3,b\n", json::object(), TargetKind::kValues).classes().size() == 2);
  CHECK_MESSAGE_HOLDS(DataError,
                      "line 3, column \"label\": \"nan\" is not a finite number; drop-labels = [\"nan\"] leaves such",
                      read("csv", "x,label\n1,2\n3,nan\n", json::object(), TargetKind::kValues));
  CHECK(read("csv", "x,label\n1,2\n3,nan\n", {{"drop-labels", {"nan"}}}, TargetKind::kValues).size() == 1);
  for (const char* drop : {"-999", "-999.00"}) {  // however it is written
    CHECK(read("csv", "x,label\n1,2\n3,-999.0\n", {{"drop-labels", {drop}}}, TargetKind::kValues).size() == 1);
  }
  CHECK(read("csv", text, {{"classes", {2}}}, TargetKind::kValues).outputs() == 1);
}

TEST_CASE("csv, tsv and jsonl: several columns of values, which are no inputs") {
  const std::string text = "x,b,a,y\n1,0,1,5\n2,0.5,0,6\n";
  const json keys{{"labels", {"a", "b"}}};
  const auto events = read("csv", text, keys, TargetKind::kProbabilities);
  CHECK(events.target_kind() == TargetKind::kValues);
  CHECK(at::equal(events.batch(0, 2).targets, at::stack({row({1, 0}), row({0, 0.5})})));
  CHECK(at::equal(events.batch(0, 2).inputs, at::stack({row({1, 5}), row({2, 6})})));
  const auto lines = read("jsonl", "{\"x\": 1, \"a\": true, \"b\": 0}\n{\"x\": 2, \"a\": 0, \"b\": 0.5}\n", keys,
                          TargetKind::kProbabilities);
  CHECK(at::equal(lines.targets(), events.targets()));
  CHECK(at::equal(lines.batch(0, 2).inputs, at::stack({row({1}), row({2})})));
  CHECK(read("csv", "x,a,b\n1,0.25,0.75\n", keys).outputs() == 2);  // shares of two classes
  const auto refused = [&](const std::string& rows, const json& asked, const char* part) {
    CHECK_MESSAGE_HOLDS(
        Error, part, check_targets(read("csv", rows, asked, TargetKind::kProbabilities), TargetKind::kProbabilities));
  };
  refused("x,a,b\n1,0,1\n2,1,\n", keys, "line 3, column \"b\": no value");
  refused("x,a,b\n1,0,yes\n", keys, "line 2, column \"b\": \"yes\" is not");
  refused("x,a,b\n1,0,1\n2,1,3\n", keys, "value 1 of 3, expected one from 0 to 1");
  refused("x,a\n1,0\n", keys, "key labels: unknown column \"b\"");
  refused(text, {{"labels", {"a", "a"}}}, "key labels names column \"a\" twice");
  refused(text, {{"labels", {"a", "b"}}, {"label", "a"}}, "keys label and labels are both given");
  refused(text, {{"labels", {"a", "b"}}, {"classes", {0, 1}}}, "key classes: the targets of");
}

TEST_CASE("csv and tsv: a byte order mark is no part of the first name, and .gz is read") {
  CHECK(read("csv", "\xEF\xBB\xBFlabel,x\n0,1\n").size() == 1);
  const Scratch scratch;
  scratch.put("t.tsv.gz", "x\tlabel\n2\t1\n");
  const auto data = read_dataset({{"format", "tsv"}, {"file", "t.tsv.gz"}}, scratch.folder(), TargetKind::kClasses);
  CHECK(at::equal(data.batch(0, 1).inputs, row({2}).view({1, 1})));
}

TEST_CASE("csv and tsv: what each refusal says") {
  const auto refuse = [](const std::string& text, const std::string& part, const json& keys = json::object()) {
    CHECK_MESSAGE_HOLDS(DataError, part, read("csv", text, keys));
  };
  refuse("", "t.csv: no rows");
  refuse("\n\r\n", "t.csv: no rows");
  refuse("x,label\n", "t.csv: no examples: no row follows the names of the columns");
  refuse("x,label\n1,0\n2\n", "t.csv: line 3 has 1 columns, expected 2");
  refuse("x,label\n1,0,5\n", "t.csv: line 2 has 3 columns, expected 2");
  refuse("x,label\n1,0\n,1\n",
         "t.csv: line 3, column \"x\": \"\", one of 1 missing in the column; missing = \"mean\" (or");
  refuse("x,label\n1,0\ninf,1\n", "t.csv: line 3, column \"x\": \"inf\" is not a finite number");
  refuse("x,label\n1e999,0\n", "\"1e999\" is not a finite number");
  refuse("x,label\n1.5,0\n1.5x,0\n", "line 3, column \"x\": \"1.5x\" is not a finite number");
  refuse("x,label\n1,0\n1,\n", "t.csv: line 3, column \"label\": no label; drop-labels = [\"\"] leaves");
  refuse("x,x,label\n1,2,0\n", "t.csv: line 1 names column \"x\" twice");
  refuse("0,0.5,0\n1,2,0\n", "line 1 names column \"0\" twice: its names are numbers, of a row perhaps, which header");
  refuse("label\n1\n", "no column besides the label \"label\"");
  refuse("x,label\n1,0\n2,-3\n", "t.csv: line 3, column \"label\": label -3, expected >= 0; drop-labels = [-3]");

  const std::string good = "x,label\n1,0\n";
  CHECK_MESSAGE_HOLDS(InvalidArgument,
                      "csv: key label: unknown column \"labels\"; did you mean \"label\"? known: x, label in ",
                      read("csv", good, {{"label", "labels"}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "tsv: key label: unknown column \"label\", known: x, y in ",
                      read("tsv", "x\ty\n1\t0\n"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key input: unknown column \"y\"", read("csv", good, {{"input", {"y"}}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "column \"label\" is also the label", read("csv", good, {{"input", {"label"}}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key header = \"yes\", expected true or false",
                      read("csv", good, {{"header", "yes"}}));
}

TEST_CASE("csv: separated by tabs or semicolons where line 1 has no comma") {
  for (const std::string separator : {"\t", ";"}) {
    std::string text = "x" + separator + "label" + separator + "y\n1" + separator + "0" + separator + "2\n";
    CHECK(at::equal(read("csv", text).batch(0, 1).inputs, row({1, 2}).view({1, 2})));
    text = "\"x, y\"" + separator + "label\n1" + separator + "0\n";
    CHECK(read("csv", text).columns() == std::vector<std::string>{"x, y"});
  }
  CHECK_MESSAGE_HOLDS(DataError, "\"1,5\" is not a finite number: its comma", read("csv", "x;label\n1,5;0\n"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "has no tab but commas: format = \"csv\"", read("tsv", "x,label\n1,0\n"));
}

TEST_CASE("csv: a first line of numbers is a row, not the names") {
  CHECK_MESSAGE_HOLDS(DataError, "line 1 holds only numbers: header = false",
                      read("csv", "1,2,0\n3,4,1\n", {{"label", 2}}));
  CHECK(read("csv", "1,2,0\n3,4,1\n", {{"label", 2}, {"header", true}}).size() == 1);
  CHECK(read("csv", "0,1,2\n3,4,1\n", {{"label", 2}}).size() == 1);  // as pandas names columns that have no name
}

TEST_CASE("csv: what is no UTF-8 text is named, with what converts it") {
  const auto refuse = [](const std::string& text, const std::string& part) {
    CHECK_MESSAGE_HOLDS(DataError, part, read("csv", text));
  };
  refuse("x,label\n1,caf\xe9\n", "t.csv: line 2, byte 14 of the file: 0xE9 is not UTF-8");
  refuse("x,label\n1,caf\xe9\n", "iconv -f WINDOWS-1252 -t UTF-8 t.csv > NEW");
  refuse(std::string("\xFF\xFEx\0,\0", 6), "the text is UTF-16, expected UTF-8: iconv -f UTF-16");
  refuse(std::string("x\0,\0", 4), "line 1, byte 2 of the file: a zero byte");
  refuse("\x1f\x8b\x08", "is compressed by gzip: give it a name that ends in .gz");
  refuse("PK\x03\x04", "is a zip archive or an Excel workbook");
  refuse("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "a Git LFS pointer to 3 bytes");
  refuse("x,label\r1,0\r", "its lines end in carriage returns alone");
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
