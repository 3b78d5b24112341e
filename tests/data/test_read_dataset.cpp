#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/data/dataset.h"
#include "whence/data/format.h"
#include "whence/data/safetensors.h"
#include "whence/data/target_values.h"

namespace whence::test {
namespace {

using nlohmann::json;

/// Examples 0 .. 6 with input i and labels 5 6 3 5 9 6 3, read under these keys.
Dataset read(json keys, const std::vector<std::string>& known = {},
             const at::Tensor& targets = at::tensor({5, 6, 3, 5, 9, 6, 3}, at::kLong),
             const at::Tensor& inputs = at::arange(7, at::kFloat).unsqueeze(1)) {
  const Scratch scratch;
  ParameterSet tensors;
  tensors.add("inputs", inputs);
  tensors.add("targets", targets);
  write_safetensors(scratch / "d.safetensors", tensors);
  keys["format"] = "safetensors";
  keys["file"] = "d.safetensors";
  return read_dataset(keys, scratch.folder(), TargetKind::kClasses, known);
}

/// The same inputs with `targets` for a loss that compares numbers.
Dataset read_values(const at::Tensor& targets) {
  const Scratch scratch;
  ParameterSet tensors;
  tensors.add("inputs", at::arange(7, at::kFloat).unsqueeze(1));
  tensors.add("targets", targets);
  write_safetensors(scratch / "d", tensors);
  return read_dataset({{"format", "safetensors"}, {"file", "d"}}, scratch.folder(), TargetKind::kValues);
}

at::Tensor integers(std::initializer_list<std::int64_t> values) {
  return at::tensor(at::ArrayRef<std::int64_t>(values), at::kLong);
}

TEST_SUITE_BEGIN("data");

TEST_CASE("classes: without a list, the distinct labels by value") {
  const auto data = read(json::object());
  CHECK(data.classes() == std::vector<std::string>{"3", "5", "6", "9"});
  CHECK(at::equal(data.targets(), integers({1, 2, 0, 1, 3, 2, 0})));
  const auto grey = read(json::object(), {}, integers({240, 80, 160, 80, 80, 160, 240}));
  CHECK(grey.classes() == std::vector<std::string>{"80", "160", "240"});
}

TEST_CASE("classes: a list keeps and numbers in its order, limit comes after, ids stay") {
  const auto data = read({{"classes", {6, 5}}, {"limit", 3}});
  CHECK(data.classes() == std::vector<std::string>{"6", "5"});
  CHECK(at::equal(data.targets(), integers({1, 0, 1})));
  CHECK(at::equal(data.ids(), integers({0, 1, 3})));
  CHECK(at::equal(data.batch(0, 3).inputs.flatten(), data.batch(0, 3).ids.to(at::kDouble)));
  CHECK(at::equal(read({{"limit", 2}}).ids(), integers({0, 1})));
  CHECK(read({{"limit", 100}}).size() == 7);
  for (const auto& rows : {std::vector<int>{5, 1}, {0, 1}, {1, 0}, {6, 2, 0}}) {  // in their order, inputs too
    const auto picked = read({{"rows", rows}});
    CHECK(at::equal(picked.ids(), at::tensor(rows).to(at::kLong)));
    CHECK(at::equal(picked.batch(0, picked.size()).inputs.flatten(), picked.ids().to(at::kDouble)));
  }
}

TEST_CASE("classes: known ones fix the numbering, and a list only filters") {
  const std::vector<std::string> known{"9", "3", "5", "6"};
  CHECK(at::equal(read(json::object(), known).targets(), integers({2, 3, 1, 2, 0, 3, 1})));
  const auto filtered = read({{"classes", {3, 9}}}, known);
  CHECK(filtered.classes() == known);
  CHECK(at::equal(filtered.targets(), integers({1, 0, 1})));
  CHECK(at::equal(filtered.ids(), integers({2, 4, 6})));
  CHECK_MESSAGE_HOLDS(DataError, "d.safetensors: example 2 has label 3, expected one of 5, 6",
                      read(json::object(), {"5", "6"}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "safetensors: key classes: unknown class \"3\"",
                      read({{"classes", {3}}}, {"5", "6"}));
}

TEST_CASE("classes: what is refused") {
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key classes: no example of ", read({{"classes", {5, 4}}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "has label 4", read({{"classes", {5, 4}}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key classes = [5, 5] names one twice", read({{"classes", {5, 5}}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key classes = [], expected a list of labels",
                      read({{"classes", json::array()}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key classes = [1.5], expected a list of labels", read({{"classes", {1.5}}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key limit = 0, expected >= 1", read({{"limit", 0}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key limit = \"7\", expected >= 1", read({{"limit", "7"}}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "key limit = 18446744073709551615", read({{"limit", UINT64_MAX}}));
  const auto negative = integers({5, 6, 5, -2, 6, 5, 6});
  CHECK_MESSAGE_HOLDS(DataError, "example 3: label -2, expected >= 0; drop-labels = [-2]",
                      read(json::object(), {}, negative));
  CHECK(at::equal(read({{"classes", {5}}}, {}, negative).ids(), integers({0, 2, 5})));
  CHECK(at::equal(read({{"classes", {-2, 5, 6}}}, {}, negative).targets(), integers({1, 2, 1, 0, 2, 1, 2})));
  CHECK(read(json::object(), {}, integers({0, 0, 0, 0, 0, 0, 4000000000000})).outputs() == 2);
}

TEST_CASE("classes: labels that are to be left out") {
  const auto data = read({{"drop-labels", {3, 9}}});
  CHECK(data.classes() == std::vector<std::string>{"5", "6"});
  CHECK(at::equal(data.ids(), integers({0, 1, 3, 5})));
  const auto negative = integers({1, 0, -1, 0, -1, 1, 1});
  CHECK(at::equal(read({{"drop-labels", {-1}}, {"skip", 1}}, {}, negative).ids(), integers({1, 3, 5, 6})));
  CHECK(at::equal(read({{"drop-labels", {-1}}}, {"1", "0"}, negative).targets(), integers({0, 1, 1, 0, 0})));
}

TEST_CASE("classes: integers are numbers where a loss compares numbers, unless they are listed") {
  const Scratch scratch;
  ParameterSet tensors;
  tensors.add("inputs", at::arange(3, at::kFloat).unsqueeze(1));
  tensors.add("targets", integers({1, 7, 3}));
  write_safetensors(scratch / "d.safetensors", tensors);
  json table{{"format", "safetensors"}, {"file", "d.safetensors"}};
  const auto numbers = read_dataset(table, scratch.folder(), TargetKind::kValues);
  CHECK(numbers.target_kind() == TargetKind::kValues);
  CHECK(at::equal(numbers.targets(), at::tensor({1.0, 7.0, 3.0}, at::kDouble).unsqueeze(1)));
  table["classes"] = {1, 3, 7};
  CHECK(read_dataset(table, scratch.folder(), TargetKind::kValues).outputs() == 3);
}

TEST_CASE("classes: a checkpoint's outputs are met by place, by the list, by value, or by name; else one is asked") {
  const auto with = [](const HeadClasses& head, const std::vector<std::int64_t>& labels, json keys = json::object()) {
    const Scratch scratch;
    ParameterSet tensors;
    const auto count = static_cast<std::int64_t>(labels.size());
    tensors.add("inputs", at::zeros({count, 1}));
    tensors.add("targets", at::tensor(labels, at::kLong));
    write_safetensors(scratch / "d.safetensors", tensors);
    keys["format"] = "safetensors";
    keys["file"] = "d.safetensors";
    DataReading reading;
    reading.head = head;
    return read_dataset(keys, scratch.folder(), reading);
  };
  const HeadClasses ten{10, {}, false, "mlp.safetensors"};
  CHECK(with(ten, {3, 8}).outputs() == 10);
  CHECK(at::equal(with(ten, {3, 8}).targets(), integers({3, 8})));
  CHECK(at::equal(with(ten, {3, 8, 5}, {{"classes", {8, 3}}}).targets(), integers({3, 8})));  // a list that filters
  const HeadClasses three{3, {}, false, "mlp.safetensors"};
  CHECK(at::equal(with(three, {0, 1, 2}, {{"classes", {2, 1, 0}}}).targets(), integers({2, 1, 0})));
  CHECK(at::equal(with(three, {80, 240, 160}).targets(), integers({0, 2, 1})));
  CHECK(at::equal(with(three, {80, 240, 160}, {{"classes", {240, 160, 80}}}).targets(), integers({2, 0, 1})));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "mlp.safetensors has 3 outputs and does not say which class each is",
                      with(three, {80, 240}));
  const HeadClasses named{3, {"7", "5", "6"}, false, "run/a.safetensors"};
  CHECK(at::equal(with(named, {5, 6, 7, 5}).targets(), integers({1, 2, 0, 1})));
  CHECK(at::equal(with(named, {0, 2}).targets(), integers({0, 2})));
  CHECK_MESSAGE_HOLDS(DataError, "has label 9, expected one of 7, 5, 6", with(named, {5, 9}));
  // numbers that are not the outputs': the first that is none, and whether all are one too high
  const HeadClasses animals{3, {"cat", "dog", "fox"}, false, "m.pt2"};
  const std::string from_one = ": labels 1 to 3 seem to count from 1, where outputs count from 0: take 1 from each";
  CHECK_MESSAGE_HOLDS(DataError, "example 2 has label 3, expected one of 0 to 2" + from_one,
                      with(animals, {1, 2, 3, 1}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "example 1 has label 3, expected one of 0 to 2" + from_one, with(three, {1, 3}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, from_one + ", or list them as the outputs: classes = [1, 2, 3]",
                      with(three, {1, 2, 3}));
  CHECK_MESSAGE_HOLDS(DataError, "example 1 has label 7, expected one of 0 to 2, the numbers of the outputs: classes",
                      with(animals, {0, 7}));
  CHECK(at::equal(with(animals, {3, 7, 9, 5}, {{"classes", {3, 5, 7}}}).targets(), integers({0, 2, 1})));
  REQUIRE(with(three, {2, 4, 3}).notes().size() == 1);
  CHECK(with(three, {2, 4, 3}).notes()[0].find("2, 3, 4 are taken for the outputs of mlp.safetensors in this order") !=
        std::string::npos);
  CHECK(with(animals, {0, 2}).notes().empty());

  const auto words = [](const HeadClasses& head, json keys = json::object()) {
    const Scratch scratch;
    scratch.put("t.csv", "x,label\n1,good\n2,bad\n");
    keys["format"] = "csv";
    keys["file"] = "t.csv";
    DataReading reading;
    reading.head = head;
    return read_dataset(keys, scratch.folder(), reading).targets();
  };
  CHECK_MESSAGE_HOLDS(InvalidArgument, "in the order of the outputs: classes = [\"bad\", \"good\"]",
                      words({2, {}, false, "mlp.safetensors"}));
  CHECK(at::equal(words({2, {}, false, ""}, {{"classes", {"good", "bad"}}}), integers({0, 1})));
  CHECK(at::equal(words({2, {"good", "bad"}, false, ""}), integers({0, 1})));
  // other words than the program's are listed in its outputs' order, but for a checkpoint of whence's own
  const HeadClasses ours{2, {"up", "down"}, true, "run/a"}, theirs{2, {"up", "down"}, false, "m.pt2"};
  CHECK(at::equal(words(theirs, {{"classes", {"good", "bad"}}}), integers({0, 1})));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "m.pt2 has 2 outputs and calls them up, down, and", words(theirs));
  CHECK_MESSAGE_HOLDS(DataError, "has label good, expected one of up, down, the classes of run/a", words(ours));
  CHECK(at::equal(words({2, {}, true, ""}), integers({1, 0})));  // as whence numbered them before it wrote them down
}

TEST_CASE("safetensors examples: floating targets are values, with one or more an example") {
  const Scratch scratch;
  ParameterSet tensors;
  tensors.add("inputs", at::zeros({3, 2}));
  tensors.add("targets", at::tensor({0, 1, 1, 0, 1, 1}, at::kLong).view({3, 2}));
  write_safetensors(scratch / "d", tensors);
  const auto events =
      read_dataset({{"format", "safetensors"}, {"file", "d"}}, scratch.folder(), TargetKind::kProbabilities);
  CHECK(events.outputs() == 2);
  CHECK(at::equal(events.batch(1, 2).targets, at::tensor({1.0, 0.0}, at::kDouble).unsqueeze(0)));
  const auto one = read_values(at::arange(7, at::kFloat));
  CHECK(one.target_kind() == TargetKind::kValues);
  CHECK(one.targets().sizes() == at::IntArrayRef({7, 1}));
  const auto shares = at::linspace(0, 1, 7, at::kDouble);
  const auto two = read({{"limit", 3}}, {}, at::stack({shares, 1 - shares}, 1));
  CHECK(two.outputs() == 2);
  CHECK(two.target_kind() == TargetKind::kValues);
  CHECK(relative_error(two.batch(2, 3).targets, at::tensor({1.0 / 3, 2.0 / 3}, at::kDouble).view({1, 2})) < 1e-15);
  CHECK_MESSAGE_HOLDS(DataError, "targets are values, expected classes 5, 6",
                      read(json::object(), {"5", "6"}, at::zeros({7})));
}

TEST_CASE("safetensors examples: what is refused") {
  CHECK_MESSAGE_HOLDS(DataError, "and targets [7, 1, 1], expected [N, ...] and [N] or [N, k]",
                      read(json::object(), {}, at::zeros({7, 1, 1}, at::kLong)));
  CHECK_MESSAGE_HOLDS(DataError, "d.safetensors: one value, expected a class, or a share for each of two",
                      check_targets(read(json::object(), {}, at::zeros({7, 1}, at::kLong)), TargetKind::kClasses));
  auto shares = at::full({7, 2}, 0.5);
  shares[5][1] = 0.25;
  CHECK_MESSAGE_HOLDS(DataError, "the targets of row 5 of ",
                      check_targets(read(json::object(), {}, shares), TargetKind::kClasses));
  CHECK_MESSAGE_HOLDS(DataError, "d.safetensors: shares that sum to 0.75, expected 1",
                      check_targets(read(json::object(), {}, shares), TargetKind::kClasses));
  CHECK_MESSAGE_HOLDS(DataError, "7 inputs, but 6 targets", read(json::object(), {}, at::zeros({6}, at::kLong)));
  CHECK_MESSAGE_HOLDS(DataError, "no examples", read(json::object(), {}, at::zeros({0}, at::kLong), at::zeros({0, 2})));
  auto inputs = at::zeros({7, 2}, at::kHalf);
  inputs[4][1] = INFINITY;
  CHECK_MESSAGE_HOLDS(DataError, "d.safetensors: the inputs of example 4 hold NaN or infinity",
                      read(json::object(), {}, at::zeros({7}, at::kLong), inputs));
  auto values = at::zeros({7}, at::kFloat);
  values[6] = NAN;
  CHECK_MESSAGE_HOLDS(DataError, "d.safetensors: the targets of example 6 hold NaN or infinity",
                      read(json::object(), {}, values));

  const Scratch scratch;
  ParameterSet tensors;
  tensors.add("inputs", at::zeros({2, 2}));
  tensors.add("labels", at::zeros({2}, at::kLong));
  write_safetensors(scratch / "d", tensors);
  CHECK_MESSAGE_HOLDS(DataError, "no tensor \"targets\", it holds: labels, inputs",
                      read_dataset({{"format", "safetensors"}, {"file", "d"}}, scratch.folder(), TargetKind::kClasses));
}

TEST_CASE("data table: keys are checked by name, with the nearest") {
  const auto refuse = [](const json& table, const std::string& part) {
    CHECK_MESSAGE_HOLDS(InvalidArgument, part, read_dataset(table, ".", TargetKind::kClasses));
  };
  refuse(json::array(), "data: the list of tables is empty");
  refuse(json::array({1}), "data: a list of tables is for models of texts");
  refuse(json::object(),
         fmt::format("data: key format is missing, expected one of {}", fmt::join(method_names<DataFormat>(), ", ")));
  refuse({{"images", "a"}}, "data: key format is missing");
  refuse({{"format", 3}}, "data: key format is missing");
  refuse({{"format", "idz"}}, "unknown data format \"idz\"; did you mean \"idx\"?");
  refuse({{"format", "idx:images=a"}}, "unknown option \"images\"");
  refuse({{"format", "idx"}, {"image", "a"}},
         "idx: unknown key \"image\"; did you mean \"images\"? known: images, labels, mean, std, classes, drop-labels, "
         "rows, skip, limit");
  refuse({{"format", "idx"}, {"images", "a"}}, "idx: key labels is missing, expected a path");
  refuse({{"format", "idx"}, {"images", ""}, {"labels", "b"}}, "idx: key images = \"\", expected a path");
  refuse({{"format", "idx"}, {"images", {"a"}}, {"labels", "b"}}, "idx: key images = [\"a\"], expected a path");
  refuse({{"format", "safetensors"}, {"fil", "a"}}, "did you mean \"file\"?");
}

TEST_CASE("data table: an absolute path stays as it is") {
  const Scratch scratch, elsewhere;
  const auto path = scratch.put("t.csv", "x,label\n1,0\n");
  const auto data =
      read_dataset({{"format", "csv"}, {"file", path.string()}}, elsewhere.folder(), TargetKind::kClasses);
  CHECK(data.files() == std::vector<std::filesystem::path>{path});
}

TEST_CASE("registry: every format lists its keys once, ending with those all have") {
  for (const auto& method : methods<DataFormat>()) {
    INFO(std::string(method.name));
    const auto keys = method.options("");
    REQUIRE(keys.size() >= 4);
    std::vector<std::string> names;
    for (const auto& key : keys) {
      names.push_back(key.name);
      CHECK(!key.value.empty());
      CHECK(!key.bound.empty());
      CHECK(!key.help.empty());
    }
    CHECK(names[names.size() - 5] == "classes");
    CHECK(names[names.size() - 4] == "drop-labels");
    CHECK(names[names.size() - 3] == "rows");
    CHECK(names[names.size() - 2] == "skip");
    CHECK(names.back() == "limit");
    std::sort(names.begin(), names.end());
    CHECK(std::adjacent_find(names.begin(), names.end()) == names.end());
    json table{{"format", method.name}, {"no-such-key", 1}};
    CHECK_MESSAGE_HOLDS(InvalidArgument, std::string(method.name) + ": unknown key \"no-such-key\"",
                        read_dataset(table, ".", TargetKind::kClasses));
  }
  CHECK(methods<DataFormat>()[1].options("")[2].value == "1");  // label-bytes
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
