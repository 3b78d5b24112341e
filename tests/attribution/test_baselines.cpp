// The methods beside influence against their formulas, written out with dense matrices and one backward pass an
// example.
#include <cmath>

#include "attribution/made.h"
#include "whence/attribution/detail/projection.h"

using namespace whence;
using test::looped_gradients;
using test::relative_error;
using test::scores_of;
using test::Tolerance;

namespace {

const std::vector<test::ToyStage> kOneStage{{"full", "cross-entropy"}};

/// (mean of the rows' outer products + 0.1 mean eigenvalue I)^-1.
at::Tensor damped_inverse(const at::Tensor& rows, double relative = 0.1) {
  const auto c = rows.t().mm(rows) / rows.size(0);
  return at::linalg_inv(c + relative * c.diagonal().mean() * at::eye(c.size(0), at::kDouble));
}

/// A stage of images under a small convolution, where its training would begin.
Chain image_chain() {
  auto draws = Random(3);
  Dataset::Contents contents;
  contents.inputs = draws.normal({10, 1, 4, 4});
  contents.ids = at::arange(10);
  contents.targets = draws.uniform({10}, 0, 3).floor().to(at::kLong);
  contents.classes = {"a", "b", "c"};
  const auto data = Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
  return {begin_stage({.name = "images",
                       .model = create<Model>("convnet:channels=2,activation=tanh,pool=avg,dense=3"),
                       .loss = create<Loss>("cross-entropy"),
                       .data = data,
                       .weight_decay = 0.05,
                       .batch_size = 4},
                      {}, draws)};
}

}  // namespace

TEST_SUITE_BEGIN("attribution");

TEST_CASE("tracin is the sum over snapshots of time times the gradients' products") {
  const auto chain = test::traced_chain(test::kTwoStages);
  const auto queries = test::toy_data("cross-entropy", 4, 3, Random(99));
  for (std::size_t s = 0; s < 2; ++s) {
    const bool last = s == 1;
    const auto& data = chain[s].objective.data();
    auto expected = at::zeros({4, data.size()}, at::kDouble), lengths = at::zeros({data.size()}, at::kDouble),
         query_lengths = at::zeros({4}, at::kDouble);
    for (const auto& snapshot : chain[s].trajectory) {
      auto there = chain[s];
      there.theta = snapshot.theta;
      // Before the last stage there is no head that measures: the measurement's gradient is that of the chain's end.
      const auto of_queries = looped_gradients(last ? there : chain[1], queries, Measurement::kLoss, last);
      const auto of_examples = looped_gradients(there, data, Measurement::kLoss, last);
      expected -= snapshot.time * of_queries.mm(of_examples.t());
      query_lengths += snapshot.time * of_queries.square().sum(1);
      lengths += snapshot.time * looped_gradients(there, data).square().sum(1);
    }
    CHECK(relative_error(scores_of(chain, s, queries, "tracin"), expected) < Tolerance::kSameAlgebra);
    const auto cosine = scores_of(chain, s, queries, "tracin", Measurement::kLoss, Normalization::kCosine);
    CHECK(relative_error(cosine, expected / (query_lengths.unsqueeze(1) * lengths).sqrt()) < Tolerance::kSameAlgebra);
  }
  auto untraced = chain;
  untraced[0].trajectory.clear();
  CHECK_THROWS_WITH_AS(scores_of(untraced, 0, queries, "tracin"),
                       doctest::Contains("stage stage0: tracin follows training, and no snapshots of it were kept: say "
                                         "snapshots = 10"),
                       InvalidArgument);
}

TEST_CASE("trak is its formula with the same projection; margins give the paper's scores") {
  const auto chain = test::toy_chain(kOneStage);
  const auto& stage = chain[0];
  const auto& data = stage.objective.data();
  const auto queries = test::toy_data("cross-entropy", 4, 3, Random(99));
  const auto merged = stage.objective.merge(stage.theta, stage.parent);
  const auto of_margins = looped_gradients(stage, data, Measurement::kMargin);
  const auto slopes = (-measure_all(Measurement::kMargin, stage, data)).sigmoid();  // 1 - p
  CHECK(relative_error(looped_gradients(stage, data), -slopes.unsqueeze(1) * of_margins) < Tolerance::kSameAlgebra);
  for (const std::int64_t dimension : {5, 31, 64}) {
    CAPTURE(dimension);
    const whence::detail::Projection projection(Random(3).stream("trak"), dimension, merged);
    TensorList columns;
    const auto rows = projection.rows(0, dimension);
    for (const auto& name : merged.names()) {
      columns.push_back(rows.at(name).flatten(1));
    }
    const auto p = at::cat(columns, 1);  // [dimension, entries]
    const auto phi = of_margins.mm(p.t());
    const auto inverse = damped_inverse(phi);
    for (const auto measurement : {Measurement::kLoss, Measurement::kMargin, Measurement::kLogit}) {
      const auto of_queries = looped_gradients(stage, queries, measurement).mm(p.t());
      const auto expected = of_queries.mm(inverse).mm(phi.t()) * slopes;
      const auto spec = fmt::format("trak:dimension={},seed=3,relative-damping=0.1", dimension);
      CHECK(relative_error(scores_of(chain, 0, queries, spec, measurement), expected) < Tolerance::kDense);
    }
  }
  CHECK_THROWS_WITH_AS(scores_of(test::toy_chain({{"full", "squared-error"}}), 0,
                                 test::toy_data("squared-error", 2, 3, Random(9)), "trak"),
                       doctest::Contains("the targets here are values; use logra or grad-dot"), InvalidArgument);
  CHECK_THROWS_WITH_AS(scores_of(chain, 0, queries, "trak:dimension=40,relative-damping=0"),
                       doctest::Contains("stage stage0: trak: the covariance of 40 features over 12 examples"),
                       NumericalError);
}

