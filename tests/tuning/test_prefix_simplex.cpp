// What a simplex of prefixes draws, and what it is at its middle.
#include "tuning/prefixed.h"
#include "whence/core/error.h"
#include "whence/models/ops.h"
#include "whence/models/per_sample.h"
#include "whence/stages/stage.h"
#include "whence/training/validation.h"

using namespace whence;
using namespace whence::test;

namespace {

/// The number of the vertex at the end of a name, or -1: tuning.M.prefix_key.0.2, tuning.M.vertex.2.weight.
std::int64_t vertex_of(const std::string& name) {
  if (name.starts_with("head.")) {
    return 0;
  }
  auto part = name.substr(0, name.rfind('.'));
  const auto vertex = part.find(".vertex.");
  return std::stoll(vertex == std::string::npos ? name.substr(name.rfind('.') + 1) : part.substr(vertex + 8));
}
/// What it is a vertex of: a parameter of a plain prefix, or of the head.
std::string of_vertex(const std::string& name) {
  if (name.starts_with("head.")) {
    return name;
  }
  const auto vertex = name.find(".vertex.");
  return vertex == std::string::npos ? name.substr(0, name.rfind('.'))
                                     : name.substr(7, vertex - 7) + name.substr(name.rfind('.'));
}

/// Each vertex's parameters as weighed by `shares`, of a plain prefix and a head.
ParameterSet mixed(const ParameterSet& plain, const ParameterSet& simplex, const std::vector<double>& shares) {
  TensorList values;
  for (const auto& name : plain.names()) {
    auto sum = at::zeros_like(plain.at(name));
    for (std::size_t i = 0; i < simplex.size(); ++i) {
      const auto& parameter = simplex.names()[i];
      if (of_vertex(parameter) == name) {
        sum = sum + shares[static_cast<std::size_t>(vertex_of(parameter))] * simplex.values()[i];
      }
    }
    values.push_back(sum);
  }
  return plain.with(std::move(values));
}

/// Which part of the model a parameter's vertices are of: an attention, or the head.
std::string part_of(const std::string& name) {
  const auto place = name.find(".prefix_");
  return place == std::string::npos ? "head" : name.substr(7, place - 7);
}

/// The plain prefix and head of a model of the bank, by shares drawn here: exponential numbers by their sum.
ParameterSet bank_model(const ParameterSet& plain, const ParameterSet& simplex, std::int64_t number,
                        std::uint64_t seed = 0) {
  TensorList values;
  for (const auto& name : plain.names()) {
    const auto drawn = Random(seed)
                           .stream("simplex")
                           .stream(part_of(name))
                           .stream("model " + std::to_string(number))
                           .uniform({3}, 0, 1);
    const auto waits = -(1 - drawn).log();
    const auto shares = waits / waits.sum();
    values.push_back(
        mixed(plain, simplex, {shares[0].item<double>(), shares[1].item<double>(), shares[2].item<double>()}).at(name));
  }
  return plain.with(std::move(values));
}

struct Simplex {
  explicit Simplex(const RoomyTransformer& family, const std::string& options = "")
      : roomy(family, /*classes=*/true),
        tuning(create<Tuning>("prefix-simplex:vertices=3,length=2" + options)),
        prefix(create<Tuning>("prefix:length=2")),
        tuned(roomy.start(*tuning)),
        plain(roomy.start(*prefix)) {}

  Roomy roomy;
  std::unique_ptr<Tuning> tuning, prefix;
  ParameterSet tuned, plain;
};

}  // namespace

