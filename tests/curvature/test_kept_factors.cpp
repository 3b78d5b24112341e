// What kfac and ekfac keep of a fit: found again where it is the same, gone on with where it stopped.
#include <filesystem>

#include "support/near.h"
#include "support/scratch.h"
#include "support/toy_chain.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/progress.h"
#include "whence/curvature/curvature.h"
#include "whence/data/safetensors.h"
#include "whence/data/sealed_safetensors.h"

using namespace whence;
using test::relative_error;
using test::Tolerance;

TEST_SUITE_BEGIN("curvature");

TEST_CASE("ekfac's factors are kept, found again and finished from where a fit stopped") {
  const auto folder = std::filesystem::temp_directory_path() / "whence-test-factors";
  std::filesystem::remove_all(folder);
  const auto stage = test::toy_chain({{"full", "cross-entropy"}}, "mlp:widths=4,activation=tanh", 1, 3, 5)[0];
  const auto x = Random(3).normal({3, count_entries(stage.theta)});
  const auto spec = "ekfac:factors=" + folder.string();
  const auto product = [&] {
    return create<Curvature>(spec)->operator_at({stage.objective, stage.theta, {}})->apply(x);
  };
  const auto expected = create<Curvature>("ekfac")->operator_at({stage.objective, stage.theta, {}})->apply(x);
  CHECK(at::equal(product(), expected));
  std::vector<std::filesystem::path> files(std::filesystem::directory_iterator(folder), {});
  REQUIRE(files.size() == 1);
  auto [kept, metadata] = read_sealed(files[0]);
  CHECK(metadata.at("phase") == "2");
  CHECK(at::equal(product(), expected));
  // a fit that stopped after the first of three batches of the second pass
  ParameterSet partial;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (!kept.names()[i].ends_with("values") || kept.names()[i].find("-values") != std::string::npos) {
      partial.add(kept.names()[i], kept.values()[i].clone());
    }
  }
  metadata["phase"] = "1";
  metadata["examples"] = "0";
  write_sealed(files[0], partial, metadata);
  CHECK(relative_error(product(), expected) < Tolerance::kSameAlgebra);
  // a bit that flipped in what is kept
  auto bytes = read_text(files[0]);
  bytes[bytes.size() - 5] = static_cast<char>(bytes[bytes.size() - 5] ^ 4);
  write_text(files[0], bytes);
  CHECK_THROWS_WITH_AS(product(), doctest::Contains("is not as whence wrote it"), DataError);
  CHECK(std::distance(std::filesystem::directory_iterator(folder), {}) == 1);
  std::filesystem::remove_all(folder);
}

TEST_CASE("kept factors are those of the data, the labels, the loss, the model, the weights and the options at hand") {
  const test::Scratch folder;
  const auto make = [](const char* model, const char* loss, auto change) {
    auto draws = Random(4);
    Dataset::Contents contents;
    contents.inputs = draws.normal({100, 3});  // more than are looked at by the way
    contents.targets = draws.normal({100, 3});
    contents.ids = at::arange(100);
    if (std::string(loss) == "cross-entropy") {
      contents.targets = contents.inputs.argmax(1);
      contents.classes = {"a", "b", "c"};
    }
    change(contents);
    const std::shared_ptr<const Model> net = create<Model>(model);
    const Dataset data(contents);
    auto start = Random(5);
    const auto theta = net->initial(data.input_shape(), data.outputs(), start).to(at::kDouble, at::kCPU);
    return Objective(net, create<Loss>(loss), create<Tuning>("full"), data, 0.1, theta, {}, 32);
  };
  const auto same = [](Dataset::Contents&) {};
  const auto tanh = "mlp:widths=4,activation=tanh";
  const auto one = make(tanh, "cross-entropy", same);
  const auto x = Random(3).normal({2, one.trained().entries()});
  const auto product = [&](const Objective& objective, const TensorList& theta, const std::string& spec) {
    return create<Curvature>(spec)->operator_at({objective, theta, {}})->apply(x);
  };
  const auto kept = ",factors=" + folder.folder().string();
  std::ptrdiff_t files = 0;
  const auto check = [&](const Objective& objective, const TensorList& theta, const std::string& spec, bool fitted) {
    files += fitted ? 1 : 0;
    CHECK(relative_error(product(objective, theta, spec + kept), product(objective, theta, spec)) <
          Tolerance::kSameAlgebra);
    CHECK(std::distance(std::filesystem::directory_iterator(folder.folder()), {}) == files);
  };
  const auto theta = one.trained().values();
  const std::string spec = "ekfac:labels=data";
  check(one, theta, spec, true);
  check(one, theta, spec, false);
  check(make(tanh, "cross-entropy", same), theta, spec, false);
  check(one.with_batch_size(7), theta, spec, false);
  check(make(tanh, "cross-entropy", [](auto& c) { c.inputs[99] *= -1; }), theta, spec, true);
  check(make(tanh, "cross-entropy",
             [](auto& c) { c.targets[99] = 2 - c.targets[99] - c.targets[99].eq(1).to(at::kLong); }),
        theta, spec, true);
  check(make(tanh, "squared-error", same), theta, spec, true);
  check(make("mlp:widths=4,activation=relu", "cross-entropy", same), theta, spec, true);
  check(one.with_weights(at::arange(100, at::kDouble)), theta, spec, true);
  auto moved = theta;
  moved[0] = moved[0] + 1e-3;
  check(one, moved, spec, true);
  check(one, theta, spec + ",examples=50", true);
  check(one, theta, "kfac:labels=data", true);
}

