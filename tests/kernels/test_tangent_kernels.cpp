#include "kernels/points.h"
#include "models/made.h"
#include "support/some.h"
#include "whence/core/error.h"
#include "whence/kernels/detail/block_products.h"
#include "whence/models/ops.h"

using namespace whence;
using namespace whence::test;

namespace {

Stage twice_used() {
  Dataset::Contents images;
  images.inputs = Random(4).normal({5, 2, 7, 8});
  images.targets = at::tensor({0, 2, 1, 1, 0}, at::kLong);
  images.classes = {"a", "b", "c"};
  images.ids = at::arange(5);
  return begin_stage({.name = "stage",
                      .model = std::make_shared<TwiceUsed>(),
                      .loss = create<Loss>("cross-entropy"),
                      .data = Dataset(std::move(images)).to(at::kDouble, at::kCPU)},
                     {}, Random(1));
}

/// Each of a block's parameters by both ways, and the kernels in blocks of some sizes, against their definition.
void check_kernels(KernelPoint point, const std::vector<std::int64_t>& blocks = {1, 3, 100},
                   const std::vector<std::string>& kernels = kTangentKernels) {
  const auto& data = point.objective.data();
  const auto of_each = output_gradients(point, data);
  const auto merged = point.objective.merge(point.theta, point.parent);
  const auto taped = whence::detail::taped_names(point, merged, data);
  const auto entk = create<TangentKernel>("entk");
  const whence::detail::TapedBlock left(point, merged, taped, data, 0, 2, 2),
      right(point, merged, taped, data, 1, data.size(), 2);
  for (std::size_t p = 0; p < point.names.size(); ++p) {
    CAPTURE(point.names[p]);
    const auto expected = defined_kernel("entk", of_each[p].narrow(0, 0, 2), of_each[p].narrow(0, 1, data.size() - 1));
    for (const bool ghost : {false, true}) {
      CAPTURE(ghost);
      CHECK(
          relative_error(whence::detail::parameter_products(*entk, left.parameters()[p], right.parameters()[p], ghost),
                         expected) < Tolerance::kDense);
    }
  }
  const auto all_names = point.names, signed_names = names_with_signs(point, of_each);
  for (const auto& name : kernels) {
    CAPTURE(name);
    const auto kernel = create<TangentKernel>(name);
    point.names = kernel->plain() ? all_names : signed_names;
    TensorList gradients;
    for (std::size_t p = 0; p < all_names.size(); ++p) {
      if (std::find(point.names.begin(), point.names.end(), all_names[p]) != point.names.end()) {
        gradients.push_back(of_each[p]);
      }
    }
    const auto all = at::cat(gradients, 2);
    const auto expected = defined_kernel(name, all, all);
    for (const auto block : blocks) {
      CAPTURE(block);
      auto plan = plan_kernel(*kernel, point, data, nullptr, {.block = block});
      plan.pass = 2;  // a block of more goes through the model in parts
      KernelMatrix made(plan);
      make_kernel(*kernel, point, data, nullptr, plan, made);
      CHECK(relative_error(made.tensor(), expected) < Tolerance::kDense);
    }
    if (name == "a-signgd") {
      const auto rows = at::tensor({2, 0}, at::kLong);
      CHECK(relative_error(kernel_of(*kernel, point, data.take(rows), &data, {.block = 2}),
                           expected.index_select(0, rows)) < Tolerance::kDense);
    }
  }
}

}  // namespace

TEST_SUITE_BEGIN("kernels");

TEST_CASE("every kernel at every tuning is the product of explicit gradients") {
  for (const auto& on : kTuningCases) {
    const KernelCase bench(on);
    const auto specs = bench.tunings();
    for (const auto& spec : some(specs)) {
      CAPTURE(on.model);
      CAPTURE(spec);
      check_kernels(point_of(bench.moved(spec)), {3}, {"entk", "a-signgd"});
    }
  }
}

TEST_CASE("a layer used twice: gradients add before they are multiplied or signed") {
  check_kernels(point_of(twice_used()));
}

TEST_CASE("other outputs than the model's: a difference of logits, and losses, of tokens too") {
  const KernelCase bench(kTuningCases[2]);
  auto point = point_of(bench.moved("full"));
  point.outputs = logit_difference();
  check_kernels(point);
  CHECK(relative_error(outputs_at(point, point.objective.data()),
                       outputs_at(point_of(bench.moved("full")), point.objective.data()).diff(1, 1)) <
        Tolerance::kSameAlgebra);

  const TuningBench tokens(kTuningCases[2]);
  const auto stage = tokens.tuned("full");
  auto losses = point_of(stage);
  losses.outputs = example_losses(stage.objective.loss());
  check_kernels(losses);
}

