#include <torch/csrc/autograd/autograd.h>

#include <fstream>

#include "models/made.h"
#include "support/near.h"
#include "whence/core/error.h"
#include "whence/data/safetensors.h"
#include "whence/models/exported/exported_model.h"
#include "whence/models/per_sample.h"

using namespace whence;
using namespace whence::test;
namespace fs = std::filesystem;

namespace {

const fs::path kFolder = fs::path(WHENCE_TESTS) / "models/exported";

std::unique_ptr<Model> open(const std::string& name, const std::string& more = "") {
  return create<Model>("exported:file=" + (kFolder / (name + ".pt2")).string() + more);
}

std::string refusal(const std::string& name, const std::string& more = "") {
  try {
    open(name, more);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// A fixture, and what PyTorch computed of it (make_fixtures.py): float64.
struct Fixture {
  std::unique_ptr<Model> model;
  ParameterSet theta, told;
  Batch batch;

  explicit Fixture(const std::string& name)
      : model(open(name)), told(read_safetensors(kFolder / (name + ".safetensors"))) {
    Random random(1);
    theta = model->initial({}, 0, random);
    TensorList arguments;
    const auto& names = dynamic_cast<const ExportedModel&>(*model).arguments();
    for (const auto& argument : names) {
      const auto& x = told.at("inputs." + argument);
      arguments.push_back(names.size() == 1 ? x : x.to(at::kDouble).reshape({x.size(0), -1}));
    }
    batch.inputs = at::cat(arguments, arguments.size() == 1 ? 0 : 1);
    batch.ids = batch.rows = at::arange(batch.inputs.size(0), at::kLong);
  }
  /// l_b = sum(w * output_b + output_b^2 / 2)
  PerExample loss() const {
    return [w = told.at("w")](const at::Tensor& output, const Batch& part) {
      const auto weights = w.reshape({w.size(0), -1}).index_select(0, part.rows);
      return (weights * output + output.square() / 2).sum(1);
    };
  }
  TensorList expected(const std::string& kind) const {
    TensorList out;
    for (const auto& name : theta.names()) {
      out.push_back(told.at(kind + "." + name));
    }
    return out;
  }
};

const std::vector<std::string> kModels = {"mlp", "convnet", "residual", "gpt", "lstm", "two", "conv1", "loss-inside"};
constexpr double kSame = 1e-10;

}  // namespace

TEST_SUITE("models") {
  TEST_CASE("exported models: output, gradient and Hessian product are PyTorch's") {
    for (const auto& name : kModels) {
      CAPTURE(name);
      const Fixture f(name);
      const auto out = f.model->output(f.theta, f.batch);
      CHECK(relative_error(out, f.told.at("output").reshape(out.sizes())) < kSame);
      const auto free = leaves(f.theta.values());
      const auto losses = f.loss()(f.model->output(f.theta.with(free), f.batch), f.batch);
      const auto first = gradient(losses.sum(), free, /*create_graph=*/true);
      CHECK(relative_error(detach(first), f.expected("gradient")) < kSame);
      const auto v = f.expected("v");
      auto dot = at::zeros({}, at::kDouble);
      for (std::size_t i = 0; i < v.size(); ++i) {
        dot = dot + (first[i] * v[i]).sum();
      }
      CHECK(relative_error(gradient(dot, free), f.expected("hessian")) < kSame);
      CHECK_FALSE(out.requires_grad());
    }
  }

  TEST_CASE("exported models: gradients of examples, by layers, by copies or by double backward") {
    for (const auto& name : kModels) {
      CAPTURE(name);
      const Fixture f(name);
      CHECK(f.model->records_layers() == (name != "lstm"));
      Directions directions;
      const auto v = f.expected("v");
      for (std::size_t i = 0; i < v.size(); ++i) {
        directions.add(f.theta.names()[i], v[i].unsqueeze(0));
      }
      const auto products = per_sample_products(*f.model, f.loss(), f.theta, f.batch, directions);
      CHECK(relative_error(products[0], f.told.at("products")) < kSame);
      const auto norms = per_sample_squared_norms(*f.model, f.loss(), f.theta, f.batch, f.theta.names());
      CHECK(relative_error(norms, f.told.at("norms")) < kSame);
    }
  }

  TEST_CASE("exported models: any batch, an exported batch of one, and float32") {
    const Fixture f("mlp");
    const auto one = open("one");
    const auto whole = f.model->output(f.theta, f.batch);
    const auto part = slice(Batch{f.batch.inputs, f.batch.ids, f.batch.ids, f.batch.ids}, 1, 2);
    CHECK(relative_error(f.model->output(f.theta, part), whole.narrow(0, 1, 2)) < kSame);
    CHECK(relative_error(one->output(f.theta, f.batch), whole) < kSame);
    const auto narrow = f.theta.to(at::kFloat, at::kCPU);
    const auto out = f.model->output(narrow, f.batch);
    CHECK(out.element_size() == 4);
    CHECK(relative_error(out.to(at::kDouble), whole) < 1e-6);
    CHECK_THROWS_WITH_AS(f.model->output(f.theta.to(at::kBFloat16, at::kCPU), f.batch),
                         doctest::Contains("exported in Float"), InvalidArgument);
  }

  TEST_CASE("exported models: parameters of the state dict, ties once, frozen ones not, the head behind head.") {
    const auto names = [](const std::string& file, const std::string& more = "") {
      Random random(1);
      return open(file, more)->initial({}, 0, random).names();
    };
    const auto gpt = names("gpt");
    CHECK(std::count(gpt.begin(), gpt.end(), "wte.weight") == 1);
    CHECK(std::count(gpt.begin(), gpt.end(), "lm_head.weight") == 0);
    const auto two = names("two");
    CHECK(two == std::vector<std::string>{"token", "left.weight", "left.bias", "right.weight", "right.bias"});
    const auto headed = names("convnet", ",head=fc");
    CHECK(headed.back() == "head.fc.bias");
    CHECK_THROWS_WITH_AS(names("convnet", ",head=fcc"), doctest::Contains("did you mean \"fc\""), InvalidArgument);
    const auto convnet = open("convnet", ",head=fc");
    Random random(1);
    const auto fresh = convnet->initial({2, 6, 6}, 5, random);
    CHECK(fresh.at("head.fc.weight").size(0) == 5);
    CHECK_THROWS_WITH_AS(open("convnet")->initial({2, 6, 6}, 5, random), doctest::Contains("head = \"fc\""),
                         InvalidArgument);
    CHECK_THROWS_WITH_AS(open("convnet")->initial({3, 6, 6}, 3, random), doctest::Contains("[any, 2, 6, 6]"),
                         InvalidArgument);
  }

  TEST_CASE("exported models: what is no pure function is refused with what mends it") {
    for (const auto& [name, why] :
         std::vector<std::pair<std::string, std::string>>{{"training", "model.eval()"},
                                                          {"dropout", "is in training mode: call model.eval()"},
                                                          {"mean-free", "examples see each other"},
                                                          {"noisy", "draws random numbers"},
                                                          {"watched", "model.eval()"},
                                                          {"fixed", "the batch is fixed"}}) {
      CAPTURE(name);
      const auto text = refusal(name);
      CHECK(text.find(why) != text.npos);
      CHECK(text.find('\n') == text.npos);
    }
    const auto notes = [](const std::string& name) {
      const auto model = open(name);
      const auto& list = dynamic_cast<const ExportedModel&>(*model).notes();
      return list.empty() ? std::string() : list.front();
    };
    CHECK(notes("decomposed").find("run_decompositions()") != std::string::npos);
    CHECK(notes("rounded").find("a backward of its own") != std::string::npos);
    CHECK(notes("mlp").empty());
    CHECK(notes("convnet").find("depth.bias, depth.weight") != std::string::npos);
    CHECK(notes("lstm").find("one example at a time") != std::string::npos);
  }
}
