// The score of an example for its own loss, against dense algebra in double.
#include <torch/csrc/autograd/autograd.h>

#include "attribution/made.h"
#include "models/language.h"
#include "whence/attribution/self_influence.h"
#include "whence/curvature/example_norms.h"
#include "whence/curvature/spectral_operator.h"

using namespace whence;
using test::relative_error;

namespace {

const std::vector<test::ToyStage> kChain{
    {"full", "cross-entropy"}, {"full:proximity=0.3", "squared-error"}, {"head", "cross-entropy"}};

/// Gradients of each example's loss in what the stage trains: [N, P].
at::Tensor example_gradients(const Stage& stage) {
  TensorList rows;
  for (std::int64_t i = 0; i < stage.objective.data().size(); ++i) {
    const auto theta = leaves(stage.theta);
    const auto one = stage.objective.data().batch(i, i + 1);
    rows.push_back(flatten(gradient(stage.objective.example_losses(theta, stage.parent, one).sum(), theta)));
  }
  return at::stack(rows);
}

/// -g' M g for every row of `g`.
at::Tensor forms(const at::Tensor& g, const at::Tensor& m) { return -(g.mm(m) * g).sum(1); }

at::Tensor self_of(const Chain& chain, std::size_t stage, const char* curvature, const char* solver,
                   InverseOptions options = {.damping = 0.3}, const char* method = "influence",
                   std::string* how = nullptr) {
  const auto out = self_influence({chain, stage, create<Attributor>(method), create<Curvature>(curvature),
                                   solver == nullptr ? nullptr : create<Solver>(solver), options, 5},
                                  {});
  if (how != nullptr) {
    *how = out.how;
  }
  return out.scores;
}

}  // namespace

TEST_SUITE_BEGIN("attribution");

TEST_CASE("self-influence equals the dense form at each stage's own end, by every exact way and any solver") {
  const auto chain = test::toy_chain(kChain);
  for (std::size_t k = 0; k < chain.size(); ++k) {
    CAPTURE(k);
    const auto& stage = chain[k];
    const auto g = example_gradients(stage);
    const auto p = g.size(1);
    const auto h = test::dense_hessian(stage.objective, stage.theta, stage.parent).narrow(1, 0, p);
    const auto expected = forms(g, at::linalg_inv(h + 0.3 * at::eye(p, at::kDouble)));
    CHECK(expected.max().item<double>() < 0);  // more of an example lowers its own loss
    for (const char* solver : {"direct", "cg:relative-tolerance=1e-13", "auto", "lanczos:relative-tolerance=1e-13"}) {
      CAPTURE(solver);
      CHECK(relative_error(self_of(chain, k, "hessian", solver), expected) < 1e-9);
    }
    std::string how;
    CHECK(relative_error(self_of(chain, k, "hessian", nullptr, {.damping = 0.3}, "influence", &how), expected) <
          test::Tolerance::kDense);
    CHECK(how == fmt::format("exact, by the matrix of {} parameters", p));

    const auto [values, vectors] = at::linalg_eigh(h);
    const auto filtered = (vectors * (values / (values.square() + 0.04))).mm(vectors.t());
    CHECK(relative_error(self_of(chain, k, "hessian", "direct", {.inversion = Inversion::kFiltered, .damping = 0.2}),
                         forms(g, filtered)) < test::Tolerance::kDense);
  }
}