TEST_CASE("a projection's rows do not depend on how many are asked for; its products are nearly those of the vectors") {
  ParameterSet layout;
  layout.add("a", at::zeros({20, 10}, at::kDouble));
  layout.add("b", at::zeros({7}, at::kDouble));
  const whence::detail::Projection projection(Random(1), 2000, layout);
  CHECK(projection.rows_at_once() == 2000);
  const auto all = projection.rows(0, 2000), some = projection.rows(5, 3);
  CHECK(all.at("a").sizes() == at::IntArrayRef({2000, 20, 10}));
  CHECK(at::equal(all.at("b").narrow(0, 5, 3), some.at("b")));
  const auto p = at::cat({all.at("a").flatten(1), all.at("b")}, 1);
  const auto identity = at::eye(207, at::kDouble);
  CHECK((p.t().mm(p) - identity).abs().max().item<double>() < 0.15);  // 1/sqrt(2000) = 0.022
}

TEST_CASE("logra of full rank is the dense covariance's formula, whatever the projections") {
  for (const bool images : {false, true}) {
    CAPTURE(images);
    const auto chain = images ? image_chain() : test::toy_chain(kOneStage);
    const auto& stage = chain[0];
    const auto& data = stage.objective.data();
    const auto queries =
        images ? data.take(at::tensor({1L, 4L, 7L})) : test::toy_data("cross-entropy", 4, 3, Random(99));
    const auto g = looped_gradients(stage, data), q = looped_gradients(stage, queries, Measurement::kLogit);
    const auto joint = -q.mm(damped_inverse(g)).mm(g.t());
    auto by_layer = at::zeros_like(joint);
    const auto merged = stage.objective.merge(stage.theta, stage.parent);
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < merged.size(); i += 2) {  // weight, bias
      const auto width = merged.values()[i].numel() + merged.values()[i + 1].numel();
      const auto part = g.narrow(1, offset, width);
      by_layer -= q.narrow(1, offset, width).mm(damped_inverse(part)).mm(part.t());
      offset += width;
    }
    for (const char* initial : {"random", "pca"}) {
      CAPTURE(initial);
      const auto spec = fmt::format("logra:rank=1000,initial={},covariance=", initial);
      CHECK(relative_error(scores_of(chain, 0, queries, spec + "joint", Measurement::kLogit), joint) <
            Tolerance::kDense);
      CHECK(relative_error(scores_of(chain, 0, queries, spec + "layer", Measurement::kLogit), by_layer) <
            Tolerance::kDense);
    }
    const auto lengths = (g.mm(damped_inverse(g)) * g).sum(1).sqrt();
    CHECK(relative_error(scores_of(chain, 0, queries, "logra:rank=1000,covariance=joint", Measurement::kLogit,
                                   Normalization::kRelatif),
                         joint / lengths) < Tolerance::kDense);
  }
}

TEST_CASE("logra of low rank: principal axes keep more of the gradients than random ones, and all ranks are finite") {
  const auto chain = test::toy_chain(kOneStage);
  const auto& data = chain[0].objective.data();
  const auto full = scores_of(chain, 0, data, "logra:rank=1000");
  const auto error = [&](const std::string& spec) { return relative_error(scores_of(chain, 0, data, spec), full); };
  CHECK(error("logra:rank=2,initial=pca") < error("logra:rank=2,initial=random"));
  CHECK(error("logra:rank=2,initial=pca") > 1e-6);
  CHECK(std::isfinite(error("logra:rank=1")));
}

TEST_CASE("rep-sim is the cosine of what the head sees, with the sign of the measurement") {
  const auto chain = test::toy_chain(test::kTwoStages);
  const auto queries = test::toy_data("cross-entropy", 4, 3, Random(99));
  for (std::size_t s = 0; s < 2; ++s) {
    const auto& stage = chain[s];
    const auto merged = stage.objective.merge(stage.theta, stage.parent);
    const auto hidden = [&](const Dataset& data) {
      const auto batch = data.batch(0, data.size());
      return (batch.inputs.mm(merged.at("body.0.weight").t()) + merged.at("body.0.bias")).tanh();
    };
    const auto a = hidden(queries), b = hidden(stage.objective.data());
    const auto dot = a.mm(b.t()), cosine = dot / a.norm(2, 1).unsqueeze(1) / b.norm(2, 1);
    CHECK(relative_error(scores_of(chain, s, queries, "rep-sim"), -cosine) < Tolerance::kSameAlgebra);
    CHECK(relative_error(scores_of(chain, s, queries, "rep-sim", Measurement::kMargin), cosine) <
          Tolerance::kSameAlgebra);
    CHECK(relative_error(scores_of(chain, s, queries, "rep-sim:similarity=dot"), -dot) < Tolerance::kSameAlgebra);
  }
}