TEST_SUITE("tuning") {
  TEST_CASE("at the middle a simplex is the prefix and head of the mean, and hands that prefix on") {
    for (const auto& family : {kRoomyTransformers[0], kRoomyTransformers[1], kRoomyTransformers[3]}) {
      CAPTURE(family.name);
      const Simplex s(family);
      const auto& model = *s.roomy.model;
      const auto batch = s.roomy.data.batch(0, 4);
      const auto middle = mixed(s.plain, s.tuned, {1.0 / 3, 1.0 / 3, 1.0 / 3});
      const auto expected = model.output(s.prefix->merge(s.roomy.parent, middle), batch);
      const auto merged = s.tuning->merge(s.roomy.parent, s.tuned);
      CHECK(relative_error(model.output(merged, batch), expected) < Tolerance::kSameAlgebra);
      CHECK(relative_error(model.output(merged, s.roomy.data.as_sampled().batch(0, 4)), expected) > 1e-4);
      {
        const DerivativeOrder first(1);
        CHECK(relative_error(model.output(merged, batch), expected) < Tolerance::kSameAlgebra);
      }
      const auto handed = s.tuning->hand_on(model.head(), s.roomy.parent, s.tuned);
      const auto body = s.prefix->hand_on(model.head(), s.roomy.parent, middle);
      CHECK(handed.size() == body.size());
      for (const auto& name : body.names()) {
        CHECK(relative_error(handed.at(name), body.at(name)) < Tolerance::kSameAlgebra);
      }
      const auto head = model.head().of(s.roomy.fresh);
      CHECK(relative_error(model.output(handed.join(head), s.roomy.data.as_sampled().batch(0, 4)),
                           model.output(body.join(head), batch)) < Tolerance::kSameAlgebra);
    }
  }

  TEST_CASE("equal vertices are the single prefix, whatever is drawn; one vertex is it too") {
    const Simplex s(kRoomyTransformers[1]);
    const auto& model = *s.roomy.model;
    TensorList values;
    for (const auto& name : s.tuned.names()) {
      values.push_back(s.plain.at(of_vertex(name)));
    }
    const auto equal = s.tuning->merge(s.roomy.parent, s.tuned.with(values));
    const auto batch = s.roomy.data.as_sampled().batch(0, 4);
    const auto expected = model.output(s.prefix->merge(s.roomy.parent, s.plain), batch);
    CHECK(relative_error(model.output(equal, batch), expected) < Tolerance::kSameAlgebra);
    const auto single = create<Tuning>("prefix-simplex:vertices=1,length=2");
    const auto one = s.roomy.start(*single);
    CHECK(relative_error(model.output(single->merge(s.roomy.parent, one), batch),
                         model.output(s.prefix->merge(s.roomy.parent, mixed(s.plain, one, {1})), batch)) <
          Tolerance::kSameAlgebra);
  }

  TEST_CASE("an example's draw is its own: whatever the batch, the packing and the kernel, and another by the seed") {
    const Simplex s(kRoomyTransformers[0]);
    const auto& model = *s.roomy.model;
    const auto merged = s.tuning->merge(s.roomy.parent, s.tuned);
    const auto data = s.roomy.data.as_sampled();
    const auto all = model.output(merged, data.batch(0, 4));
    CHECK(relative_error(model.output(merged, data.without_packing().batch(0, 4)), all) < Tolerance::kSameAlgebra);
    TensorList alone;
    for (std::int64_t i = 0; i < 4; ++i) {
      alone.push_back(model.output(merged, data.take(at::tensor({i}, at::kLong)).batch(0, 1)));
    }
    CHECK(relative_error(at::cat(alone), all) < Tolerance::kSameAlgebra);
    {
      const DerivativeOrder first(1);
      CHECK(relative_error(model.output(merged, data.batch(0, 4)), all) < Tolerance::kSameAlgebra);
    }
    const auto other = create<Tuning>("prefix-simplex:vertices=3,length=2,seed=5");
    const auto of_other = other->merge(s.roomy.parent, s.roomy.start(*other).with(s.tuned.values()));
    CHECK(relative_error(model.output(of_other, data.batch(0, 4)), all) > 1e-4);
    // one text under two ids
    auto contents = Dataset::Contents();
    contents.texts = s.roomy.data.texts();
    contents.texts.begins = at::zeros({2}, at::kLong);
    contents.texts.lengths = at::full({2}, 3, at::kLong);
    contents.targets = at::zeros({2}, at::kLong);
    contents.classes = {"a", "b", "c"};
    contents.ids = at::tensor({1, 2}, at::kLong);
    const auto twice = Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
    const auto outputs = model.output(merged, twice.as_sampled().batch(0, 2));
    CHECK(relative_error(outputs[0], outputs[1]) > 1e-4);
    const auto undrawn = model.output(merged, twice.batch(0, 2));
    CHECK(relative_error(undrawn[0], undrawn[1]) < Tolerance::kSameAlgebra);
  }

  TEST_CASE("draws are Dirichlet(1): moments of the head's, with equal prefixes") {
    // the head is linear, so that with vertices of 0 and one weight outputs are the shares times one number
    const Simplex s(kRoomyTransformers[0]);
    TensorList values;
    for (const auto& name : s.tuned.names()) {
      const auto vertex = vertex_of(name);
      const auto of = of_vertex(name);
      values.push_back(!of.starts_with("head.") ? at::zeros_like(s.tuned.at(name))
                       : vertex == 1            ? s.plain.at(of)
                                                : at::zeros_like(s.plain.at(of)));
    }
    const auto merged = s.tuning->merge(s.roomy.parent, s.tuned.with(values));
    constexpr std::int64_t kTexts = 2000;
    Dataset::Contents contents;
    contents.texts = s.roomy.data.texts();
    contents.texts.begins = at::zeros({kTexts}, at::kLong);
    contents.texts.lengths = at::full({kTexts}, 3, at::kLong);
    contents.targets = at::zeros({kTexts}, at::kLong);
    contents.classes = {"a", "b", "c"};
    contents.ids = at::arange(kTexts, at::kLong);
    const auto data = Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
    const auto middle = s.roomy.model->output(merged, data.batch(0, 1));  // a third
    const auto shares =
        s.roomy.model->output(merged, data.as_sampled().batch(0, kTexts)).select(1, 0) / (3 * middle[0][0]);
    CHECK(shares.min().item<double>() >= 0);
    CHECK(shares.max().item<double>() <= 1 + 1e-12);
    CHECK(shares.mean().item<double>() == doctest::Approx(1.0 / 3).epsilon(0.05));           // 1/m
    CHECK(shares.square().mean().item<double>() == doctest::Approx(1.0 / 6).epsilon(0.08));  // 2/(m (m+1))
  }

  TEST_CASE(
      "beta is the weight of the mean squared cosine of pairs of prefixes, all layers' keys and values together") {
    const Simplex s(kRoomyTransformers[1], ",beta=0.7");
    std::vector<TensorList> parts(3);
    for (const auto& name : s.tuned.names()) {
      if (name.find(".prefix_") != std::string::npos) {
        parts[static_cast<std::size_t>(vertex_of(name))].push_back(s.tuned.at(name));
      }
    }
    const TensorList p{flatten(parts[0]), flatten(parts[1]), flatten(parts[2])};
    double mean = 0;
    for (const auto& [i, j] : {std::pair{0, 1}, {0, 2}, {1, 2}}) {
      const auto &a = p[static_cast<std::size_t>(i)], &b = p[static_cast<std::size_t>(j)];
      mean += std::pow(at::dot(a, b).item<double>() / (a.norm() * b.norm()).item<double>(), 2) / 3;
    }
    CHECK(s.tuning->coupling(s.tuned).item<double>() == doctest::Approx(0.7 * mean).epsilon(1e-12));
    CHECK_FALSE(create<Tuning>("prefix-simplex")->coupling(s.tuned).defined());
    const auto zero = s.tuned.with(zeros_like(s.tuned.values()));
    CHECK(s.tuning->coupling(zero).item<double>() == 0);
  }

  TEST_CASE("an ensemble's probabilities are the mean of those of its models, for queries alone") {
    for (const auto& family : kRoomyTransformers) {
      CAPTURE(family.name);
      const Simplex s(family, ",inference=ensemble,draws=3"), middle(family);
      const auto& model = *s.roomy.model;
      const auto batch = s.roomy.data.batch(0, 4);
      const auto merged = s.tuning->merge(s.roomy.parent, s.tuned);
      at::Tensor mean;
      for (std::int64_t r = 0; r < 3; ++r) {
        const auto one = s.prefix->merge(s.roomy.parent, bank_model(s.plain, s.tuned, r));
        const auto probabilities = model.output(one, batch).softmax(1) / 3;
        mean = mean.defined() ? mean + probabilities : probabilities;
      }
      const auto output = model.output(merged, batch);
      CHECK(relative_error(output.exp(), mean) < Tolerance::kSameAlgebra);
      CHECK(relative_error(output.softmax(1), mean) < Tolerance::kSameAlgebra);
      {
        const DerivativeOrder first(1);
        CHECK(relative_error(model.output(merged, batch).exp(), mean) < Tolerance::kSameAlgebra);
      }
      // its own examples are as without
      const auto own = s.roomy.data.as_sampled().batch(0, 4);
      const auto as_middle = middle.tuning->merge(middle.roomy.parent, middle.tuned.with(s.tuned.values()));
      CHECK(at::equal(model.output(merged, own), middle.roomy.model->output(as_middle, own)));
      CHECK(relative_error(model.output(as_middle, batch).softmax(1), mean) > 1e-6);
      // the gradient that a query's score begins with
      const auto rows = example_gradients(s.roomy, merged, batch);
      const auto block = Random(3).normal({2, merged.entries()});
      const auto directions = directions_of(block, merged);
      const auto products = per_sample_products(model, *s.roomy.loss, merged, batch, directions);
      CHECK(relative_error(products, at::mm(block, rows.t())) < Tolerance::kDense);
      const auto loss_at = [&](double step) {
        TensorList moved;
        for (std::size_t i = 0; i < merged.size(); ++i) {
          moved.push_back(merged.values()[i] + step * directions.values()[i][0]);
        }
        return s.roomy.loss->per_example(model.output(merged.with(moved), batch), batch);
      };
      constexpr double kStep = 1e-5;
      CHECK(relative_error(products[0], (loss_at(kStep) - loss_at(-kStep)) / (2 * kStep)) < Tolerance::kDifferences);
    }
  }

  TEST_CASE("an ensemble that has no mean prediction for the loss's targets is refused where the stage begins") {
    const Simplex s(kRoomyTransformers[0]);
    const std::shared_ptr<const Model> model =
        create<Model>("transformer:directory=" + s.roomy.folder.folder().string());
    const auto begin = [&](const char* loss, const std::string& inference) {
      return begin_stage({.name = "tuned",
                          .model = model,
                          .loss = create<Loss>(loss),
                          .tuning = create<Tuning>("prefix-simplex:vertices=3,length=2,inference=" + inference),
                          .data = s.roomy.data,
                          .starts_trained = true},
                         {}, Random(1));
    };
    begin("cross-entropy", "ensemble");
    begin("binary-cross-entropy", "midpoint");
    CHECK_THROWS_WITH_AS(begin("binary-cross-entropy", "ensemble"),
                         doctest::Contains("stage tuned: its tuning predicts with an ensemble, expected "
                                           "inference=midpoint where a loss of events compares with classes"),
                         InvalidArgument);
  }

  TEST_CASE("an ensemble of equal vertices is the middle") {
    const Simplex s(kRoomyTransformers[1], ",inference=ensemble,draws=4");
    TensorList values;
    for (const auto& name : s.tuned.names()) {
      values.push_back(s.plain.at(of_vertex(name)));
    }
    const auto equal = s.tuning->merge(s.roomy.parent, s.tuned.with(values));
    const auto batch = s.roomy.data.batch(0, 4);
    const auto expected = s.roomy.model->output(s.prefix->merge(s.roomy.parent, s.plain), batch);
    CHECK(relative_error(s.roomy.model->output(equal, batch), expected.log_softmax(1)) < Tolerance::kSameAlgebra);
  }

  TEST_CASE("a validation by draws is the mean over the bank's models, the same at every measurement") {
    const Simplex s(kRoomyTransformers[3]);
    const std::shared_ptr<const Model> model =
        create<Model>("transformer:directory=" + s.roomy.folder.folder().string());
    const std::shared_ptr<const Loss> loss = create<Loss>("cross-entropy");
    const std::shared_ptr<const Tuning> tuning = create<Tuning>("prefix-simplex:vertices=3,length=2");
    const Objective objective(model, loss, tuning, s.roomy.data, 0.1, s.tuned, s.roomy.parent, 3);
    const auto measure = [&](const TensorList& theta) {
      return validate({.draws = 5}, s.roomy.data, objective, theta, s.roomy.parent.values(), 1, {});
    };
    const auto found = measure(s.tuned.values());
    double mean = 0, right = 0;
    const auto batch = s.roomy.data.batch(0, 4);
    for (std::int64_t r = 0; r < 5; ++r) {
      const auto output = model->output(s.prefix->merge(s.roomy.parent, bank_model(s.plain, s.tuned, r)), batch);
      mean += loss->per_example(output, batch).mean().item<double>() / 5;
      right += output.argmax(1).eq(batch.targets).to(at::kDouble).mean().item<double>() / 5;
    }
    CHECK(found.loss == doctest::Approx(mean).epsilon(1e-12));
    CHECK(found.accuracy == doctest::Approx(right).epsilon(1e-12));
    CHECK(measure(s.tuned.values()).loss == found.loss);
    const auto once = validate({}, s.roomy.data, objective, s.tuned.values(), s.roomy.parent.values(), 1, {});
    CHECK(std::abs(once.loss - found.loss) > 1e-6);
    // a model of the bank is one, also where predictions are means
    const std::shared_ptr<const Tuning> averaged =
        create<Tuning>("prefix-simplex:vertices=3,length=2,inference=ensemble");
    const auto of_mean = s.roomy.start(*averaged).with(s.tuned.values());
    const Objective ensemble(model, loss, averaged, s.roomy.data, 0.1, of_mean, s.roomy.parent, 3);
    CHECK(validate({.draws = 5}, s.roomy.data, ensemble, of_mean.values(), s.roomy.parent.values(), 1, {}).loss ==
          found.loss);
  }

  TEST_CASE("heads may be one") {
    const Simplex s(kRoomyTransformers[0], ",heads=false");
    for (const auto& name : s.tuned.names()) {
      CHECK(name.find(".vertex.") == std::string::npos);
    }
    CHECK(s.roomy.model->head().of(s.tuned).size() == s.roomy.model->head().of(s.roomy.fresh).size());
  }
}
