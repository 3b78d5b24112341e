// Against transformers' numbers in double precision, made by make_checkpoints.py, and against plain autograd.
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "models/language.h"
#include "models/made.h"
#include "support/near.h"
#include "support/scratch.h"
#include "support/some.h"
#include "whence/core/derivative_check.h"
#include "whence/core/files.h"
#include "whence/models/ops.h"
#include "whence/models/per_sample.h"

using namespace whence;
using namespace whence::test;
namespace fs = std::filesystem;

namespace {

std::vector<std::string> every_checkpoint() {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(checkpoint(""))) {
    out.push_back(entry.path().filename().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

/// Those with a loss, one of each kind of parameter and order of layers.
const std::vector<std::string> kFamilies = {"gpt2",
                                            "gpt2-classification",
                                            "gpt-neox",
                                            "llama",
                                            "llama-gqa-tied",
                                            "mistral",
                                            "qwen2",
                                            "bert-masked",
                                            "bert-classification",
                                            "roberta-masked",
                                            "roberta-classification",
                                            "bloom",
                                            "gemma3",
                                            "modernbert-classification",
                                            "qwen3-moe",
                                            "distilbert-masked",
                                            "distilbert-classification",
                                            "electra-masked",
                                            "electra-classification",
                                            "opt",
                                            "opt-350m",
                                            "opt-classification",
                                            "qwen3",
                                            "olmo2",
                                            "phi3",
                                            "gemma2",
                                            "gemma2-classification",
                                            "modernbert-masked",
                                            "modernbert-first",
                                            "mixtral",
                                            "qwen3-moe-shares"};
constexpr std::size_t kUnderSanitizers = 15;  // of them

at::Tensor loop_gradients(const LanguageCase& c) {
  return test::loop_gradients(*c.model, *c.loss, c.theta, c.data.size(),
                              [&](std::int64_t b) { return c.data.batch(b, b + 1); });
}

}  // namespace

TEST_SUITE("models") {
  TEST_CASE("every family's logits, losses and hidden states are transformers'") {
    const auto names = every_checkpoint();
    REQUIRE(names.size() >= 20);
    for (const auto& name : names) {
      CAPTURE(name);
      const LanguageCase c(name);
      // the older ones' rotary frequencies are as float32 has them
      const double close = c.expected.contains("gradient") ? Tolerance::kDense : 1e-8;
      const auto real = c.expected.at("mask").to(at::kBool);
      if (c.expected.contains("hidden.0")) {
        const auto batch = c.data.without_packing().batch(0, c.data.size());
        std::vector<std::int64_t> layers;
        for (std::int64_t k = 0; c.expected.contains(fmt::format("hidden.{}", k)); ++k) {
          layers.push_back(k);
        }
        const auto hidden = c.language->hidden_states(c.theta, batch, layers);
        for (const auto k : layers) {
          const auto wanted = c.expected.at(fmt::format("hidden.{}", k));
          const auto found = hidden[static_cast<std::size_t>(k)].view_as(wanted);
          if (name != "llama-rope-dynamic") {  // transformers' depends on the rest of the batch
            CHECK(relative_error(found * real.unsqueeze(2), wanted * real.unsqueeze(2)) < close);
          }
        }
      }
      if (!c.expected.contains("logits")) {
        continue;
      }
      const auto logits = c.expected.at(c.expected.contains("alone.logits") ? "alone.logits" : "logits");
      const auto losses = c.expected.at(c.expected.contains("alone.loss") ? "alone.loss" : "loss");
      CHECK(relative_error(c.loss->per_example(c.model->output(c.theta, c.all()), c.all()), losses) < close);
      if (c.expected.contains("gradient")) {
        const auto squares = loop_gradients(c).square().sum(1);
        CHECK(relative_error(squares, c.expected.at("gradient")) < close);
      }
      const LanguageCase every(name, logits.dim() == 3 ? Predicts::kEverywhere : Predicts::kTheLoss);
      const auto wanted =
          logits.dim() == 3 ? logits.masked_select(real.unsqueeze(2)).view({-1, logits.size(2)}) : logits;
      CHECK(relative_error(every.model->output(every.theta, every.all()), wanted) < close);
      const auto narrow = every.theta.to(at::kFloat, at::kCPU);
      CHECK(relative_error(every.model->output(narrow, every.all()), wanted) < Tolerance::kFloat);
      const auto short_floats = every.model->output(every.theta.to(at::kBFloat16, at::kCPU), every.all());
      CHECK((short_floats.scalar_type() == at::kFloat));
      CHECK(relative_error(short_floats, wanted) < 0.15);
    }
  }

  TEST_CASE("configurations as transformers 4 spelled them say the same") {
    int count = 0;
    for (const auto& name : every_checkpoint()) {
      if (!fs::exists(checkpoint(name) / "config.v4.json")) {
        continue;
      }
      CAPTURE(name);
      ++count;
      const Scratch scratch;
      fs::copy_file(checkpoint(name) / "config.v4.json", scratch / "config.json");
      fs::copy_file(checkpoint(name) / "model.safetensors", scratch / "model.safetensors");
      const LanguageCase c(name);
      const auto old = create<Model>("transformer:directory=" + scratch.folder().string());
      CHECK(at::equal(old->output(c.theta, c.all()), c.model->output(c.theta, c.all())));
    }
    CHECK(count >= 8);
  }

  TEST_CASE("every family passes the derivative check, to the second order and mixed") {
    for (const auto& name : some(kFamilies, kUnderSanitizers)) {
      CAPTURE(name);
      const LanguageCase c(name);
      const auto batch = c.all();
      const auto directions = directions_of(Random(3).normal({8, c.theta.entries()}), c.theta);
      const auto errors = check_derivatives(
          [&](const TensorList& x, const TensorList& y) {
            TensorList moved;
            const auto steps = at::cat({x[0], y[0]}) * 0.05;
            for (std::size_t i = 0; i < c.theta.size(); ++i) {
              moved.push_back(c.theta.values()[i] + at::tensordot(steps, directions.at(c.theta.names()[i]), {0}, {0}));
            }
            return c.loss->per_example(c.model->output(c.theta.with(moved), batch), batch).sum();
          },
          {at::zeros({5}, at::kDouble)}, {at::zeros({3}, at::kDouble)});
      CHECK(errors.gradient < Tolerance::kDifferences);
      CHECK(errors.hessian_product < Tolerance::kDifferences);
      CHECK(errors.mixed_product < Tolerance::kDifferences);
    }
  }

  TEST_CASE("per-sample products and norms are the loop's, whatever the batch, its padding or its packing") {
    for (const auto& name : some(kFamilies, kUnderSanitizers)) {
      CAPTURE(name);
      const LanguageCase c(name);
      const auto rows = loop_gradients(c);
      for (const std::int64_t count : {1, 4, 40}) {  // by rows, gradients of linear layers formed, embeddings' too
        const auto block = Random(3).normal({count, c.theta.entries()});
        const auto directions = directions_of(block, c.theta);
        const auto wanted = at::mm(block, rows.t());
        CHECK(relative_error(per_sample_products(*c.model, *c.loss, c.theta.to(at::kFloat, at::kCPU), c.all(),
                                                 directions.to(at::kFloat, at::kCPU)),
                             wanted) < Tolerance::kFloat);
        for (const auto& data : {c.data, c.data.without_packing()}) {
          const auto all = data.batch(0, data.size());
          CHECK(relative_error(per_sample_products(*c.model, *c.loss, c.theta, all, directions), wanted) <
                Tolerance::kDense);
          const auto two = data.batch(1, 3);
          CHECK(relative_error(per_sample_products(*c.model, *c.loss, c.theta, two, directions),
                               wanted.narrow(1, 1, 2)) < Tolerance::kDense);
        }
      }
      const auto one = directions_of(Random(3).normal({1, c.theta.entries()}), c.theta);
      const auto by_token = per_token_products(*c.model, *c.loss, c.theta, c.all(), one);
      CHECK(relative_error(sum_rows(c.all().text->tokens, by_token),
                           per_sample_products(*c.model, *c.loss, c.theta, c.all(), one)[0]) < Tolerance::kDense);
      const auto norms = per_sample_squared_norms(*c.model, *c.loss, c.theta, c.all(), c.theta.names());
      CHECK(relative_error(norms, rows.square().sum(1)) < Tolerance::kDense);
    }
  }

  TEST_CASE("short texts share rows, and outputs are those of each text alone") {
    const LanguageCase c("gpt2", Predicts::kEverywhere);
    // three rows of 12, 7 and 10 tokens twice over: 5 and 7 fit beside each other only where cut
    Dataset::Contents contents;
    contents.texts = c.data.texts();
    contents.ids = at::arange(4, at::kLong);
    contents.texts.begins = at::tensor({0, 12, 19, 22}, at::kLong);
    contents.texts.lengths = at::tensor({12, 5, 3, 4}, at::kLong);
    const auto data = Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
    const auto packed = data.batch(0, 4), padded = data.without_packing().batch(0, 4);
    CHECK(packed.inputs.size(0) == 2);
    CHECK(padded.inputs.size(0) == 4);
    TensorList alone;
    for (std::int64_t i = 0; i < 4; ++i) {
      alone.push_back(c.model->output(c.theta, data.batch(i, i + 1)));
    }
    CHECK(relative_error(c.model->output(c.theta, packed), at::cat(alone)) < Tolerance::kSameAlgebra);
    CHECK(relative_error(c.model->output(c.theta, padded), at::cat(alone)) < Tolerance::kSameAlgebra);
  }

  TEST_CASE("a first derivative promised, the fused kernels give the same gradients") {
    for (const auto& name : some(kFamilies, kUnderSanitizers)) {
      CAPTURE(name);
      const LanguageCase c(name);
      const auto slow = loop_gradients(c);
      const DerivativeOrder first(1);
      CHECK(relative_error(loop_gradients(c), slow) < Tolerance::kDense);
    }
  }

  TEST_CASE("layer norm in pieces has the third derivative that torch's kernel lacks") {
    Random random(2);
    ParameterSet theta;
    theta.add("n.weight", random.normal({5}));
    theta.add("n.bias", random.normal({5}));
    const auto x = random.normal({3, 5}), u = random.normal({3, 5}), v = random.normal({3, 5}),
               w = random.normal({3, 5});
    const auto second = [&](const at::Tensor& at) {  // d2/dx2 of <w, tanh(norm(x))> in u and v
      const auto point = at.requires_grad() ? at : at.detach().requires_grad_(true);
      const auto y = (layer_norm(theta, "n", point, 1e-5, nullptr).tanh() * w).sum();
      const auto first = gradient({y}, TensorList{point}, true)[0];
      return (gradient((first * u).sum(), TensorList{point}, true)[0] * v).sum();
    };
    const double h = 1e-5;
    const auto along = random.normal({3, 5});
    const double difference = (second(x + h * along) - second(x - h * along)).item<double>() / (2 * h);
    const DerivativeOrder third(3);
    const auto point = x.detach().requires_grad_(true);
    const double exact = (gradient(second(point), TensorList{point})[0] * along).sum().item<double>();
    CHECK(exact == doctest::Approx(difference).epsilon(1e-6));
  }

  TEST_CASE("label words are read off the vocabulary's logits") {
    const LanguageCase every("gpt2", Predicts::kEverywhere);
    Dataset::Contents contents;
    contents.texts = every.data.texts();
    contents.texts.targets = at::Tensor();
    contents.texts.asked = contents.texts.lengths - 1;
    contents.texts.words = at::tensor({7, 3}, at::kLong);
    contents.ids = every.data.ids();
    contents.targets = at::tensor({0, 1, 1}, at::kLong);
    contents.classes = {"seven", "three"};
    const auto data = Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
    CHECK(data.head_outputs() == 0);
    const auto all = data.batch(0, 3);
    const auto logits = every.model->output(every.theta, every.all());
    const auto last = logits.index_select(0, data.texts().lengths.cumsum(0) - 1);
    const auto found = every.model->output(every.theta, all);
    CHECK(relative_error(found, at::stack({last.select(1, 7), last.select(1, 3)}, 1)) < Tolerance::kSameAlgebra);
    const auto loss = create<Loss>("cross-entropy");
    const auto block = Random(3).normal({2, every.theta.entries()});
    const auto tracked = leaves(every.theta.values());
    const auto losses = loss->per_example(every.model->output(every.theta.with(tracked), all), all);
    const auto rows = flatten(gradient(losses[1], tracked));
    CHECK(
        relative_error(
            per_sample_products(*every.model, *loss, every.theta, all, directions_of(block, every.theta)).select(1, 1),
            at::mv(block, rows)) < Tolerance::kDense);
  }

  TEST_CASE("a class whose name is not UTF-8 does not cost the weights") {
    const LanguageCase c("gpt2-classification");
    const Scratch scratch;
    c.language->write_directory(scratch.folder(), c.theta, {"no", "caf\xe9"});
    CHECK(read_text(scratch / "config.json").find("caf\xef\xbf\xbd") != std::string::npos);
    CHECK(fs::exists(scratch / "model.safetensors"));
  }

  TEST_CASE("what is written is read again, and starts without weights are drawn") {
    for (const std::string name : {"gpt2", "llama-gqa-tied", "bert-masked", "roberta-classification",
                                   "gpt2-classification", "modernbert-masked", "qwen3-moe"}) {
      CAPTURE(name);
      const LanguageCase c(name);
      const Scratch scratch;
      c.language->write_directory(scratch.folder(), c.theta, {"no", "yes"});
      const auto again = create<Model>("transformer:directory=" + scratch.folder().string());
      Random random(9);
      const auto theta = again->initial({}, c.data.head_outputs(), random).to(at::kDouble, at::kCPU);
      CHECK(theta.names() == c.theta.names());
      CHECK(relative_error(theta.values(), c.theta.to(at::kFloat, at::kCPU).values()) == 0);
      auto bytes = test::bytes_of(scratch / "model.safetensors");
      fs::remove(scratch / "model.safetensors");
      bytes[bytes.size() - 4] = static_cast<char>(bytes[bytes.size() - 4] ^ 1);  // a last digit
      scratch.put("model.safetensors", bytes);
      CHECK_MESSAGE_HOLDS(DataError, "is not as whence wrote it", again->initial({}, c.data.head_outputs(), random));
      fs::remove(scratch / "model.safetensors");
      const auto bare = create<Model>("transformer:directory=" + scratch.folder().string());
      const auto fresh = bare->initial({}, c.data.head_outputs(), random);
      CHECK(fresh.names() == c.theta.names());
      CHECK(relative_error(fresh.values(), theta.values()) > 0.1);
      Random same(9);
      CHECK(relative_error(bare->initial({}, c.data.head_outputs(), same).values(), fresh.values()) == 0);
    }
  }

  TEST_CASE("damaged or foreign directories are refused in one line") {
    const Scratch scratch;
    const auto spec = "transformer:directory=" + scratch.folder().string();
    const auto write = [&](const nlohmann::json& config) { write_text(scratch / "config.json", config.dump()); };
    const auto config = nlohmann::json::parse(read_text(checkpoint("gpt2") / "config.json"));
    const auto message = [&] {
      try {
        Random random(1);
        create<Model>(spec)->initial({}, 0, random);
      } catch (const Error& error) {
        return std::string(error.what());
      }
      return std::string("nothing thrown");
    };
    CHECK_MESSAGE(message().find("config.json") != std::string::npos, message());
    auto other = config;
    other["model_type"] = "mamba";
    write(other);
    CHECK_MESSAGE(message().find("model_type = \"mamba\" is not supported, expected one of bert, bloom, distilbert") !=
                      std::string::npos,
                  message());
    other = config;
    other["activation_function"] = "mish";
    write(other);
    CHECK_MESSAGE(message().find("activation_function = \"mish\", expected one of gelu") != std::string::npos,
                  message());
    other = config;
    other["n_layer"] = -1;
    write(other);
    CHECK_MESSAGE(message().find("n_layer = -1, expected a whole number >= 1") != std::string::npos, message());
    fs::copy_file(checkpoint("gpt2") / "model.safetensors", scratch / "model.safetensors");
    other = config;
    other["n_inner"] = 8;
    write(other);
    CHECK_MESSAGE(message().find("has shape [64], expected [8] by config.json") != std::string::npos, message());
    other = config;
    other["n_layer"] = 1;
    write(other);
    CHECK_MESSAGE(message().find("is not one of a gpt2 with 1 blocks") != std::string::npos, message());
    other["n_layer"] = 3;
    write(other);
    CHECK_MESSAGE(message().find("tensor \"transformer.h.2.ln_1.weight\" is missing") != std::string::npos, message());
    fs::remove(scratch / "model.safetensors");
    for (const auto& entry : fs::directory_iterator(checkpoint("gpt2-sharded"))) {
      fs::copy_file(entry.path(), scratch / entry.path().filename().string(), fs::copy_options::overwrite_existing);
    }
    fs::remove(scratch / "model-00002-of-00003.safetensors");
    CHECK_MESSAGE(message().find("the shard model-00002-of-00003.safetensors, which holds") != std::string::npos,
                  message());
  }
}
