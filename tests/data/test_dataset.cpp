#include <set>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/data/dataset.h"
#include "whence/data/dataset_digest.h"

namespace whence::test {
namespace {

Dataset::Contents bytes_contents() {
  Dataset::Contents contents;
  contents.inputs = at::arange(12, at::kByte).view({4, 3});
  contents.targets = at::tensor({1, 0, 2, 1}, at::kLong);
  contents.ids = at::tensor({10, 11, 15, 20}, at::kLong);
  contents.scale = 1.0 / 255;
  contents.classes = {"a", "b", "c"};
  return contents;
}

Dataset::Contents values_contents() {
  Dataset::Contents contents;
  contents.inputs = at::arange(8, at::kDouble).view({4, 2});
  contents.targets = at::arange(4, at::kFloat).view({4, 1}) / 3;
  contents.ids = at::arange(4, at::kLong);
  return contents;
}

TEST_SUITE_BEGIN("data");

TEST_CASE("dataset: batches are scaled, with ids and rows") {
  const Dataset data(bytes_contents());
  CHECK(data.size() == 4);
  CHECK(data.outputs() == 3);
  CHECK(data.input_shape() == std::vector<std::int64_t>{3});
  CHECK(data.target_kind() == TargetKind::kClasses);
  const auto batch = data.batch(1, 3);
  CHECK(batch.size() == 2);
  CHECK((batch.inputs.scalar_type() == at::kDouble));
  CHECK(relative_error(batch.inputs, at::arange(3, 9, at::kDouble).view({2, 3}) / 255) < Tolerance::kSameAlgebra);
  CHECK(at::equal(batch.targets, at::tensor({0, 2}, at::kLong)));
  CHECK(at::equal(batch.ids, at::tensor({11, 15}, at::kLong)));
  CHECK(at::equal(batch.rows, at::tensor({1, 2}, at::kLong)));

  const auto rows = at::tensor({3, 0, 3}, at::kLong);
  const auto picked = data.batch(rows);
  CHECK(at::equal(picked.inputs, data.batch(0, 4).inputs.index_select(0, rows)));
  CHECK(at::equal(picked.targets, at::tensor({1, 1, 1}, at::kLong)));
  CHECK(at::equal(picked.ids, at::tensor({20, 10, 20}, at::kLong)));
  CHECK(at::equal(picked.rows, rows));
  CHECK(data.batch(2, 2).size() == 0);
}

TEST_CASE("dataset: to() converts from what is stored, and take() keeps ids and type") {
  const Dataset data(bytes_contents());
  const auto narrow = data.to(at::kFloat, at::kCPU);
  CHECK((narrow.batch(0, 4).inputs.scalar_type() == at::kFloat));
  CHECK(relative_error(narrow.batch(0, 4).inputs, data.batch(0, 4).inputs) < 1e-7);
  CHECK(at::equal(narrow.to(at::kDouble, at::kCPU).batch(0, 4).inputs, data.batch(0, 4).inputs));
  const auto taken = narrow.take(at::tensor({2, 1}, at::kLong));
  CHECK(taken.size() == 2);
  CHECK(taken.classes() == data.classes());
  CHECK(at::equal(taken.ids(), at::tensor({15, 11}, at::kLong)));
  CHECK(at::equal(taken.targets(), at::tensor({2, 0}, at::kLong)));
  CHECK(at::equal(taken.batch(0, 2).inputs, narrow.batch(at::tensor({2, 1}, at::kLong)).inputs));
  CHECK(at::equal(taken.batch(0, 2).rows, at::tensor({0, 1}, at::kLong)));
  CHECK(at::equal(taken.to(at::kDouble, at::kCPU).batch(0, 1).inputs, data.batch(2, 3).inputs));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "batches of Long, expected a floating type", data.to(at::kLong, at::kCPU));
}

TEST_CASE("dataset: values come in the dataset's type, and nothing to convert means views") {
  const auto contents = values_contents();
  const Dataset data(contents);
  CHECK(data.target_kind() == TargetKind::kValues);
  CHECK(data.outputs() == 1);
  const auto batch = data.batch(1, 3);
  CHECK((batch.targets.scalar_type() == at::kDouble));
  CHECK(batch.inputs.const_data_ptr() == static_cast<const double*>(contents.inputs.const_data_ptr()) + 2);
  const auto floats = data.to(at::kFloat, at::kCPU);
  CHECK(floats.batch(0, 4).inputs.const_data_ptr() == floats.batch(0, 2).inputs.const_data_ptr());  // converted once
  CHECK(floats.batch(0, 4).targets.const_data_ptr() == contents.targets.const_data_ptr());
}

TEST_CASE("dataset: what is too large to keep is converted batch by batch, to the same numbers") {
  Dataset::Contents contents;
  constexpr std::int64_t kWide = 1 << 14;
  contents.inputs =
      at::arange(kWide, at::kLong).remainder(251).to(at::kByte).expand({kWide, kWide});  // 2 GiB as float64
  contents.targets = at::zeros({kWide}, at::kLong);
  contents.ids = at::arange(kWide, at::kLong);
  contents.scale = 0.5;
  contents.classes = {"0"};
  const auto data = Dataset(contents).to(at::kDouble, at::kCPU);
  const auto expected = at::arange(kWide, at::kLong).remainder(251).to(at::kDouble) * 0.5;
  CHECK(at::equal(data.batch(7, 9).inputs[1], expected));
  CHECK(at::equal(data.batch(at::tensor({kWide - 1}, at::kLong)).inputs[0], expected));
}

TEST_CASE("dataset: its digest knows everything that batches are made of, and nothing else") {
  using Contents = Dataset::Contents;
  const auto of = [](Contents contents, auto change) {
    change(contents);
    return dataset_digest(Dataset(contents));
  };
  const auto same = [](Contents&) {};
  const auto plus = [](at::Tensor& x, std::int64_t row) {
    x = x.clone();
    x[row] += 1;
  };
  const auto bytes = of(bytes_contents(), same);
  CHECK(bytes.size() == 64);
  const Dataset data(bytes_contents());
  CHECK(dataset_digest(data) == bytes);
  CHECK(dataset_digest(data.to(at::kFloat, at::kCPU)) != bytes);  // other numbers
  CHECK(dataset_digest(data.without_packing()) == bytes);
  CHECK(dataset_digest(data.take(at::arange(4))) == bytes);
  CHECK(dataset_digest(data.take(at::arange(3))) != bytes);
  CHECK(of(bytes_contents(), [](Contents& c) { c.files = {"elsewhere"}; }) == bytes);
  std::vector<std::string> digests{bytes, of(values_contents(), same)};
  for (std::int64_t row = 0; row < 4; ++row) {  // the last as well as the first
    digests.push_back(of(bytes_contents(), [&](Contents& c) { plus(c.inputs, row); }));
    digests.push_back(of(bytes_contents(), [&](Contents& c) { plus(c.ids, row); }));
    digests.push_back(of(bytes_contents(), [&](Contents& c) { c.targets[row] = (c.targets[row] + 1).remainder(3); }));
    digests.push_back(of(values_contents(), [&](Contents& c) { plus(c.targets, row); }));
  }
  digests.push_back(of(bytes_contents(), [](Contents& c) { c.scale = 1; }));
  digests.push_back(of(bytes_contents(), [](Contents& c) { c.mean = at::ones({1, 3}, at::kDouble); }));
  digests.push_back(of(bytes_contents(), [](Contents& c) { c.deviation = at::full({1, 3}, 2, at::kDouble); }));
  digests.push_back(of(bytes_contents(), [](Contents& c) { c.classes = {"a", "c", "b"}; }));

  Contents texts;
  texts.ids = at::arange(2);
  texts.texts.tokens = at::tensor({1, 2, 3, 4, 5}, at::kInt);
  texts.texts.begins = at::tensor({0, 2}, at::kLong);
  texts.texts.lengths = at::tensor({2, 3}, at::kLong);
  texts.texts.targets = at::tensor({2, -1, 4, 5, -1}, at::kInt);
  texts.texts.vocabulary = 6;
  digests.push_back(of(texts, same));
  for (std::int64_t place = 0; place < 5; ++place) {
    digests.push_back(of(texts, [&](Contents& c) { plus(c.texts.tokens, place), c.texts.tokens.remainder_(6); }));
    digests.push_back(of(texts, [&](Contents& c) { plus(c.texts.targets, place), c.texts.targets.remainder_(6); }));
  }
  digests.push_back(of(texts, [](Contents& c) { c.texts.vocabulary = 7; }));
  digests.push_back(of(texts, [](Contents& c) { c.predicted = TargetKind::kMaskedTokens; }));
  digests.push_back(of(texts, [](Contents& c) { c.texts.types = at::zeros({5}, at::kByte); }));
  digests.push_back(of(texts, [](Contents& c) { c.texts.lengths = at::tensor({2, 2}, at::kLong); }));
  CHECK(std::set<std::string>(digests.begin(), digests.end()).size() == digests.size());
}

TEST_CASE("dataset: contents that do not fit are refused") {
  const auto refusal = [](auto change) {
    auto contents = bytes_contents();
    change(contents);
    return message_of<InvalidArgument>([&] { Dataset{contents}; });
  };
  const auto holds = [](const std::string& text, const std::string& part) {
    CHECK_MESSAGE(text.find(part) != text.npos, "expected \"", part, "\" in \"", text, "\"");
  };
  using Contents = Dataset::Contents;
  CHECK(refusal([](Contents&) {}).empty());
  holds(refusal([](Contents& c) { c.targets = c.targets.slice(0, 0, 3); }),
        "targets [3] of Long, expected int64 [N] for 4");
  holds(refusal([](Contents& c) { c.targets = c.targets.to(at::kDouble); }), "of Double, expected int64 [N]");
  holds(refusal([](Contents& c) { c.classes.clear(); }), "expected floating [N, k]");
  holds(refusal([](Contents& c) { c.ids = c.ids.slice(0, 1); }), "ids [3] of Long, expected int64 [4]");
  holds(refusal([](Contents& c) { c.targets[1] = 3; }), "class number 3, expected one of 0 to 2");
  holds(refusal([](Contents& c) { c.targets[1] = -1; }), "class number -1");
  holds(refusal([](Contents& c) { c.scale = NAN; }), "scale nan");
  holds(refusal([](Contents& c) { c.inputs = at::Tensor(); }), "are needed");
  holds(refusal([](Contents& c) {
          c.inputs = c.inputs.to(at::kFloat).clone();
          c.inputs[2][1] = NAN;
        }),
        "the inputs of example 15 are not finite");

  auto infinite = values_contents();
  infinite.targets[3] = INFINITY;
  CHECK_MESSAGE_HOLDS(InvalidArgument, "the targets of example 3 are not finite", Dataset{infinite});

  const Dataset data(bytes_contents());
  CHECK_MESSAGE_HOLDS(InvalidArgument, "examples 2 to 5, expected within 0 to 4", data.batch(2, 5));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "row 4, expected one of 0 to 3", data.batch(at::tensor({0, 4}, at::kLong)));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "row -1", data.take(at::tensor({-1}, at::kLong)));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "of Double, expected int64", data.take(at::zeros({1}, at::kDouble)));
  CHECK(Dataset().size() == 0);
}

TEST_CASE("dataset: a NaN deep inside large inputs is found in its row") {
  auto contents = values_contents();
  contents.inputs = at::zeros({1000, 3000}, at::kFloat);
  contents.inputs[777][2999] = NAN;
  contents.targets = at::zeros({1000, 1}, at::kFloat);
  contents.ids = at::arange(5000, 6000, at::kLong);
  CHECK_MESSAGE_HOLDS(InvalidArgument, "the inputs of example 5777 are not finite", Dataset{contents});
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
