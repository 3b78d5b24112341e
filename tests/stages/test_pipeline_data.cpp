// What the data tables of a pipeline take from each other where they do not say.
#include <ATen/ATen.h>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/random.h"
#include "whence/data/safetensors.h"
#include "whence/stages/pipeline.h"

using namespace whence;
using test::Scratch;

namespace {

/// A pipeline of a stage for each of `training`, and `queries`.
Pipeline pipeline(const Scratch& scratch, const std::vector<std::string>& training, const std::string& queries) {
  std::string text = "[model]\nspec = \"mlp:widths=2\"\n";
  for (const auto& table : training) {
    const auto name = "s" + std::to_string(text.size());
    text +=
        "[[stage]]\nname = \"" + name + "\"\ntrain = { " + table + " }\ncheckpoint = \"" + name + ".safetensors\"\n";
  }
  scratch.put("p.toml", text + "[queries.test]\ndata = { " + queries + " }\n");
  return {scratch / "p.toml", {.dtype = at::kDouble}};
}

const std::string kTensors = "format = \"safetensors\", file = \"x.safetensors\"";
const std::string kCifar = "format = \"cifar\", file = \"x.bin\"";
const std::string kScaled = ", mean = [0.5], std = [0.25, 0.5, 2]";

/// Two images of a CIFAR batch, in both formats.
void write_images(const Scratch& scratch) {
  std::string records;
  ParameterSet tensors;
  tensors.add("inputs", at::ones({2, 3, 32, 32}) * 0.2);
  tensors.add("targets", at::arange(2));
  write_safetensors(scratch / "x.safetensors", tensors);
  for (char label = 0; label < 2; ++label) {
    records += label + std::string(3072, 51);  // 0.2 of 255
  }
  scratch.put("x.bin", records);
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("queries take what was done to the channels of the training data, and may not say otherwise") {
  const Scratch scratch;
  write_images(scratch);
  const auto first_pixel = [](const Dataset& data, std::int64_t channel) {
    return data.batch(0, 1).inputs[0][channel][0][0].item<double>();
  };
  for (const auto& table : {kTensors, kCifar}) {
    const auto silent = pipeline(scratch, {table + kScaled}, table).queries("test");
    CHECK(first_pixel(silent, 0) == doctest::Approx(-1.2));
    CHECK(first_pixel(silent, 2) == doctest::Approx(-0.15));
  }
  CHECK(pipeline(scratch, {kCifar + kScaled}, kCifar + ", mean = [0.5, 0.5, 0.5]").queries("test").size() == 2);
  const auto refused = [&](const std::string& training, const std::string& queries) {
    return pipeline(scratch, {training}, queries).queries("test");
  };
  CHECK_MESSAGE_HOLDS(InvalidArgument, "[queries.test]: mean = [0.4], std = [0.25,0.5,2], and stage s",
                      refused(kCifar + kScaled, kCifar + ", mean = [0.4]"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "[queries.test]: mean = [0.5], std = [0.25,0.5,2], and stage s",
                      refused(kCifar, kCifar + kScaled));
  // in another format they may be stored as the model takes them
  CHECK(first_pixel(refused(kCifar + kScaled, kTensors + ", mean = [0], std = [1]"), 0) == doctest::Approx(0.2));
  const auto inherits = pipeline(scratch, {kCifar + kScaled}, kTensors);
  CHECK(first_pixel(inherits.queries("test"), 0) == doctest::Approx(-1.2));
  CHECK(inherits.notes().back().find("mean = [0], std = [1] says that they are stored so") != std::string::npos);
}

TEST_CASE("a later stage says what is done to its channels where the one before does") {
  const Scratch scratch;
  write_images(scratch);
  CHECK_MESSAGE_HOLDS(InvalidArgument, "has mean = [0.5], std = [0.25,0.5,2]: give the same, or mean = [0]",
                      pipeline(scratch, {kCifar + kScaled, kCifar}, kCifar).training_data(1));
  CHECK(pipeline(scratch, {kCifar + kScaled, kCifar + ", mean = [0]"}, kCifar).training_data(1).size() == 2);
  CHECK(pipeline(scratch, {kCifar, kCifar}, kCifar).training_data(1).size() == 2);
}

TEST_CASE("queries are labelled by the column of the last stage") {
  const Scratch scratch;
  scratch.put("t.csv", "x,colour,shape\n1,red,round\n2,blue,flat\n");
  const std::string table = "format = \"csv\", file = \"t.csv\"";
  const auto chain = pipeline(
      scratch, {table + ", input = [\"x\"], label = \"colour\"", table + ", input = [\"x\"], label = \"shape\""},
      table);
  CHECK(chain.queries("test").classes() == std::vector<std::string>{"flat", "round"});
  CHECK(at::equal(chain.queries("test").targets(), at::tensor({1, 0}, at::kLong)));
}

TEST_CASE("as many images go through a model at a time as the graph of a second derivative leaves room for") {
  const Scratch scratch;
  write_images(scratch);
  const auto at_once = [&](const std::string& spec) {
    scratch.put("p.toml", "[model]\nspec = \"" + spec + "\"\n[[stage]]\nname = \"a\"\ntrain = { " + kTensors +
                              " }\ncheckpoint = \"a.safetensors\"\n");
    return Pipeline(scratch / "p.toml", {.dtype = at::kDouble, .batch_size = 500})
        .untrained(0, {})
        .objective.batch_size();
  };
  CHECK(at_once("mlp:widths=2") == 500);
  // outputs of its layers, in float64: 32 x 32 of 64 channels, 16 x 16 of as many, each a few times
  const auto wide = at_once("convnet:channels=64/64,kernel=3");
  CHECK(wide > 20);
  CHECK(wide < 400);
}

TEST_SUITE_END();