TEST_CASE("where gradients are exactly 0 their sign is 0") {
  SUBCASE("of A where LoRA begins, B being 0") {
    const KernelCase bench(kTuningCases[3]);
    auto point = point_of(bench.fresh("lora:rank=2"));
    std::erase_if(point.names, [](const auto& name) { return name.find("lora_A") == std::string::npos; });
    REQUIRE(point.names.size() > 2);
    const auto kernel = kernel_of(*create<TangentKernel>("signgd"), point, point.objective.data());
    CHECK(kernel.abs().max().item<double>() == 0);
  }
  SUBCASE("of units that do not fire and of words that no text has") {
    auto stage = toy_stage("mlp:widths=6,activation=relu", 0);
    const auto point = point_of(stage);
    const auto& data = stage.objective.data();
    const auto gradients = at::cat(output_gradients(point, data), 2);
    const auto alive = gradients.ne(0).sum(2).to(at::kDouble);
    REQUIRE(alive.min().item<double>() < gradients.size(2));
    const auto kernel = kernel_of(*create<TangentKernel>("signgd"), point, data, nullptr, {.block = 5});
    CHECK(kernel.diagonal(0, 0, 2).diagonal(0, 0, 1).equal(alive));

    const KernelCase bench(kTuningCases[3]);
    auto words = point_of(bench.moved("full"));
    words.names = {"model.embed_tokens.weight"};
    const auto of_words = kernel_of(*create<TangentKernel>("signgd"), words, words.objective.data());
    // 2, 3, 1 and 2 distinct tokens, of 4 numbers each
    const auto tokens = at::tensor({8, 12, 4, 8}, at::kDouble);
    CHECK(of_words.diagonal(0, 0, 2).select(0, 0).select(0, 0).equal(tokens));
  }
}

TEST_CASE("a vocabulary of which a block sees few words takes those rows alone") {
  Scratch folder;
  folder.put("config.json",
             R"({"model_type": "gpt2", "vocab_size": 3000, "n_positions": 4, "n_embd": 4, "n_layer": 1, "n_head": 2,
                 "n_inner": 3})");
  const std::shared_ptr<const Model> model = create<Model>("transformer:directory=" + folder.folder().string());
  const auto stage =
      begin_stage({.name = "stage", .model = model, .loss = create<Loss>("cross-entropy"), .data = word_texts(3000)},
                  {}, Random(1));
  auto point = point_of(stage);
  const auto merged = point.objective.merge(point.theta, point.parent);
  const whence::detail::TapedBlock block(point, merged, point.names, point.objective.data(), 0, 2, 1);
  const auto table = std::find_if(block.parameters().begin(), block.parameters().end(),
                                  [](const auto& parameter) { return parameter.height == 3000; });
  REQUIRE(table != block.parameters().end());
  CHECK(table->active() == 5);
  CHECK(table->uses.size() == 2);
  check_kernels(point);
}

TEST_CASE("tall layers of which few units fire, other ones for each part of a block: joined they are the whole") {
  auto stage = toy_stage("mlp:widths=2048/2048/2048,activation=relu", 0);
  const auto& names = stage.objective.trained().names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i].starts_with("body.") && names[i].ends_with("bias")) {
      stage.theta[i] = at::where(at::arange(2048).remainder(4).eq(0), 0.0, -1e4).to(at::kDouble);
    }
  }
  const auto point = point_of(stage);
  const auto& data = stage.objective.data();
  const auto entk = create<TangentKernel>("entk");
  const auto in_parts = [&](std::int64_t pass) {
    auto plan = plan_kernel(*entk, point, data, nullptr);
    plan.pass = pass;
    KernelMatrix made(plan);
    make_kernel(*entk, point, data, nullptr, plan, made);
    return made.tensor();
  };
  const auto whole = in_parts(data.size());
  for (const std::int64_t pass : {1, 3}) {
    CAPTURE(pass);
    CHECK(relative_error(in_parts(pass), whole) < Tolerance::kDense);
  }
}

TEST_CASE("float32 is the kernel of its gradients, and sums of signs are whole numbers") {
  const KernelCase bench(kTuningCases[0]);
  const auto stage = bench.moved("full");
  const auto point = point_of(stage);
  const auto& data = stage.objective.data();
  const auto in_float = [](TensorList values) {
    for (auto& value : values) {
      value = value.to(at::kFloat);
    }
    return values;
  };
  const KernelPoint narrow{stage.objective.to(at::kFloat), in_float(stage.theta), in_float(stage.parent), point.names};
  for (const auto& name : kTangentKernels) {
    const auto kernel = create<TangentKernel>(name);
    const auto found = kernel_of(*kernel, narrow, narrow.objective.data());
    CHECK((found.scalar_type() == at::kDouble));
    CHECK(relative_error(found, kernel_of(*kernel, point, data)) < (name == "signgd" ? 0.05 : 1e-5));
    if (name == "signgd") {
      CHECK(found.equal(found.round()));
    }
  }
}

TEST_CASE("a kernel that a program adds is made of its own two functions") {
  class Squares : public TangentKernel {
   public:
    bool plain() const override { return false; }
    bool symmetric() const override { return false; }
    at::Tensor row(at::Tensor gradients) const override { return gradients.square_(); }
  };
  const KernelCase bench(kTuningCases[2]);
  const auto point = point_of(bench.moved("full"));
  const auto gradients = at::cat(output_gradients(point, point.objective.data()), 2);
  CHECK(relative_error(kernel_of(Squares(), point, point.objective.data(), nullptr, {.block = 3}),
                       defined_kernel("entk", gradients.square(), gradients)) < Tolerance::kDense);
}

TEST_SUITE_END();