TEST_CASE("self-influence by factors equals the form with the matrix that the factors are") {
  const auto chain = test::toy_chain(kChain);
  for (std::size_t k = 0; k < chain.size(); ++k) {
    CAPTURE(k);
    const auto& stage = chain[k];
    const auto g = example_gradients(stage);
    const auto unit = at::eye(g.size(1), at::kDouble);
    for (const char* curvature : {"ekfac", "kfac", "diagonal"}) {
      CAPTURE(curvature);
      const auto a = create<Curvature>(curvature)->operator_at({stage.objective, stage.theta, stage.parent});
      const auto expected = forms(g, at::linalg_inv(a->apply(unit) + 0.3 * unit));
      CHECK(relative_error(self_of(chain, k, curvature, "ekfac"), expected) < test::Tolerance::kDense);
      CHECK(relative_error(self_of(chain, k, curvature, nullptr), expected) < test::Tolerance::kDense);
    }
    const auto factors = create<Curvature>("ekfac")->operator_at({stage.objective, stage.theta, stage.parent});
    CHECK(relative_error(self_of(chain, k, "hessian", "ekfac"),
                         forms(g, at::linalg_inv(factors->apply(unit) + 0.3 * unit))) < test::Tolerance::kDense);
    const auto gauss_newton =
        create<Curvature>("gauss-newton")->operator_at({stage.objective, stage.theta, stage.parent});
    CHECK(relative_error(self_of(chain, k, "gauss-newton", "woodbury"),
                         forms(g, at::linalg_inv(gauss_newton->apply(unit) + 0.3 * unit))) < 1e-9);
  }
}

TEST_CASE("self-influence by factors is called approximate unless they are the curvature itself") {
  const auto chain = test::toy_chain({{"full", "cross-entropy"}});
  const auto approximate = [&](const char* curvature, const char* solver) {
    return self_influence({chain,
                           0,
                           create<Attributor>("influence"),
                           create<Curvature>(curvature),
                           solver == nullptr ? nullptr : create<Solver>(solver),
                           {.damping = 0.3},
                           5},
                          {})
        .approximate;
  };
  CHECK(approximate("hessian", "ekfac"));
  CHECK(approximate("gauss-newton", "ekfac"));
  CHECK_FALSE(approximate("ekfac", "ekfac"));
  CHECK_FALSE(approximate("ekfac", nullptr));
  CHECK_FALSE(approximate("hessian", "direct"));
  CHECK_FALSE(approximate("hessian", nullptr));
}

namespace {

/// ekfac, with a count of its fits.
class Counted : public Curvature {
 public:
  OperatorPtr operator_at(const CurvaturePoint& point) const override {
    ++fits;
    return made_->operator_at(point);
  }
  at::Tensor mixed_product(const CurvaturePoint& point, const at::Tensor& v) const override {
    return made_->mixed_product(point, v);
  }
  bool factored() const override { return true; }
  mutable int fits = 0;

 private:
  std::unique_ptr<Curvature> made_ = create<Curvature>("ekfac");
};

}  // namespace

TEST_CASE("how self-influence goes about it is decided without a fit, which is then made once") {
  const std::shared_ptr<const Attributor> influence = create<Attributor>("influence");
  const Chain wide{test::toy_stage("mlp:widths=2000,activation=tanh", 0)};
  const auto counted = std::make_shared<const Counted>();
  const SelfInfluenceTask task{wide, 0, influence, counted, nullptr, {.relative_damping = 1}};
  CHECK(self_influence_plan(task) == "by the curvature's own eigenvectors");
  CHECK(counted->fits == 0);
  const Chain small{test::toy_stage("mlp:widths=4,activation=tanh", 0)};
  self_influence({small, 0, influence, counted, create<Solver>("ekfac"), {.relative_damping = 1}}, {});
  CHECK(counted->fits == 1);
  // no decay, and the damping that is the default
  CHECK(
      self_influence_plan({wide, 0, influence, create<Curvature>("gauss-newton"), nullptr, {.relative_damping = 1}}) ==
      "exact, by the matrix of 24 rows");
}

TEST_CASE("embeddings and norms are factored too where solves would take long") {
  test::LanguageCase text("gpt2-classification");
  const auto data = text.data.take(at::zeros({1000}, at::kLong));
  const std::shared_ptr<const Model> model = std::move(text.model);
  std::shared_ptr<const Tuning> tuning = create<Tuning>("full");
  const auto trained = text.theta;
  Objective objective(model, std::move(text.loss), tuning, data, 0, trained, {}, 100);
  const Chain chain{{"texts", std::move(objective), create<Optimizer>("lbfgs"), clone(trained.values()), {}}};
  const auto how = self_influence_plan(
      {chain, 0, create<Attributor>("influence"), create<Curvature>("hessian"), nullptr, {.relative_damping = 1}});
  CHECK(how.starts_with("approximate, by ekfac's factors"));
  CHECK(has_exact_forms({chain[0].objective, chain[0].theta, {}}));  // one prediction a text, by a head of its own
}

