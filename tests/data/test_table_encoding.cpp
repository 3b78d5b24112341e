// How the cells of a table become inputs. What files may look like is test_table.cpp's.
#include <nlohmann/json.hpp>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/data/dataset.h"

namespace whence::test {
namespace {

using nlohmann::json;

/// A csv file read as training data, and further ones by what that fitted.
class Tables {
 public:
  Dataset train(const std::string& text, json keys = json::object(), bool standardize = false) {
    DataReading reading;
    reading.standardize = standardize;
    const auto data = read(text, std::move(keys), reading);
    encoding_ = data.table();
    return data;
  }
  Dataset later(const std::string& text, json keys = json::object()) const {
    DataReading reading;
    reading.known_classes = {"0", "1"};
    reading.table = encoding_;
    return read(text, std::move(keys), reading);
  }

 private:
  Dataset read(const std::string& text, json keys, const DataReading& reading) const {
    scratch_.put("t.csv", text);
    keys["format"] = "csv";
    keys["file"] = "t.csv";
    return read_dataset(keys, scratch_.folder(), reading);
  }
  Scratch scratch_;
  std::shared_ptr<const TableEncoding> encoding_;
};

at::Tensor inputs(const Dataset& data) { return data.batch(0, data.size()).inputs; }
at::Tensor matrix(std::initializer_list<double> values, std::int64_t rows) {
  return at::tensor(at::ArrayRef<double>(values), at::kDouble).view({rows, -1});
}
using Names = std::vector<std::string>;

TEST_SUITE_BEGIN("data");

TEST_CASE("table: numbers first, then one input for each level, as pandas.get_dummies lays them out") {
  Tables tables;
  const auto data = tables.train("job,age,label,sex\n Clerk ,30,0,M\nBaker,40,1,F\nClerk,50,1,F\n");
  CHECK(data.columns() == Names{"age", "job=Baker", "job=Clerk", "sex=F", "sex=M"});
  CHECK(at::equal(inputs(data), matrix({30, 0, 1, 0, 1, 40, 1, 0, 1, 0, 50, 0, 1, 1, 0}, 3)));
  using Cells = std::vector<std::pair<std::string, std::string>>;
  CHECK(data.cells(1) == Cells{{"age", "40"}, {"job", "Baker"}, {"sex", "F"}});
  REQUIRE(data.notes().size() == 1);
  CHECK(data.notes()[0] ==
        "t.csv: 5 inputs: 1 number, as they are (standardize = true scales them); 2 categories, one "
        "input a level");
  CHECK(data.take(at::tensor({1}, at::kLong)).cells(0) == data.cells(1));
}

TEST_CASE("table: later tables are read by the training data's columns, found by name") {
  Tables tables;
  const auto data = tables.train("a,b,job,label\n1,10,x,0\n3,10,y,1\n5,40,x,0\n", {{"limit", 2}}, true);
  CHECK(at::equal(inputs(data), matrix({-1, 0, 1, 0, 1, 0, 0, 1}, 2)));  // of the rows that are kept: b is one number
  const auto later = tables.later("job,extra,label,b,a\ny,7,1,12,4\n");
  CHECK(at::equal(inputs(later), matrix({2, 2, 0, 1}, 1)));
  CHECK(later.cells(0)[0].second == "4");
  CHECK_MESSAGE_HOLDS(DataError, "did you mean \"a\"? known: a, job, label; the training data of the first stage has",
                      tables.later("a,job,label\n1,x,0\n"));
  CHECK_MESSAGE_HOLDS(
      DataError, "line 2, column \"job\": \"z\" is none of the training data's [\"x\", \"y\"]; unknown = \"zeros\"",
      tables.later("a,b,job,label\n1,2,z,0\n"));
  CHECK(at::equal(inputs(tables.later("a,b,job,label\n2,10,z,0\n", {{"unknown", "zeros"}})), matrix({0, 0, 0, 0}, 1)));
  CHECK(tables.later("a,b,job,label\n2,10,z,0\n", {{"unknown", "zeros"}}).cells(0)[2].second == "other");
  CHECK_MESSAGE_HOLDS(DataError, "line 2, column \"a\": \"q\" is not a finite number, as the training data's are",
                      tables.later("a,b,job,label\nq,2,x,0\n"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key standardize = false, but the training data of the first stage is read with",
                      tables.later("a,b,job,label\n1,2,x,0\n", {{"standardize", false}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key unknown = \"zero\": unknown word \"zero\"; did you mean \"zeros\"?",
                      tables.later("a,b,job,label\n1,2,x,0\n", {{"unknown", "zero"}}));
}

TEST_CASE("table: the label's column is the training data's where a later table does not say") {
  Tables tables;
  tables.train("a,b,income\n1,2,0\n3,4,1\n", {{"label", "income"}});
  CHECK(at::equal(tables.later("income,b,a\n1,2,9\n").targets(), at::tensor({1}, at::kLong)));
}

TEST_CASE("table: standardised in float64, whatever the spread and wherever the middle") {
  Tables tables;
  const auto data =
      tables.train("t,c,label\n1700000000000,3,0\n1700000000001,3,1\n1700000000003,3,0\n", json::object(), true);
  const auto mean = 4.0 / 3, deviation = std::sqrt((16.0 / 9 + 1.0 / 9 + 25.0 / 9) / 3);
  CHECK(relative_error(inputs(data).select(1, 0).contiguous(),
                       at::tensor({-mean / deviation, (1 - mean) / deviation, (3 - mean) / deviation}, at::kDouble)) <
        1e-3);                                                               // 2^-12 of the numbers' last digit
  CHECK(at::equal(inputs(data).select(1, 1), at::zeros({3}, at::kDouble)));  // a column of one number
  CHECK(data.cells(2)[0].second == "1700000000003");
  const auto raw = tables.train("t,label\n1700000000001,0\n", {{"standardize", false}}, true);
  CHECK(raw.to(at::kDouble, at::kCPU).batch(0, 1).inputs.item<double>() == 1700000000001.0);
}

TEST_CASE("table: missing cells are a level of a category, refused as a number, or filled in") {
  const std::string text = "n,c,label\n1,x,0\n?,y,1\n5,NA,0\n5,y,1\n,,0\n";
  Tables tables;
  CHECK_MESSAGE_HOLDS(DataError, "line 3, column \"n\": \"?\", one of 2 missing in the column; missing = \"mean\"",
                      tables.train(text));
  CHECK_MESSAGE_HOLDS(DataError, "line 4, column \"c\": \"NA\", one of 2 missing in the column; missing = \"auto\"",
                      tables.train(text, {{"input", {"c"}}, {"missing", "refuse"}}));
  const auto level = tables.train(text, {{"ignore", {"n"}}});
  CHECK(level.columns() == Names{"c=?", "c=x", "c=y"});
  CHECK(at::equal(inputs(level), matrix({0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0}, 5)));
  CHECK(level.notes()[0].find("2 missing cells, a level \"?\"") != std::string::npos);
  const auto filled = [&](const char* how) { return inputs(tables.train(text, {{"missing", how}})); };
  CHECK(relative_error(filled("mean").select(1, 0).contiguous(),
                       at::tensor({1.0, 11.0 / 3, 5.0, 5.0, 11.0 / 3}, at::kDouble)) < Tolerance::kSameAlgebra);
  CHECK(at::equal(filled("median").select(1, 0), at::tensor({1.0, 5.0, 5.0, 5.0, 5.0}, at::kDouble)));
  CHECK(filled("mode").size(1) == 3);  // without a level "?"
  CHECK(at::equal(filled("mode").select(1, 2), at::tensor({0.0, 1.0, 1.0, 1.0, 1.0}, at::kDouble)));
  CHECK(at::equal(inputs(tables.later("n,c,label\nNaN,null,1\n")), matrix({5, 0, 1}, 1)));
  tables.train("n,c,label\n1,x,0\n2,y,1\n");
  CHECK_MESSAGE_HOLDS(DataError, "a missing number; missing = \"mean\" in the first stage's train table",
                      tables.later("n,c,label\n?,x,1\n"));
  CHECK_MESSAGE_HOLDS(DataError, "\"?\" is none of the training data's", tables.later("n,c,label\n1,?,1\n"));
  CHECK_MESSAGE_HOLDS(DataError, "column \"n\" holds nothing: ignore = [\"n\"] leaves it out",
                      tables.train("n,c,label\n?,x,0\n,y,1\n"));
}

TEST_CASE("table: a missing cell's level is called as the file writes it") {
  Tables tables;
  const auto empty = tables.train("c,d,label\n,NA,0\nx,NA,1\n,0,0\n0,x,1\n", {{"categorical", {"c", "d"}}});
  CHECK(empty.columns() == Names{"c=0", "c=\"\"", "c=x", "d=0", "d=NA", "d=x"});  // where "?" would stand
  CHECK(empty.cells(0)[0].second == "\"\"");
  CHECK(empty.cells(0)[1].second == "NA");
  CHECK(empty.notes()[0].find("4 missing cells, a level \"\", \"NA\"") != std::string::npos);
  CHECK(tables.later("c,d,label\nnull,,1\n").cells(0)[0].second == "\"\"");  // however it writes a missing one
  CHECK(tables.train("c,label\n,0\nNA,1\nx,1\n").columns() == Names{"c=?", "c=x"});
  tables.train("c,label\ny,0\nx,1\n");
  CHECK_MESSAGE_HOLDS(DataError, "\"\" is none of the training data's", tables.later("c,label\n,1\nx,0\n"));
}

TEST_CASE("table: an index that pandas or R wrote is left out, another nameless column is refused") {
  Tables tables;
  const auto data = tables.train(",a,label\n0,5,0\n1,6,1\n");
  CHECK(data.columns() == Names{"a"});
  CHECK(data.notes()[0].find("the column without a name is an index and is left out") != std::string::npos);
  CHECK(tables.train("Unnamed: 0,a,label\n17,5,0\n4,6,1\n").columns() == Names{"a"});
  CHECK(at::equal(inputs(tables.later(",label,a\n9,1,3\n")), matrix({3}, 1)));
  CHECK_MESSAGE_HOLDS(DataError, "line 1: column 1 has no name and is no index",
                      tables.train(",a,label\n3,5,0\n3,6,1\n"));
  CHECK_MESSAGE_HOLDS(DataError, "line 1: column 2 has no name and is no index",
                      tables.train("a,,label\n5,0,0\n6,1,1\n"));
  CHECK(tables.train("a,label,,\n5,0,,\n6,1,,\n").columns() == Names{"a"});  // a spreadsheet's empty columns
}

TEST_CASE("table: numbers that are names, and cells that are almost numbers") {
  Tables tables;
  CHECK(tables.train("zip,label\n02134,0\n10.0,1\n", {{"categorical", {"zip"}}}).columns() ==
        Names{"zip=02134", "zip=10"});
  const auto refuse = [&](const std::string& cell, const std::string& part) {
    CHECK_MESSAGE_HOLDS(DataError, part, tables.train("x,label\n\"" + cell + "\",0\n"));
    CHECK_MESSAGE_HOLDS(DataError, part, tables.train("x,label\n3,1\n\"" + cell + "\",0\n4,1\n"));
  };
  refuse("1,234", "\"1,234\" is not a finite number: its comma may separate thousands or decimals");
  refuse("12%", "\"12%\" is not a finite number: write 12 alone");
  refuse("$5", "\"$5\" is not a finite number: write 5 alone");
  refuse(
      "\xE2\x88\x92"
      "3",
      "its minus is a typographic one");
  CHECK_MESSAGE_HOLDS(DataError,
                      "line 4, column \"x\": \"3\" is a number, but 2 of the column's 3 cells are no numbers",
                      tables.train("x,label\na,0\nb,1\n3,0\n"));
  const auto number = [&](const std::string& cell) {
    return inputs(tables.train("x,label\n" + cell + ",0\n")).item<double>();
  };
  CHECK(number("+0.5") == 0.5);
  CHECK(number("\" 0.5\t\"") == 0.5);
  CHECK(number("1e39") == 1e39);
  CHECK(number("1e-400") == 0);
  CHECK(number("-.5") == -0.5);
}

TEST_CASE("table: what float32 does not reach is named when float32 is asked for") {
  Tables tables;
  const auto data = tables.train("a,x,label\n1,2,0\n3,1e39,1\n");
  CHECK_MESSAGE_HOLDS(DataError,
                      "t.csv: example 1, column \"x\": 1e+39 is beyond the reach of float32: use --dtype float64, "
                      "or standardize = true before training",
                      data.to(at::kFloat, at::kCPU));
  CHECK(data.to(at::kDouble, at::kCPU).batch(1, 2).inputs[0][1].item<double>() == 1e39);
  CHECK(tables.train("a,x,label\n1,2,0\n3,1e39,1\n", json::object(), true).to(at::kFloat, at::kCPU).size() == 2);
}

TEST_CASE("table: a column of too many words is no category") {
  Tables tables;
  std::string text = "name,x,label\n";
  for (int i = 0; i < 30; ++i) {
    text += "n" + std::to_string(i) + ",1,0\n";
  }
  CHECK_MESSAGE_HOLDS(DataError,
                      "line 2, column \"name\": \"n0\" is one of 30 different words, more than levels = 20; ignore = "
                      "[\"name\"] leaves the column out, levels = 30 takes them all",
                      tables.train(text, {{"levels", 20}}));
  CHECK(tables.train(text, {{"ignore", {"name"}}}).columns() == Names{"x"});
  CHECK(tables.train(text).columns().size() == 31);
}

TEST_CASE("jsonl: a model of numbers reads the objects as a table") {
  const Scratch scratch;
  scratch.put("t.jsonl",
              "{\"a\": 1.5, \"sex\": \"F\", \"label\": 1, \"meta\": {}}\n{\"a\": 2, \"label\": 0, \"sex\": \"M\", "
              "\"ok\": null}\n");
  json table{{"format", "jsonl"}, {"file", "t.jsonl"}};
  CHECK_MESSAGE_HOLDS(DataError,
                      "line 1: \"meta\" holds a list or an object, expected a text, a number, true or false; ignore",
                      read_dataset(table, scratch.folder(), TargetKind::kClasses));
  table["ignore"] = {"meta", "ok"};
  const auto data = read_dataset(table, scratch.folder(), TargetKind::kClasses);
  CHECK(data.columns() == Names{"a", "sex=F", "sex=M"});
  CHECK(at::equal(inputs(data), matrix({1.5, 1, 0, 2, 0, 1}, 2)));
  // what the training data does not use may hold anything in later ones
  DataReading reading;
  reading.known_classes = data.classes();
  reading.table = data.table();
  table.erase("ignore");
  scratch.put("t.jsonl", "{\"meta\": [1], \"a\": 7, \"sex\": \"M\", \"new\": {\"x\": 1}, \"label\": 1}\n");
  CHECK(at::equal(inputs(read_dataset(table, scratch.folder(), reading)), matrix({7, 0, 1}, 1)));
  scratch.put("t.jsonl", "{\"a\": [7], \"sex\": \"M\", \"label\": 1}\n");
  CHECK_MESSAGE_HOLDS(DataError, "line 1: \"a\" holds a list or an object",
                      read_dataset(table, scratch.folder(), reading));
}

TEST_CASE("table: adult_train.tsv as it is") {
  const auto folder = std::filesystem::path(WHENCE_SHARED) / "data" / "tabular";
  if (!std::filesystem::exists(folder)) {
    MESSAGE("skipped: no ", folder.string());
    return;
  }
  DataReading reading;
  reading.standardize = true;
  const auto data =
      read_dataset({{"format", "tsv"}, {"file", "adult_train.tsv"}, {"label", "income"}}, folder, reading);
  CHECK(data.size() == 32561);
  CHECK(data.classes() == Names{"<=50K", ">50K"});
  CHECK(data.targets().sum().item<std::int64_t>() == 7841);
  CHECK(data.columns().size() == 108);  // as pandas.get_dummies has it
  CHECK(data.columns()[6] == "workclass=?");
  const auto age = data.batch(0, data.size()).inputs.select(1, 0);
  CHECK(std::abs(age.mean().item<double>()) < 1e-12);
  CHECK(age.square().mean().item<double>() == doctest::Approx(1));
  CHECK(data.cells(0)[0].second == "39");
  CHECK(data.notes()[0].find("6 numbers, standardised (standardize = false leaves them as they are); 8 categories, one "
                             "input a level; 4262 missing cells, a level \"?\"") != std::string::npos);
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