TEST_CASE("random scores are standard normal, and other seeds, stages and queries have others") {
  const auto chain = test::toy_chain({{"full", "cross-entropy", 0.05, 400}, {"full:proximity=0.3", "cross-entropy"}});
  const auto queries = test::toy_data("cross-entropy", 50, 3, Random(99));
  const auto scores = scores_of(chain, 0, queries, "random");
  CHECK(std::abs(scores.mean().item<double>()) < 0.03);  // 20 000 of them: 0.007
  CHECK(std::abs(scores.var().item<double>() - 1) < 0.05);
  const auto correlation = [&](const at::Tensor& a, const at::Tensor& b) {
    return std::abs((a * b).mean().item<double>());
  };
  CHECK(correlation(scores, scores_of(chain, 0, queries, "random:seed=1")) < 0.03);
  CHECK(correlation(scores[0], scores[1]) < 0.2);
  CHECK(correlation(scores.narrow(1, 0, 12), scores_of(chain, 1, queries, "random")) < 0.15);
}

TEST_CASE("normalized scores are the plain ones over the lengths") {
  const auto chain = test::toy_chain(test::kTwoStages);
  const auto queries = test::toy_data("cross-entropy", 4, 3, Random(99));
  for (std::size_t s = 0; s < 2; ++s) {
    const auto with = [&](const char* method, Normalization normalization) {
      return scores_of(chain, s, queries, method, Measurement::kLoss, normalization);
    };
    const auto lengths = looped_gradients(chain[s], chain[s].objective.data()).norm(2, 1);
    const auto dots = with("grad-dot", Normalization::kNone);
    CHECK(relative_error(with("grad-dot", Normalization::kRelatif), dots / lengths) < Tolerance::kSameAlgebra);
    CHECK(at::equal(with("grad-dot", Normalization::kCosine), with("grad-cos", Normalization::kNone)));
    CHECK(at::equal(with("grad-cos", Normalization::kCosine), with("grad-cos", Normalization::kNone)));
    // influence: a query's vector has one length, whatever the example
    const auto ratio = with("influence", Normalization::kNone) / with("influence", Normalization::kCosine) / lengths;
    CHECK(relative_error(ratio, ratio.select(1, 0).unsqueeze(1).expand_as(ratio)) < 1e-9);
  }
  const auto refuses = [&](const char* method, Normalization normalization, const char* reason) {
    CHECK_THROWS_WITH_AS(scores_of(chain, 0, queries, method, Measurement::kLoss, normalization),
                         doctest::Contains(reason), InvalidArgument);
  };
  refuses("grad-cos", Normalization::kRelatif, "normalize = relatif with grad-cos");
  refuses("rep-sim", Normalization::kCosine, "normalize = cosine with rep-sim");
  refuses("random", Normalization::kRelatif, "normalize = relatif with random");
  CHECK_THROWS_WITH_AS(parse_normalization("cosin"), doctest::Contains("did you mean \"cosine\"?"), InvalidArgument);
}

TEST_CASE("influence over relatif lengths is that over sqrt(g' H^-1 g), exactly so where ekfac is the curvature") {
  const auto chain = test::toy_chain({{"full", "squared-error"}}, "linear");  // one layer: the factors are exact
  const auto queries = test::toy_data("squared-error", 2, 3, Random(99));
  const auto& stage = chain[0];
  const auto n = count_entries(stage.theta);
  const auto h = test::dense_hessian(stage.objective, stage.theta, stage.parent).narrow(1, 0, n);
  const auto g = looped_gradients(stage, stage.objective.data());
  const auto solved = at::linalg_solve(h + 0.3 * at::eye(n, at::kDouble), g.t()).t();
  const auto lengths = (g * solved).sum(1).sqrt();
  const auto plain = scores_of(chain, 0, queries, "influence", Measurement::kLoss, Normalization::kNone);
  const auto relative = scores_of(chain, 0, queries, "influence", Measurement::kLoss, Normalization::kRelatif);
  CHECK(relative_error(relative, plain / lengths) < 1e-7);
}

TEST_CASE("a stage that shares nothing with the query is refused by methods of features") {
  const auto chain = test::toy_chain({{"full", "cross-entropy"}, {"head", "cross-entropy"}, {"head", "cross-entropy"}});
  const auto queries = test::toy_data("cross-entropy", 2, 3, Random(99));
  for (const char* method : {"trak", "logra"}) {
    CHECK_THROWS_WITH_AS(scores_of(chain, 1, queries, method), doctest::Contains("stage stage1: "), InvalidArgument);
    CHECK_NOTHROW(scores_of(chain, 2, queries, method));
    CHECK_NOTHROW(scores_of(chain, 0, queries, method));
  }
}

TEST_SUITE_END();