TEST_CASE("where a text uses a tied head at many places, forms by factors are approximate") {
  for (const char* name : {"gpt2", "gpt2-untied"}) {
    CAPTURE(name);
    test::LanguageCase text(name);
    const std::shared_ptr<const Model> model = std::move(text.model);
    std::shared_ptr<const Tuning> tuning = create<Tuning>("full");
    const auto trained = text.theta;
    const Objective objective(model, std::move(text.loss), tuning, text.data, 0, trained, {}, 100);
    CHECK(has_exact_forms({objective, clone(trained.values()), {}}) == (std::string_view(name) == "gpt2-untied"));
  }
}

TEST_CASE("self-influence by factors does not depend on the batch, however the blocks differ in size") {
  auto stage = test::toy_stage("mlp:widths=4,activation=tanh", 0);
  for (std::size_t i = 0; i < stage.theta.size(); ++i) {
    if (stage.objective.trained().names()[i] == "head.weight") {
      stage.theta[i] = 1e-8 * stage.theta[i];  // the curvature of the layer below is 1e-16 of the head's
    }
  }
  const auto scores = [&](std::int64_t batch_size) {
    auto batched = stage;
    batched.objective = stage.objective.with_batch_size(batch_size);
    return self_of({batched}, 0, "ekfac", "ekfac", {.damping = 0});
  };
  CHECK(relative_error(scores(1), scores(12)) < 1e-8);
}

TEST_CASE("self-influence without a curvature: squared lengths; and by every method the matrix's diagonal") {
  const auto chain = test::traced_chain(test::kTwoStages);
  for (std::size_t k = 0; k < chain.size(); ++k) {
    const auto& stage = chain[k];
    CHECK(relative_error(self_of(chain, k, "hessian", nullptr, {}, "grad-dot"),
                         -example_gradients(stage).square().sum(1)) < test::Tolerance::kSameAlgebra);
    auto traced = at::zeros({stage.objective.data().size()}, at::kDouble);
    for (const auto& snapshot : stage.trajectory) {
      auto there = stage;
      there.theta = snapshot.theta;
      traced.sub_(example_gradients(there).square().sum(1), snapshot.time);
    }
    CHECK(relative_error(self_of(chain, k, "hessian", nullptr, {}, "tracin"), traced) < test::Tolerance::kSameAlgebra);
    const Chain alone{stage};
    for (const auto& method : methods<Attributor>()) {
      CAPTURE(method.name);
      const auto self = [&](const char* solver) {
        return self_of(chain, k, "hessian", solver, {.damping = 0.3}, method.name.c_str());
      };
      if (test::prepared(alone, method.name)->own_normalization() == Normalization::kCosine) {
        CHECK_THROWS_WITH_AS(self(nullptr), doctest::Contains("use grad-dot"), InvalidArgument);
        continue;
      }
      CHECK(relative_error(self("direct"), test::scores_of(alone, 0, stage.objective.data(), method.name).diagonal()) <
            1e-10);
    }
  }
  InverseOptions segment{.response = Response::kSegment};
  const Chain alone{chain[1]};
  const auto source = create<Attributor>("influence")
                          ->prepare(alone, {create<Curvature>("gauss-newton"), create<Solver>("direct"), segment});
  CHECK(relative_error(self_of(chain, 1, "gauss-newton", "direct", segment),
                       score_matrix(alone, 0, *source, chain[1].objective.data(), Measurement::kLoss).diagonal()) <
        1e-10);
}

TEST_CASE("self-influence in float32 and in any batch is that in double") {
  const auto chain = test::toy_chain({{"full", "cross-entropy", 0.05, 40}});
  const auto expected = self_of(chain, 0, "hessian", "direct", {.damping = 1e-3});
  auto batched = chain;
  batched[0].objective = batched[0].objective.with_batch_size(7);
  CHECK(relative_error(self_of(batched, 0, "hessian", "direct", {.damping = 1e-3}), expected) <
        test::Tolerance::kSameAlgebra);
}
