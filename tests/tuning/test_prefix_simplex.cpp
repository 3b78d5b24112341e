// What a simplex of prefixes draws, and what it is at its middle.
#include "tuning/prefixed.h"
#include "whence/core/error.h"
#include "whence/models/ops.h"

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

  TEST_CASE("heads may be one") {
    const Simplex s(kRoomyTransformers[0], ",heads=false");
    for (const auto& name : s.tuned.names()) {
      CHECK(name.find(".vertex.") == std::string::npos);
    }
    CHECK(s.roomy.model->head().of(s.tuned).size() == s.roomy.model->head().of(s.roomy.fresh).size());
  }
}
