#include <ATen/record_function.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <cstdlib>
#include <functional>
#include <memory>
#include <set>

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

const fs::path kFolder = fs::path(WHENCE_TESTS) / "models/exported";

std::unique_ptr<Model> open(const std::string& name, const std::string& more = "", const fs::path& folder = kFolder) {
  return create<Model>("exported:file=" + (folder / (name + ".pt2")).string() + more);
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

  explicit Fixture(const std::string& name, const fs::path& folder = kFolder)
      : model(open(name, "", folder)), told(read_safetensors(folder / (name + ".safetensors"))) {
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

const std::vector<std::string> kModels = {"mlp",       "convnet",   "residual",    "gpt",     "masked",  "lstm",
                                          "two",       "conv1",     "loss-inside", "solid",   "grouped", "transposed",
                                          "recurrent", "projected", "padded",      "spelled", "headed",  "reshaped"};
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
      const auto model = open(name);
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
    const auto model = open("convnet", ",head=fc");
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
      const auto model = open("masked", ",head=fc");
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
    const whence::detail::Zip zip(kFolder / "padded.pt2");
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
      const auto model = spec == "exported" ? open("convnet") : create<Model>(spec);
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
      const auto model = open(name);
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
    CHECK_THROWS_WITH_AS(open("convnet")->initial({3, 6, 6}, 3, random), doctest::Contains("expected [2, 6, 6]"),
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
    CHECK(notes("two").find("by a copy an example (token)") != std::string::npos);
    CHECK(notes("projected").find("one example at a time") != std::string::npos);
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
    const std::shared_ptr<const Model> model = open("loss-inside");
    const Objective objective(model, create<Loss>("exported"), create<Tuning>("full"), Dataset(std::move(contents)), 0,
                              f.theta, {}, 4);
    CHECK_FALSE(covered_by_layers({objective, f.theta.values(), {}}));  // or auto would have ekfac for cg
    const Fixture mlp("mlp");
    CHECK_THROWS_WITH_AS(loss->per_example(mlp.model->output(mlp.theta, mlp.batch), mlp.batch),
                         doctest::Contains("one number an example"), InvalidArgument);
  }

  TEST_CASE("exported models: hostile files are refused in one line, and none is run") {
    const whence::detail::Zip zip(kFolder / "mlp.pt2");
    std::vector<std::pair<std::string, std::string>> members;
    for (const auto& name : zip.names()) {
      members.emplace_back("m/" + name, zip.text(name));
    }
    const Scratch scratch;
    const auto refused = [&](const std::string& bytes) -> std::string {
      const auto path = scratch.put("hostile.pt2", bytes);
      try {
        create<Model>("exported:file=" + path.string());
      } catch (const Error& error) {
        const std::string text = error.what();
        CHECK(text.find('\n') == text.npos);
        return text;
      }
      return "";
    };
    CHECK(refused(stored_zip(members)).empty());
    /// The file with one member changed.
    const auto with = [&](const std::string& name, auto&& change) {
      auto changed = members;
      for (auto& [member, data] : changed) {
        if (member == "m/" + name) {
          change(data);
        }
      }
      return refused(stored_zip(changed));
    };
    /// The program or the weights' table with a text in it replaced.
    const auto replaced = [&](const std::string& name, const std::string& from, const std::string& to) {
      return with(name, [&](std::string& data) {
        const auto place = data.find(from);
        REQUIRE(place != data.npos);
        data.replace(place, from.size(), to);
      });
    };
    const std::string program = "models/model.json", weights = "data/weights/model_weights_config.json";
    const std::string node = "torch.ops.aten.tanh.default";
    for (const auto& [op, why] : std::vector<std::pair<std::string, std::string>>{
             {"torch.ops.aten.from_file.default", "that are not run"},
             {"torch.ops.aten.set_.source_Tensor", "that are not run"},
             {"torch.ops.aten._index_put_impl_.default", "that are not run"},
             {"torch.ops.aten.max_pool2d_with_indices_backward.default", "that are not run"},
             {"torch.ops.aten.segment_reduce.default", "that are not run"},
             {"torch.ops.aten.sparse_csr_tensor.crow_col_value_size", "that are not run"},
             {"torch.ops.aten.mkldnn_rnn_layer.default", "that are not run"},
             {"torch.ops.mine.twice.default", "torch.ops.mine.twice.default (tanh in 1)"},
             {"torch.ops.higher_order.while_loop", "that are not run"},
             {"os.system", "that are not run"},
             {"torch.ops.aten.bernoulli.default", "draws random numbers"},
             {"torch.ops.aten.mm.default", "without its argument mat2"}}) {
      CAPTURE(op);
      CHECK(replaced(program, node, op).find(why) != std::string::npos);
    }
    for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
             {"\"as_int\": 5", "\"as_int\": 5000000000"},
             {"\"as_int\": 5", "\"as_int\": -5"},
             {"\"as_int\": 5", "\"as_expr\": 5"},
             {"\"use_pickle\": false", "\"use_pickle\": true"},
             {"\"path_name\": \"weight_0\"", "\"path_name\": \"../../etc/passwd\""},
             {"\"storage_offset\": {\"as_int\": 0}", "\"storage_offset\": {\"as_int\": 9223372036854775807}"},
             {"\"dtype\": 7", "\"dtype\": 77"},
             {"\"layout\": 7", "\"layout\": 1"}}) {
      CAPTURE(to);
      CHECK_FALSE(replaced(weights, from, to).empty());
    }
    // many names, each of as much as a few bytes may be seen as
    CHECK(with(weights, [](std::string& data) {
            auto json = parse_json(data, "weights");
            auto entry = json["config"].begin().value();
            const auto sizes = [](std::int64_t size) {
              return nlohmann::json::array({nlohmann::json::object({{"as_int", size}})});
            };
            entry["tensor_meta"]["strides"] = sizes(0);
            for (int i = 0; i < 8; ++i) {
              entry["tensor_meta"]["sizes"] = sizes((1 << 22) - i);
              json["config"]["more" + std::to_string(i)] = entry;
            }
            data = json.dump();
          }).find("tensors of more than 2 times its") != std::string::npos);
    CHECK(replaced(program, "\"major\":8", "\"major\":9").find("schema version 9") != std::string::npos);
    CHECK_FALSE(with(program, [](std::string& data) { data.resize(data.size() / 2); }).empty());
    CHECK_FALSE(with(program, [](std::string& data) { data = std::string(4000, '['); }).empty());
    CHECK(with("archive_format", [](std::string& data) { data = "pt3"; }).find("expected pt2") != std::string::npos);
    auto pickled = members;
    pickled.emplace_back("m/data/weights/model.pt", "");
    CHECK(refused(stored_zip(pickled)).find("as a pickle") != std::string::npos);
    pickled.back().first = "m/" + program;
    CHECK(refused(stored_zip(pickled)).find("there twice") != std::string::npos);
    CHECK(refused(stored_zip({{"m/data.pkl", ""}})).find("torch.save") != std::string::npos);
    CHECK(refused(stored_zip({{"m/serialized_exported_program.json", ""}})).find("before 2.8") != std::string::npos);
    const auto whole = stored_zip(members);
    for (std::size_t size = 0; size < whole.size(); size += 97) {
      CHECK_FALSE(refused(whole.substr(0, size)).empty());
    }
    auto packed = whole;
    packed[8] = 8;  // deflated, says the first member; the directory counts
    packed[packed.find("PK\x01\x02") + 10] = 8;
    CHECK(refused(packed).find("compressed") != std::string::npos);
    Random random(3);
    for (int i = 0; i < 200; ++i) {  // a flipped byte is no fault, and almost always found
      auto flipped = whole;
      const auto place = random.stream(std::to_string(i)).uniform({1}, 0, static_cast<double>(whole.size()));
      flipped[static_cast<std::size_t>(place.item<double>())] ^= 0x10;
      CHECK_NOTHROW(refused(flipped));
    }
  }
}
