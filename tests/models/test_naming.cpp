#include <ATen/ATen.h>

#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/random.h"
#include "whence/models/naming.h"

using namespace whence;

namespace {

/// Linear layers NAME.weight [shape], NAME.bias, in this order.
ParameterSet layers(const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& list) {
  ParameterSet out;
  Random random(1);
  for (const auto& [name, shape] : list) {
    out.add(name + ".bias", random.normal({shape[0]}));  // files are sorted by name
    out.add(name + ".weight", random.normal(shape));
  }
  return out;
}

const ParameterSet kMlp = layers({{"body.0", {6, 8}}, {"body.1", {6, 6}}, {"body.2", {6, 6}}, {"head", {3, 6}}});

NamedTensors named(const ParameterSet& expected, const ParameterSet& found, const Renaming& rename = {}) {
  return with_expected_names(expected, found, rename, true, "w.safetensors");
}

}  // namespace

TEST_SUITE_BEGIN("models");

TEST_CASE("nn.Sequential's numbers are an order, 2 before 10, and what went where is said") {
  const auto found = layers({{"0", {6, 8}}, {"10", {6, 6}}, {"12", {3, 6}}, {"2", {6, 6}}});
  const auto out = named(kMlp, found);
  CHECK(at::equal(out.tensors.at("body.1.weight"), found.at("2.weight")));
  CHECK(at::equal(out.tensors.at("body.2.weight"), found.at("10.weight")));
  CHECK(at::equal(out.tensors.at("head.bias"), found.at("12.bias")));
  CHECK(out.note.find("0 is body.0, 2 is body.1, 10 is body.2, 12 is head") != out.note.npos);
  CHECK(named(kMlp, kMlp).note.empty());
}

TEST_CASE("prefixes, words and convolutions") {
  ParameterSet wrapped;
  for (std::size_t i = 0; i < kMlp.size(); ++i) {
    wrapped.add("module._orig_mod." + kMlp.names()[i], kMlp.values()[i]);
  }
  const auto out = named(kMlp, wrapped);
  CHECK(at::equal(out.tensors.at("head.weight"), kMlp.at("head.weight")));
  CHECK(out.note.find("names are read without \"module._orig_mod.\"") != out.note.npos);
  const auto expected =
      layers({{"body.0", {4, 1, 3, 3}}, {"body.1", {8, 4, 3, 3}}, {"body.2", {5, 72}}, {"head", {3, 5}}});
  const auto net = layers({{"net.classifier", {3, 5}},
                           {"net.conv1", {4, 1, 3, 3}},
                           {"net.conv2", {8, 4, 3, 3}},
                           {"net.dense", {5, 72}}});  // no order, but every shape is its own
  const auto convnet = named(expected, net);
  CHECK(at::equal(convnet.tensors.at("head.weight"), net.at("net.classifier.weight")));
  CHECK(at::equal(convnet.tensors.at("body.1.weight"), net.at("net.conv2.weight")));
}

TEST_CASE("what may be one or the other is refused with what to type, and rename says it") {
  const auto found = layers({{"in", {6, 8}}, {"middle", {6, 6}}, {"out", {3, 6}}, {"second", {6, 6}}});
  CHECK_MESSAGE_HOLDS(DataError,
                      "the layers middle, second have one shape (bias [6], weight [6, 6]), and their names do not say "
                      "which comes first: say it in the stage, as rename = { \"middle\" = \"body.1\", \"second\" = "
                      "\"body.2\" }",
                      named(kMlp, found));
  const auto out = named(kMlp, found, {{"second", "body.1"}});  // the rest follows by shape
  CHECK(at::equal(out.tensors.at("body.1.weight"), found.at("second.weight")));
  CHECK(at::equal(out.tensors.at("body.2.weight"), found.at("middle.weight")));
  CHECK(at::equal(out.tensors.at("head.weight"), found.at("out.weight")));
  const auto exact = named(kMlp, found,
                           {{"second.weight", "body.1.weight"},
                            {"second.bias", "body.1.bias"},
                            {"middle", "body.2"},
                            {"in", "body.0"},
                            {"out", "head"}});
  CHECK(at::equal(exact.tensors.at("body.1.bias"), found.at("second.bias")));
  CHECK_MESSAGE_HOLDS(DataError, "rename: unknown tensor \"secnd\"", named(kMlp, found, {{"secnd", "body.1"}}));
  CHECK_MESSAGE_HOLDS(DataError, "rename gives \"in.bias\" the name \"body.7.bias\"",
                      named(kMlp, found, {{"in", "body.7"}}));
  CHECK_MESSAGE_HOLDS(DataError, "two tensors the name \"head.bias\"",
                      named(kMlp, found, {{"out", "head"}, {"in", "head"}}));
}

TEST_CASE("layers that are not the model's are listed with the model that they look like") {
  CHECK_MESSAGE_HOLDS(DataError, "they look like [model] spec = \"mlp:widths=7/5\"",
                      named(kMlp, layers({{"fc1", {7, 8}}, {"fc2", {5, 7}}, {"fc3", {3, 5}}})));
  CHECK_MESSAGE_HOLDS(DataError, "spec = \"convnet:channels=4,kernel=5,dense=6\"",
                      named(kMlp, layers({{"0", {4, 1, 5, 5}}, {"4", {6, 36}}, {"6", {3, 6}}})));
  CHECK_MESSAGE_HOLDS(DataError, "say which is which in the stage",
                      named(kMlp, layers({{"a", {7, 8}}, {"b", {3, 3}}})));
}

TEST_SUITE_END();
