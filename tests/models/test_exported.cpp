#include <ATen/record_function.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <cstdlib>
#include <functional>
#include <memory>
#include <set>

#include "models/exports.h"
#include "models/made.h"
#include "support/near.h"
#include "support/scratch.h"
#include "support/stored_zip.h"
#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/core/operation_count.h"
#include "whence/core/progress.h"
#include "whence/curvature/curvature.h"
#include "whence/data/safetensors.h"
#include "whence/models/exported/detail/zip.h"
#include "whence/models/exported/exported_model.h"
#include "whence/models/ops.h"
#include "whence/models/per_sample.h"
#include "whence/training/objective.h"

using namespace whence;
using namespace whence::test;
namespace fs = std::filesystem;

namespace {

/// A fixture, and what PyTorch computed of it (make_fixtures.py): float64.
struct Fixture {
  std::unique_ptr<Model> model;
  ParameterSet theta, told;
  Batch batch;

  explicit Fixture(const std::string& name, const fs::path& folder = kExports)
      : model(open_export(name, "", folder)), told(read_safetensors(folder / (name + ".safetensors"))) {
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

const std::vector<std::string> kModels = {"mlp",     "convnet",    "residual",  "gpt",         "masked",
                                          "lstm",    "two",        "conv1",     "loss-inside", "solid",
                                          "grouped", "transposed", "recurrent", "projected",   "padded",
                                          "spelled", "headed",     "reshaped",  "scaled"};
constexpr double kSame = 1e-10;

/// Of output, gradient and Hessian product, relative.
std::array<double, 3> errors_of(const Fixture& f) {
  const auto out = f.model->output(f.theta, f.batch);
  const auto free = leaves(f.theta.values());
  const auto losses = f.loss()(f.model->output(f.theta.with(free), f.batch), f.batch);
  const auto first = gradient(losses.sum(), free, /*create_graph=*/true);
  const auto v = f.expected("v");
  auto dot = at::zeros({}, at::kDouble);
  for (std::size_t i = 0; i < v.size(); ++i) {
    dot = dot + (first[i] * v[i]).sum();
  }
  return {relative_error(out, f.told.at("output").reshape(out.sizes())),
          relative_error(detach(first), f.expected("gradient")),
          relative_error(gradient(dot, free), f.expected("hessian"))};
}

/// Of the gradient where no second one is to come, relative.
double error_of_first(const Fixture& f) {
  const DerivativeOrder first(1);
  const auto free = leaves(f.theta.values());
  const auto losses = f.loss()(f.model->output(f.theta.with(free), f.batch), f.batch);
  return relative_error(gradient(losses.sum(), free), f.expected("gradient"));
}

/// Of each example's gradient times a direction, and of its squared norm, relative.
std::array<double, 2> errors_of_examples(const Fixture& f) {
  Directions directions;
  const auto v = f.expected("v");
  for (std::size_t i = 0; i < v.size(); ++i) {
    directions.add(f.theta.names()[i], v[i].unsqueeze(0));
  }
  const auto products = per_sample_products(*f.model, f.loss(), f.theta, f.batch, directions);
  const auto norms = per_sample_squared_norms(*f.model, f.loss(), f.theta, f.batch, f.theta.names());
  return {relative_error(products[0], f.told.at("products")), relative_error(norms, f.told.at("norms"))};
}

/// How often an operator is called, by its name.
int calls_of(const std::string& name, const std::function<void()>& work) {
  static thread_local std::string wanted;
  static thread_local int calls;
  wanted = name;
  calls = 0;
  const auto handle = at::addThreadLocalCallback(at::RecordFunctionCallback([](const at::RecordFunction& function) {
                                                   calls += function.name() == wanted ? 1 : 0;
                                                   return std::unique_ptr<at::ObserverContext>();
                                                 }).scopes({at::RecordScope::FUNCTION}));
  work();
  at::removeCallback(handle);
  return calls;
}

}  // namespace

TEST_SUITE("models") {
  TEST_CASE("exported models: output, gradient and Hessian product are PyTorch's") {
    for (const auto& name : kModels) {
      CAPTURE(name);
      const Fixture f(name);
      const auto errors = errors_of(f);
      for (const auto error : errors) {
        CHECK(error < kSame);
      }
      CHECK(error_of_first(f) < kSame);
      CHECK_FALSE(f.model->output(f.theta, f.batch).requires_grad());
    }
  }

  TEST_CASE("exported models: attention is torch's own where a first derivative of a whole batch is all") {
    for (const char* name : {"gpt", "masked"}) {
      CAPTURE(name);
      const Fixture f(name);
      const char* fused = "aten::scaled_dot_product_attention";
      CHECK(calls_of(fused, [&] { error_of_first(f); }) > 0);
      CHECK(calls_of(fused, [&] { errors_of(f); }) == 0);
      CHECK(calls_of(fused, [&] {
              const DerivativeOrder first(1);
              errors_of_examples(f);
            }) == 0);
    }
  }

  TEST_CASE("exported models: gradients of examples, by layers, by copies or by double backward") {
    for (const auto& name : kModels) {
      CAPTURE(name);
      const Fixture f(name);
      CHECK(f.model->records_layers() == (name != "projected"));
      for (const auto error : errors_of_examples(f)) {
        CHECK(error < kSame);
      }
    }
  }

  TEST_CASE(
      "exported models: convolutions of every kind and recurrent cells are layers, what has another use is copied") {
    const auto facts = [](const std::string& name) {
      const auto model = open_export(name);
      return dynamic_cast<const ExportedModel&>(*model).facts();
    };
    using Layers = std::vector<std::pair<std::string, std::int64_t>>;
    for (const auto& [name, layers] :
         {std::pair("residual", Layers{{"linear", 1}, {"convolution", 3}, {"norm", 1}}),
          std::pair("solid", Layers{{"linear", 1}, {"convolution", 2}}),
          std::pair("grouped", Layers{{"linear", 1}, {"convolution", 4}}),
          std::pair("padded", Layers{{"linear", 1}, {"convolution", 5}}),
          std::pair("spelled", Layers{{"linear", 1}, {"convolution", 2}, {"transposed convolution", 1}}),
          std::pair("transposed", Layers{{"linear", 1}, {"transposed convolution", 3}}),
          std::pair("lstm", Layers{{"linear", 1}, {"recurrent", 1}})}) {
      CAPTURE(name);
      CHECK(facts(name).layers == layers);
      CHECK(facts(name).copied.empty());
      CHECK(facts(name).why_no_layers.empty());
    }
    CHECK(facts("conv1").copied.empty());
    CHECK(facts("recurrent").copied == std::vector<std::string>{"start"});
    CHECK(facts("two").copied == std::vector<std::string>{"token"});
    CHECK(facts("two").copied_share == doctest::Approx(4.0 / 32));
    CHECK(facts("convnet").last_module == "fc");
    CHECK(facts("convnet").inputs.front().shape == "[any, 2, 6, 6]");
    CHECK_FALSE(facts("projected").why_no_layers.empty());
  }

  TEST_CASE("exported models: what no trained parameter has a part in is computed once a batch") {
    const Fixture f("headed");
    const auto convolutions = [](const std::function<void()>& work) { return calls_of("aten::convolution", work); };
    const auto moved = f.theta.with(clone(f.theta.values()));
    const auto expected = f.told.at("output");
    CHECK(convolutions([&] {
            CHECK(relative_error(f.model->output(f.theta, f.batch), expected) < kSame);
            CHECK(relative_error(f.model->output(f.theta.with(leaves(f.theta.values())), f.batch), expected) < kSame);
            for (const auto& value : moved.values()) {
              value.mul_(2);
            }
            CHECK(relative_error(f.model->output(moved, f.batch), expected) > 0.1);
            auto copied = f.batch;
            copied.inputs = f.batch.inputs.clone();
            CHECK(relative_error(f.model->output(f.theta, copied), expected) < kSame);
          }) == 1);
    const auto of_examples = [&] { CHECK(errors_of_examples(f)[0] < kSame); };  // one example at a time
    CHECK(convolutions(of_examples) > 0);
    CHECK(convolutions(of_examples) == 0);
    auto other = f.batch;
    other.inputs = f.batch.inputs.clone();
    const auto twice = convolutions([&] {
      other.inputs.mul_(2);
      const auto first = f.model->output(f.theta, other);
      CHECK(relative_error(first, expected) > 1e-3);
      other.inputs.mul_(2);  // in the same memory
      CHECK(relative_error(f.model->output(f.theta, other), first) > 1e-3);
    });
    CHECK(twice == 2);
    CHECK(convolutions([&] { count_operations([&] { f.model->output(f.theta, f.batch); }); }) == 1);
    CHECK(convolutions([&] { f.model->output(f.theta, f.batch); }) == 0);
  }

  TEST_CASE("exported models: where the head alone is trained, the body is computed once a batch and body") {
    const Fixture whole("convnet");
    const auto model = open_export("convnet", ",head=fc");
    Random random(1);
    auto theta = model->initial({}, 0, random);
    const auto output_of = [&](bool head_alone) {
      TensorList values;
      for (std::size_t i = 0; i < theta.size(); ++i) {
        const bool free = !head_alone || model->head().holds(theta.names()[i]);
        values.push_back(theta.values()[i].detach().requires_grad_(free));
      }
      return model->output(theta.with(values), whole.batch);
    };
    const auto convolutions = [&](bool head_alone) {
      return calls_of("aten::convolution", [&] {
        CHECK(relative_error(output_of(head_alone).detach(), model->output(theta, whole.batch)) < kSame);
      });
    };
    CHECK(relative_error(model->output(theta, whole.batch), whole.told.at("output")) < kSame);
    CHECK(convolutions(true) == 0);
    CHECK(convolutions(false) == 3);
    theta.at("a.weight").mul_(2);  // another body
    CHECK(convolutions(true) == 3);
    CHECK(relative_error(model->output(theta, whole.batch), whole.told.at("output")) > 1e-3);
    CHECK(convolutions(true) == 0);
  }

  TEST_CASE("exported models: what is computed once is the same, whoever asks first") {
    const Fixture f("masked");
    const auto output = [&](int order) {
      const auto model = open_export("masked", ",head=fc");
      Random random(1);
      auto theta = model->initial({}, 0, random);
      for (std::size_t i = 0; i < theta.size(); ++i) {
        theta.values()[i].requires_grad_(model->head().holds(theta.names()[i]));
      }
      const DerivativeOrder first(order);
      return model->output(theta, f.batch).detach();
    };
    const auto expected = output(2);
    CHECK(at::equal(output(1), expected));
    CHECK(calls_of("aten::scaled_dot_product_attention", [&] { output(2); }) > 0);
  }

  TEST_CASE("exported models: what a layer refuses names the file and the node") {
    const whence::detail::Zip zip(kExports / "padded.pt2");
    std::vector<std::pair<std::string, std::string>> members;
    for (const auto& name : zip.names()) {
      auto text = zip.text(name);
      for (auto place = text.find("\"same\""); place != text.npos; place = text.find("\"same\"")) {
        text.replace(place, 6, "\"some\"");
      }
      if (name != "extra/whence.json") {  // without a sample it is not tried out
        members.emplace_back("m/" + name, text);
      }
    }
    const Scratch scratch;
    const Fixture f("padded");
    const auto path = scratch.put("padded.pt2", stored_zip(members));
    const auto model = create<Model>("exported:file=" + path.string());
    Tape tape;
    CHECK_THROWS_WITH_AS(model->output(f.theta, f.batch, &tape),
                         doctest::Contains((path.string() + ": conv2d in image: ").c_str()), InvalidArgument);
  }

  TEST_CASE("models: a stop is heard within a batch, on the way there and back") {
    const struct Restore {
      ~Restore() { set_interruption_check({}); }
    } restore;
    Random random(1);
    for (const std::string spec : {"convnet:channels=8/8", "exported"}) {
      CAPTURE(spec);
      const auto model = spec == "exported" ? open_export("convnet") : create<Model>(spec);
      const auto theta = model->initial({2, 6, 6}, 3, random);
      const auto x = random.normal({256, 2, 6, 6}), rows = at::arange(256, at::kLong);
      const Batch batch{x, rows, rows, rows};
      const auto free = leaves(theta.values());
      int asked = 0;
      set_interruption_check([&] { ++asked; });
      const auto sum = model->output(theta.with(free), batch).sum();
      const int there = asked;
      CHECK(there >= 2);
      gradient(sum, free);
      CHECK(asked >= there + 2);
      for (const int stop : {2, there + 1}) {
        int more = 0;
        set_interruption_check([&] {
          if (++more == stop) {
            throw Interrupted();
          }
        });
        CHECK_THROWS_AS(gradient(model->output(theta.with(free), batch).sum(), free), Interrupted);
      }
      set_interruption_check({});
    }
  }

  TEST_CASE("exported models: tokens are looked up in a table, whatever shape they are given first") {
    for (const std::string name : {"gpt", "masked", "reshaped"}) {
      const auto model = open_export(name);
      CHECK(dynamic_cast<const ExportedModel&>(*model).vocabulary() == 7);
    }
  }

  /// Rows of a table of docs/exported-models.md: tests/models/exported/zoo.py makes the folder.
  TEST_CASE("exported models: a folder of them" * doctest::skip(std::getenv("WHENCE_EXPORTED_MODELS") == nullptr)) {
    const fs::path folder = std::getenv("WHENCE_EXPORTED_MODELS");
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() == ".safetensors") {
        names.insert(entry.path().stem());
      }
    }
    CHECK_FALSE(names.empty());
    for (const auto& name : names) {
      CAPTURE(name);
      try {
        const Fixture f(name, folder);
        const auto [output, first, second] = errors_of(f);
        const auto [products, norms] = errors_of_examples(f);
        std::string how = f.model->records_layers() ? "layers" : "double backward";
        for (const auto& note : dynamic_cast<const ExportedModel&>(*f.model).notes()) {
          const auto copied = note.find(" % are taken by a copy");
          how = copied != note.npos
                    ? note.substr(note.rfind(' ', copied - 1) + 1, copied - note.rfind(' ', copied - 1)) + "% copied"
                    : how;
        }
        fmt::print("| {} | {} | {:.0e} | {:.0e} | {:.0e} | {:.0e} | {:.0e} | {} |\n", name, f.theta.entries(), output,
                   first, second, products, norms, how);
        for (const double error : {output, first, second, products, norms}) {
          CHECK(error < (name.starts_with("hf-") ? 1e-5 : kSame));  // norms of some are float32 in PyTorch
        }
      } catch (const Error& error) {
        fmt::print("| {} | {} |\n", name, error.what());
        FAIL_CHECK(error.what());
      }
    }
  }