TEST_CASE("kept factors are those of what the stages before trained and handed on") {
  const test::Scratch folder;
  const std::string spec = "ekfac:labels=data", kept = ",factors=" + folder.folder().string();
  std::ptrdiff_t files = 0;
  const auto check = [&](const std::string& before, bool fitted) {
    CAPTURE(before);
    Chain chain;
    for (const auto& tuning : {std::string("full"), before, std::string("head")}) {
      chain.push_back(begin_stage({.name = tuning,
                                   .model = create<Model>("mlp:widths=4,activation=tanh"),
                                   .loss = create<Loss>("squared-error"),
                                   .tuning = create<Tuning>(tuning),
                                   .data = test::toy_data("squared-error", 12, 3, Random(4))},
                                  chain, Random(5)));
      auto draws = Random(6);  // the same for all, whatever they are of
      for (auto& value : chain.back().theta) {
        value = value + 0.3 * draws.normal(value.sizes());
      }
    }
    const auto& last = chain.back();
    const auto x = Random(3).normal({2, count_entries(last.theta)});
    const auto product = [&](const std::string& of) {
      return create<Curvature>(of)->operator_at({last.objective, last.theta, last.parent})->apply(x);
    };
    files += fitted ? 1 : 0;
    CHECK(relative_error(product(spec + kept), product(spec)) < Tolerance::kSameAlgebra);
    CHECK(std::distance(std::filesystem::directory_iterator(folder.folder()), {}) == files);
  };
  check("lora:rank=2,alpha=2", true);  // folded into the body
  check("lora:rank=2,alpha=2", false);
  check("lora:rank=2,alpha=4", true);
  check("adapter:width=2,activation=tanh", true);  // stays beside it: of the same numbers, another function
  check("adapter:width=2,activation=tanh", false);
  check("adapter:width=2,activation=gelu", true);
}

TEST_CASE("an interrupted fit of factors goes on behind the examples that it has seen, in batches of any size") {
  const auto stage = test::toy_chain({{"full", "cross-entropy"}}, "mlp:widths=4,activation=tanh", 1, 3, 5)[0];
  const auto x = Random(3).normal({3, count_entries(stage.theta)});
  for (const std::int64_t batch_size : {5, 4, 12}) {
    for (int stop = 1; stop <= 3; ++stop) {  // before a batch
      CAPTURE(batch_size);
      CAPTURE(stop);
      const test::Scratch folder;
      const auto product = [&](std::int64_t size, const std::string& spec) {
        return create<Curvature>(spec)->operator_at({stage.objective.with_batch_size(size), stage.theta, {}})->apply(x);
      };
      const auto expected = product(5, "kfac");
      const auto spec = "kfac:factors=" + folder.folder().string();
      int asked = 0;
      set_interruption_check([&] {
        if (++asked == stop + 1) {  // the penalty asks once
          throw Interrupted();
        }
      });
      CHECK_THROWS_AS(product(5, spec), Interrupted);
      set_interruption_check({});
      const std::vector<std::filesystem::path> files(std::filesystem::directory_iterator(folder.folder()), {});
      REQUIRE(files.size() == 1);
      CHECK(read_safetensors_metadata(files[0]).at("examples") == std::to_string(5 * (stop - 1)));
      CHECK(relative_error(product(batch_size, spec), expected) < Tolerance::kSameAlgebra);
    }
  }
}

TEST_SUITE_END();
