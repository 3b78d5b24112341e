#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "models/exports.h"
#include "support/near.h"
#include "support/scratch.h"
#include "support/stored_zip.h"
#include "whence/core/files.h"
#include "whence/data/safetensors.h"
#include "whence/models/exported/detail/zip.h"
#include "whence/stages/pipeline.h"

using namespace whence;
using test::Scratch;
namespace fs = std::filesystem;

namespace {

/// An exported model with other words in what the file tells of itself.
void put_changed(const Scratch& scratch, const std::string& fixture,
                 const std::vector<std::pair<std::string, std::string>>& words) {
  const whence::detail::Zip zip(test::kExports / fixture);
  std::vector<std::pair<std::string, std::string>> members;
  for (const auto& name : zip.names()) {
    auto data = zip.text(name);
    for (const auto& [from, to] : words) {
      if (const auto place = data.find(from); name == "extra/whence.json" && place != data.npos) {
        data.replace(place, from.size(), to);
      }
    }
    members.emplace_back("m/" + name, data);
  }
  scratch.put("m.pt2", test::stored_zip(members));
}

/// A model of images [1, 5, 5] whose file tells that they were scaled by 0.5 and 0.25, and three black and white
/// images.
void put_scaled_model(const Scratch& scratch) {
  put_changed(scratch, "residual.pt2", {{"\"mean\": null", "\"mean\": [0.5]"}, {"\"std\": null", "\"std\": [0.25]"}});
  std::string images("\0\0\x08\x03\0\0\0\x03\0\0\0\x05\0\0\0\x05", 16), labels("\0\0\x08\x01\0\0\0\x03\0\1\1", 11);
  for (int i = 0; i < 75; ++i) {
    images.push_back(i % 2 == 0 ? '\0' : '\xff');
  }
  scratch.put("images", images);
  scratch.put("labels", labels);
}

Pipeline with(const Scratch& scratch, const std::string& more) {
  const std::string data = "{ format = \"idx\", images = \"images\", labels = \"labels\" }";
  auto train = data;
  train.insert(train.size() - 2, more);
  scratch.put("p.toml", "[model]\nexported = \"m.pt2\"\n[[stage]]\nname = \"a\"\ntrain = " + train +
                            "\ncheckpoint = \"m.pt2\"\n[queries.q]\ndata = " + data + "\n");
  return Pipeline(scratch / "p.toml", {.dtype = at::kDouble});
}

/// The first two values of the first image.
std::vector<double> values(const Dataset& data) {
  const auto x = data.batch(0, 1).inputs.flatten();
  return {x[0].item<double>(), x[1].item<double>()};
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("images are scaled as an exported model says, unless their table says otherwise, which is told") {
  const Scratch scratch;
  put_scaled_model(scratch);
  const auto silent = with(scratch, "");
  CHECK(values(silent.training_data(0)) == std::vector<double>{-2, 2});
  CHECK(values(silent.queries("q")) == std::vector<double>{-2, 2});
  CHECK(silent.notes().empty());
  const auto same = with(scratch, ", mean = [0.5], std = [0.25]");
  CHECK(values(same.training_data(0)) == std::vector<double>{-2, 2});
  CHECK(same.notes().empty());
  const auto other = with(scratch, ", mean = [0], std = [1]");
  CHECK(values(other.training_data(0)) == std::vector<double>{0, 1});
  CHECK(values(other.queries("q")) == std::vector<double>{0, 1});
  REQUIRE(other.notes().size() == 1);
  CHECK(other.notes()[0].find("was exported with mean = [0.5], std = [0.25]") != std::string::npos);
}

TEST_CASE("a first stage tunes what an exported model holds") {
  const Scratch scratch;
  put_scaled_model(scratch);
  const auto stage = [&](const char* tuning) {
    scratch.put("p.toml", fmt::format("[model]\nexported = \"m.pt2\"\n[[stage]]\nname = \"a\"\n"
                                      "train = {{ format = \"idx\", images = \"images\", labels = \"labels\" }}\n"
                                      "tuning = \"{}\"\ncheckpoint = \"a.safetensors\"\n",
                                      tuning));
    return Pipeline(scratch / "p.toml", {.dtype = at::kDouble}).untrained(1)[0];
  };
  const auto full = stage("full");
  const auto batch = full.objective.data().batch(0, 3);
  const auto held = full.objective.output(full.theta, full.parent, batch);
  for (const char* tuning : {"lora:rank=1", "bias", "full:proximity=0.1"}) {
    CAPTURE(tuning);
    const auto tuned = stage(tuning);
    CHECK(tuned.objective.parent_layout().names() == full.objective.trained().names());
    CHECK(test::relative_error(tuned.objective.output(tuned.theta, tuned.parent, batch), held) <
          test::Tolerance::kSameAlgebra);
  }
}

TEST_CASE("labels are an exported model's outputs by their places, all or some of them; words must be listed") {
  const Scratch scratch;
  fs::copy(test::kExports / "mlp.pt2", scratch / "m.pt2");  // three outputs
  const auto with_labels = [&](const std::string& first, const std::string& second, const std::string& keys = "") {
    scratch.put("d.csv", fmt::format("a,b,c,d,label\n1,2,3,4,{}\n0,1,0,2,{}\n", first, second));
    scratch.put("p.toml", fmt::format("[model]\nexported = \"m.pt2\"\n[[stage]]\nname = \"a\"\ntrain = {{ format = "
                                      "\"csv\", file = \"d.csv\"{} }}\ncheckpoint = \"m.pt2\"\n",
                                      keys));
    return Pipeline(scratch / "p.toml", {.dtype = at::kDouble});
  };
  const auto trained_on = [&](const std::string& first, const std::string& second, const std::string& head = "") {
    with_labels(first, second);
    auto text = read_text(scratch / "p.toml");
    text.replace(text.find("checkpoint = \"m.pt2\""), 20,
                 "checkpoint = \"run/a.safetensors\"\nloss = \"cross-entropy\"");
    text.insert(text.find("[[stage]]"), head);
    scratch.put("p.toml", text);
    return Pipeline(scratch / "p.toml", {.dtype = at::kDouble});
  };
  CHECK(trained_on("0", "1").training_data(0).classes() == std::vector<std::string>{"0", "1", "2"});
  CHECK_FALSE(trained_on("0", "1").training_data(0).table()->standardize);  // weights that were made without
  CHECK(trained_on("cat", "dog").training_data(0).outputs() == 2);          // of which the file says nothing
  const auto anew = trained_on("0", "1", "head = \"2\"\n");
  CHECK(anew.training_data(0).outputs() == 2);
  CHECK(fmt::format("{}", fmt::join(anew.notes(), "\n")).find("m.pt2 has 3 outputs, and the examples have 2 classes") !=
        std::string::npos);
  const auto some = with_labels("0", "1");
  CHECK(some.training_data(0).classes() == std::vector<std::string>{"0", "1", "2"});
  CHECK(some.load().size() == 1);
  const auto named = with_labels("dog", "cat", ", classes = [\"dog\", \"cat\", \"fox\"]");
  CHECK(named.training_data(0).targets()[1].item<std::int64_t>() == 1);
  for (const char* label : {"3", "dog"}) {
    const auto told = test::message_of<InvalidArgument>([&] { with_labels("0", label).training_data(0); });
    CHECK(told.find("m.pt2 has 3 outputs and does not say which class each is") != std::string::npos);
    CHECK(told.find("list all 3 classes in the order of the outputs: classes = [") != std::string::npos);
  }
}

TEST_CASE("labels that are numbers have the names that an exported model's file holds, before training and after") {
  const Scratch scratch;
  fs::copy(test::kExports / "named.pt2", scratch / "m.pt2");  // cat, dog, fox; one layer unused
  scratch.put("d.csv", "a,b,c,d,label\n1,2,3,4,2\n0,1,0,2,1\n2,1,0,1,1\n1,1,0,1,0\n");
  scratch.put("words.csv", "a,b,c,d,label\n1,2,3,4,fox\n0,1,0,2,cat\n");
  const auto with = [&](const std::string& checkpoint, const std::string& classes) {
    scratch.put(
        "p.toml",
        fmt::format("[model]\nexported = \"m.pt2\"\n[[stage]]\nname = \"a\"\ntrain = {{ format = \"csv\", file = "
                    "\"d.csv\", standardize = false{} }}\nloss = \"cross-entropy\"\noptimizer = "
                    "\"adam:learning-rate=0.01,epochs=1\"\ncheckpoint = \"{}\"\n[queries.numbers]\ndata = {{ format "
                    "= \"csv\", file = \"d.csv\" }}\n[queries.words]\ndata = {{ format = \"csv\", file = "
                    "\"words.csv\" }}\n",
                    classes, checkpoint));
    return Pipeline(scratch / "p.toml", {.dtype = at::kDouble});
  };
  const auto numbers = [](const Dataset& data) {
    return std::vector<std::int64_t>(data.targets().const_data_ptr<std::int64_t>(),
                                     data.targets().const_data_ptr<std::int64_t>() + data.size());
  };
  const std::vector<std::string> names{"cat", "dog", "fox"};
  with("run/a.safetensors", "").train(0, {});
  for (const char* checkpoint : {"m.pt2", "run/a.safetensors", "run/new.safetensors"}) {
    CAPTURE(checkpoint);
    const auto pipeline = with(checkpoint, "");
    CHECK(pipeline.training_data(0).classes() == names);
    CHECK(numbers(pipeline.training_data(0)) == std::vector<std::int64_t>{2, 1, 1, 0});
    CHECK(numbers(pipeline.queries("numbers")) == std::vector<std::int64_t>{2, 1, 1, 0});
    CHECK(numbers(pipeline.queries("words")) == std::vector<std::int64_t>{2, 0});
    CHECK(fmt::format("{}", fmt::join(pipeline.notes(), "\n"))
              .find("forward does not use left.weight, left.bias: each stays") != std::string::npos);
    const auto some = with(checkpoint, ", classes = [\"fox\", \"dog\"]");
    CHECK(some.training_data(0).classes() == names);
    CHECK(numbers(some.training_data(0)) == std::vector<std::int64_t>{2, 1, 1});
  }
  const auto trained = with("run/a.safetensors", "").load()[0];
  CHECK(trained.objective.trained().names() == std::vector<std::string>{"fc.weight", "fc.bias"});
}

TEST_CASE("a new head for some of an exported model's classes, by name where labels are numbers") {
  const Scratch scratch;
  fs::copy(test::kExports / "named.pt2", scratch / "m.pt2");  // cat, dog, fox
  scratch.put("d.csv", "a,b,c,d,label\n1,2,3,4,2\n0,1,0,2,1\n2,1,0,1,0\n1,1,0,1,0\n");
  scratch.put("words.csv", "a,b,c,d,label\n1,2,3,4,fox\n0,1,0,2,cat\n");
  const auto with = [&](const std::string& classes) {
    scratch.put(
        "p.toml",
        fmt::format("[model]\nexported = \"m.pt2\"\nhead = \"fc\"\n[[stage]]\nname = \"a\"\ntrain = {{ format "
                    "= \"csv\", file = \"d.csv\", classes = {} }}\nloss = \"cross-entropy\"\noptimizer = "
                    "\"adam:epochs=1\"\ncheckpoint = \"run/a.safetensors\"\n[queries.numbers]\ndata = {{ format "
                    "= \"csv\", file = \"d.csv\", classes = [\"cat\"] }}\n[queries.words]\ndata = {{ format = "
                    "\"csv\", file = \"words.csv\" }}\n[queries.all]\ndata = {{ format = \"csv\", file = \"d.csv\" "
                    "}}\n",
                    classes));
    return Pipeline(scratch / "p.toml", {.dtype = at::kDouble});
  };
  const auto numbers = [](const Dataset& data) {
    return std::vector<std::int64_t>(data.targets().const_data_ptr<std::int64_t>(),
                                     data.targets().const_data_ptr<std::int64_t>() + data.size());
  };
  for (const char* classes : {"[\"fox\", \"cat\"]", "[2, \"cat\"]", "[\"fox\", \"cat\"]"}) {  // last: trained
    CAPTURE(classes);
    const auto pipeline = with(classes);
    CHECK(pipeline.training_data(0).classes() == std::vector<std::string>{"fox", "cat"});
    CHECK(numbers(pipeline.training_data(0)) == std::vector<std::int64_t>{0, 1, 1});
    CHECK(numbers(pipeline.queries("numbers")) == std::vector<std::int64_t>{1, 1});
    CHECK(numbers(pipeline.queries("words")) == std::vector<std::int64_t>{0, 1});
    CHECK_THROWS_WITH_AS(pipeline.queries("all"), doctest::Contains("has label 1, expected one of 2, 0: fox, cat"),
                         DataError);
    if (classes[1] == '2') {
      pipeline.train(0, {});
    }
  }
  CHECK(with("[\"fox\", \"cat\"]").load()[0].objective.data().outputs() == 2);
  // exported anew with its outputs' names in another order: the stage was trained when 2 was fox
  put_changed(scratch, "named.pt2", {{"\"cat\", \"dog\", \"fox\"", "\"fox\", \"dog\", \"cat\""}});
  CHECK(numbers(with("[\"fox\", \"cat\"]").training_data(0)) == std::vector<std::int64_t>{0, 1, 1});
  CHECK(numbers(with("[\"fox\", \"cat\"]").queries("numbers")) == std::vector<std::int64_t>{1, 1});
  fs::copy(test::kExports / "named.pt2", scratch / "m.pt2", fs::copy_options::overwrite_existing);
  fs::remove_all(scratch / "run");
  CHECK_THROWS_WITH_AS(with("[\"fox\", \"cta\"]").training_data(0),
                       doctest::Contains("unknown class \"cta\"; did you mean \"cat\"?"), InvalidArgument);
  CHECK_THROWS_WITH_AS(with("[\"mouse\"]").training_data(0), doctest::Contains("has label mouse, only 0, 1, 2"),
                       InvalidArgument);
  CHECK(with("[2, 0]").training_data(0).classes() == std::vector<std::string>{"2", "0"});  // of whatever data
}

TEST_CASE("inputs that do not fit an exported model are told before labels and channels, by name and file") {
  const Scratch scratch;
  put_scaled_model(scratch);  // [1, 5, 5] in two classes
  const auto told = [&](const at::Tensor& inputs, const std::string& more = "") {
    ParameterSet tensors;
    tensors.add("inputs", inputs);
    tensors.add("targets", at::arange(3, at::kLong) + 5);
    write_safetensors(scratch / "d.safetensors", tensors);
    scratch.put("p.toml",
                "[model]\nexported = \"m.pt2\"\n[[stage]]\nname = \"a\"\ntrain = { format = \"safetensors\", file = "
                "\"d.safetensors\"" +
                    more + " }\ncheckpoint = \"m.pt2\"\n");
    return test::message_of<Error>([&] { Pipeline(scratch / "p.toml", {}).training_data(0); });
  };
  CHECK(told(at::zeros({3, 3, 4, 5}), ", mean = [1, 2]")
            .find("d.safetensors: examples of shape [3, 4, 5] for argument x of " + (scratch / "m.pt2").string() +
                  ", expected [1, 5, 5]") != std::string::npos);
  for (const auto& shape : std::vector<std::vector<std::int64_t>>{{3, 25}, {3, 5, 5}, {3, 5, 5, 1}}) {
    CHECK(told(at::zeros(shape)).find("example 0 has label 5, expected one of 0 to 1") != std::string::npos);
  }
  fs::remove(scratch / "m.pt2");
  fs::copy(test::kExports / "padded.pt2", scratch / "m.pt2");  // [2, 4, 5]
  CHECK(told(at::zeros({3, 4, 5, 2})).find("expected [2, 4, 5]: the same sizes in another order") != std::string::npos);

  fs::copy(test::kExports / "mlp.pt2", scratch / "t.pt2");  // 4 numbers
  scratch.put("d.csv", "a,b,c,label\n1,2,3,cat\n0,1,0,dog\n");
  scratch.put("p.toml",
              "[model]\nexported = \"t.pt2\"\n[[stage]]\nname = \"a\"\ntrain = { format = \"csv\", file = "
              "\"d.csv\" }\ncheckpoint = \"t.pt2\"\n");
  CHECK_THROWS_WITH_AS(Pipeline(scratch / "p.toml", {}).training_data(0),
                       doctest::Contains("d.csv: examples of shape [3] for argument input of"), InvalidArgument);

  fs::copy(test::kExports / "two.pt2", scratch / "two.pt2");  // x [3] and y [2]
  ParameterSet swapped;
  swapped.add("x", at::zeros({3, 2}));
  swapped.add("y", at::zeros({3, 3}));
  swapped.add("targets", at::zeros({3, 8}));
  write_safetensors(scratch / "swapped.safetensors", swapped);
  scratch.put("p.toml",
              "[model]\nexported = \"two.pt2\"\n[[stage]]\nname = \"a\"\nloss = \"squared-error\"\ntrain = { format = "
              "\"safetensors\", file = \"swapped.safetensors\" }\ncheckpoint = \"two.pt2\"\n");
  CHECK_THROWS_WITH_AS(Pipeline(scratch / "p.toml", {}).training_data(0),
                       doctest::Contains("examples of shape [2] for argument x of"), InvalidArgument);
}

TEST_SUITE_END();