  TEST_CASE("exported models: any batch, an exported batch of one, and float32") {
    const Fixture f("mlp");
    const auto one = open_export("one");
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
      return open_export(file, more)->initial({}, 0, random).names();
    };
    const auto gpt = names("gpt");
    CHECK(std::count(gpt.begin(), gpt.end(), "wte.weight") == 1);
    CHECK(std::count(gpt.begin(), gpt.end(), "lm_head.weight") == 0);
    const auto two = names("two");
    CHECK(two == std::vector<std::string>{"token", "left.weight", "left.bias", "right.weight", "right.bias"});
    const auto headed = names("convnet", ",head=fc");
    CHECK(headed.back() == "head.fc.bias");
    CHECK_THROWS_WITH_AS(names("convnet", ",head=fcc"), doctest::Contains("did you mean \"fc\""), InvalidArgument);
    const auto convnet = open_export("convnet", ",head=fc");
    Random random(1);
    const auto fresh = convnet->initial({2, 6, 6}, 5, random);
    CHECK(fresh.at("head.fc.weight").size(0) == 5);
    CHECK_THROWS_WITH_AS(open_export("convnet")->initial({2, 6, 6}, 5, random), doctest::Contains("head = \"fc\""),
                         InvalidArgument);
    CHECK_THROWS_WITH_AS(open_export("convnet")->initial({3, 6, 6}, 3, random), doctest::Contains("expected [2, 6, 6]"),
                         InvalidArgument);
    const auto shares =
        open_export("shares", ",head=out");  // of its two layers, as wide as each other, the last is new
    CHECK(dynamic_cast<const ExportedModel&>(*shares).notes().back().find("shares that sum to 1") != std::string::npos);
    const auto anew = shares->initial({4}, 2, random), kept = shares->initial({4}, 3, random);
    CHECK(anew.at("head.out.2.weight").size(0) == 2);
    CHECK(at::equal(anew.at("head.out.0.weight"), kept.at("head.out.0.weight")));
    CHECK_THROWS_WITH_AS(open_export("shares", ",head=stem")->initial({4}, 2, random),
                         doctest::Contains("no linear layer in stem that is trained makes these outputs"),
                         InvalidArgument);
    CHECK_THROWS_WITH_AS(names("other-head", ",head=no"), doctest::Contains("unknown module \"no\""), InvalidArgument);
    CHECK_THROWS_WITH_AS(names("other-head", ",head=fc"), doctest::Contains("another module called head"),
                         InvalidArgument);
  }

  TEST_CASE("exported models: the loss that a model makes itself is an example's loss, without a Gauss-Newton") {
    const Fixture f("loss-inside");
    const auto loss = create<Loss>("exported");
    const auto out = f.model->output(f.theta, f.batch);
    CHECK(relative_error(loss->per_example(out, f.batch), f.told.at("output")) < kSame);
    CHECK_THROWS_WITH_AS(loss->hessian_root(out, f.batch), doctest::Contains("--curvature hessian"), InvalidArgument);
    Dataset::Contents contents;
    contents.inputs = f.batch.inputs;
    contents.ids = f.batch.ids;
    contents.targets = at::zeros({f.batch.size(), 1}, at::kDouble);
    const std::shared_ptr<const Model> model = open_export("loss-inside");
    const Objective objective(model, create<Loss>("exported"), create<Tuning>("full"), Dataset(std::move(contents)), 0,
                              f.theta, {}, 4);
    CHECK_FALSE(covered_by_layers({objective, f.theta.values(), {}}));  // or auto would have ekfac for cg
    const Fixture mlp("mlp");
    CHECK_THROWS_WITH_AS(loss->per_example(mlp.model->output(mlp.theta, mlp.batch), mlp.batch),
                         doctest::Contains("one number an example"), InvalidArgument);
  }

  TEST_CASE("exported models: an example that does not run is named, and so is one without the integers it needs") {
    const Fixture f("loss-inside");  // x [3] and label, of three classes
    auto batch = f.batch;
    batch.ids = batch.ids + 10;
    const auto told = [&](double label, Tape* tape) {
      batch.inputs = f.batch.inputs.clone();
      batch.inputs[2][3] = label;
      return test::message_of<InvalidArgument>([&] { f.model->output(f.theta, batch, tape); });
    };
    Tape tape;
    for (auto* const by_layers : {static_cast<Tape*>(nullptr), &tape}) {
      CHECK(told(9, by_layers).ends_with("out of bounds.: example 12 (label 9)"));
      CHECK(told(1.5, by_layers).find("example 12 has 1.5 for argument label, expected whole numbers (Long)") !=
            std::string::npos);
      CHECK(told(0x1p53, by_layers).find("up to which Double holds all of them") != std::string::npos);
    }
  }
}
