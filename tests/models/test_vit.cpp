// Against transformers' numbers in double precision, made by make_vision.py, and against plain autograd.
#include <torch/csrc/autograd/autograd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/made.h"
#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/derivative_check.h"
#include "whence/core/files.h"
#include "whence/data/safetensors.h"
#include "whence/models/per_sample.h"

using namespace whence;
using namespace whence::test;
namespace fs = std::filesystem;

namespace {

const std::vector<std::string> kVits = {"vit", "vit-grey"};

struct VitCase {
  explicit VitCase(const std::string& name)
      : folder(fs::path(WHENCE_TESTS) / "models/vision" / name),
        model(create<Model>("vit:directory=" + folder.string())),
        expected(read_safetensors(folder / "expected.safetensors")) {
    batch.inputs = expected.at("inputs");
    batch.targets = expected.at("labels");
    batch.ids = batch.rows = at::arange(batch.inputs.size(0), at::kLong);
    Random random(1);
    theta = model->initial(batch.inputs.sizes().slice(1), 3, random).to(at::kDouble, at::kCPU);
  }
  Batch one(std::int64_t b) const { return slice(batch, b, 1); }
  at::Tensor losses(const ParameterSet& at, const Batch& of) const {
    return loss->per_example(model->output(at, of), of);
  }
  fs::path folder;
  std::unique_ptr<Model> model;
  ParameterSet expected;
  std::unique_ptr<Loss> loss = create<Loss>("cross-entropy");
  Batch batch;
  ParameterSet theta;
};

}  // namespace

TEST_SUITE("models") {
  TEST_CASE("vit: logits, losses and gradients are transformers', whatever the batch") {
    for (const auto& name : kVits) {
      CAPTURE(name);
      const VitCase c(name);
      CHECK(c.model->is_trained());
      CHECK(c.model->files().size() == 2);
      const auto logits = c.model->output(c.theta, c.batch);
      CHECK(relative_error(logits, c.expected.at("logits")) < Tolerance::kDense);
      CHECK(relative_error(c.losses(c.theta, c.batch), c.expected.at("loss")) < Tolerance::kDense);
      CHECK(relative_error(loop_gradients(*c.model, *c.loss, c.theta, c.batch).square().sum(1),
                           c.expected.at("gradient")) < Tolerance::kDense);
      CHECK(relative_error(c.model->output(c.theta, c.one(2)), logits.narrow(0, 2, 1)) < Tolerance::kSameAlgebra);
      CHECK(relative_error(c.model->output(c.theta.to(at::kFloat, at::kCPU), c.batch), logits) < Tolerance::kFloat);
    }
  }

  TEST_CASE("vit: taped products and norms of per-example gradients are the loop's") {
    for (const auto& name : kVits) {
      CAPTURE(name);
      const VitCase c(name);
      const auto rows = loop_gradients(*c.model, *c.loss, c.theta, c.batch);
      for (const std::int64_t count : {1, 3, 200}) {
        CAPTURE(count);
        Random random(11);
        const auto block = random.normal({count, c.theta.entries()});
        CHECK(relative_error(per_sample_products(*c.model, *c.loss, c.theta, c.batch, directions_of(block, c.theta)),
                             at::mm(block, rows.t())) < Tolerance::kDense);
      }
      const auto norms = per_sample_squared_norms(*c.model, *c.loss, c.theta, c.batch, c.theta.names());
      CHECK(relative_error(norms, rows.square().sum(1)) < Tolerance::kDense);
    }
  }

  TEST_CASE("vit: the derivative check, to the second order and mixed") {
    const VitCase c("vit");
    Random random(3);
    const auto directions = directions_of(random.normal({5, c.theta.entries()}), c.theta);
    const auto errors = check_derivatives(
        [&](const TensorList& steps, const TensorList& pixels) {
          TensorList values;
          for (std::size_t i = 0; i < c.theta.size(); ++i) {
            values.push_back(c.theta.values()[i] +
                             at::tensordot(steps[0] * 0.05, directions.at(c.theta.names()[i]), {0}, {0}));
          }
          auto moved = c.one(0);
          moved.inputs = pixels[0];
          return c.losses(c.theta.with(values), moved).sum();
        },
        {at::zeros({5}, at::kDouble)}, {c.one(0).inputs});
    CHECK(errors.gradient < Tolerance::kDifferences);
    CHECK(errors.hessian_product < Tolerance::kDifferences);
    CHECK(errors.mixed_product < Tolerance::kDifferences);
  }

  TEST_CASE("vit: pixels as they come, another head, a start at random, and what is refused") {
    const VitCase c("vit");
    const auto as_they_come = create<Model>("vit:normalize=false,directory=" + c.folder.string());
    auto scaled = c.batch;
    scaled.inputs = (c.batch.inputs - at::tensor({0.5, 0.4, 0.3}, at::kDouble).view({1, 3, 1, 1})) /
                    at::tensor({0.2, 0.25, 0.5}, at::kDouble).view({1, 3, 1, 1});
    CHECK(relative_error(as_they_come->output(c.theta, scaled), c.model->output(c.theta, c.batch)) <
          Tolerance::kSameAlgebra);
    Random random(2);
    const std::vector<std::int64_t> shape = {3, 6, 6};
    const auto five = c.model->initial(shape, 5, random);
    CHECK(five.at("classifier.weight").size(0) == 5);
    CHECK(at::equal(five.at("vit.layernorm.weight").to(at::kDouble), c.theta.at("vit.layernorm.weight")));
    CHECK_THROWS_WITH_AS(c.model->initial({3, 8, 8}, 3, random),
                         doctest::Contains("images of shape [3, 8, 8], expected [3, 6, 6]"), InvalidArgument);
    const Scratch scratch;
    const auto config = nlohmann::json::parse(read_text(c.folder / "config.json"));
    const auto opened = [&](const char* key, const nlohmann::json& value) {
      auto other = config;
      other[key] = value;
      write_text(scratch / "config.json", other.dump());
      return create<Model>("vit:directory=" + scratch.folder().string());
    };
    const auto bare = opened("hidden_act", "gelu");
    const auto fresh = bare->initial(shape, 3, random);
    CHECK(fresh.names() == c.theta.names());
    CHECK(relative_error(fresh.values(), c.theta.values()) > 0.1);
    CHECK_THROWS_WITH_AS(opened("model_type", "swin"), doctest::Contains("model_type = \"swin\", expected vit"),
                         DataError);
    CHECK_THROWS_WITH_AS(opened("patch_norm", true), doctest::Contains("key patch_norm = true is none that a vit"),
                         DataError);
    CHECK_THROWS_WITH_AS(opened("patch_size", 9), doctest::Contains("patch_size = 9, expected at most image_size = 6"),
                         DataError);
    fs::copy_file(c.folder / "model.safetensors", scratch / "model.safetensors");
    CHECK_THROWS_WITH_AS(opened("num_hidden_layers", 3)->initial(shape, 3, random),
                         doctest::Contains("tensor \"vit.encoder.layer.2."), DataError);
    CHECK_THROWS_WITH_AS(opened("intermediate_size", 16)->initial(shape, 3, random),
                         doctest::Contains("has shape [12, 8] of"), DataError);
  }
}
