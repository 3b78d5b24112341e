#include "support/near.h"
#include "whence/evaluate/verdict.h"

using namespace whence;
using Level = Verdict::Level;

namespace {

bool starts(const Verdict& verdict, const std::string& text) { return verdict.text.starts_with(text); }
bool says(const Verdict& verdict, const std::string& text) { return verdict.text.find(text) != std::string::npos; }

Agreement agreement(double pearson, std::int64_t examples, double slope = 1) {
  return {.pearson = pearson,
          .interval = correlation_interval(pearson, examples),
          .slope = slope,
          .examples = examples,
          .available = 2000,
          .seconds = 30};
}

RankingEvidence good() {
  return {.method = "influence",
          .stages = {{.stage = "fit", .relative_gradient = 1e-8, .solves = 5, .residual = 1e-7}},
          .check = "whence evaluate p.toml --scores out"};
}

}  // namespace

TEST_SUITE("evaluate") {
  TEST_CASE("the interval of a correlation, by Fisher's z") {
    const auto interval = correlation_interval(0.5, 28);  // atanh 0.5 = 0.5493, 1.96 / 5 = 0.392
    CHECK(interval.low == doctest::Approx(std::tanh(0.5493061 - 0.3919928)).epsilon(1e-6));
    CHECK(interval.high == doctest::Approx(std::tanh(0.5493061 + 0.3919928)).epsilon(1e-6));
    CHECK(std::isnan(correlation_interval(0.9, 3).low));
    CHECK(correlation_interval(1, 10).low > 0.999);
  }

  TEST_CASE("agreement with retraining ends in a verdict with its numbers") {
    const auto few = judge(agreement(-0.18, 3));
    CHECK(few.level == Level::kTooFew);
    CHECK(few.text == "too few to say: Pearson -0.18 over 3 examples; --examples 20 takes about 11 minutes");
    CHECK(judge(agreement(0.994, 20, 1.06)).text ==
          "can be trusted: Pearson 0.99 (95 % 0.98 to 0.9977) over 20 examples, slope 1.06");
    const auto sizes = judge(agreement(0.994, 20, 2.5));
    CHECK(sizes.level == Level::kCare);
    CHECK(says(sizes, "changes are 2.5 times what is predicted"));
    CHECK(judge(agreement(0.1, 100)).level == Level::kNot);
    CHECK(judge(agreement(-0.9, 20)).level == Level::kNot);
    CHECK(judge(agreement(0.7, 100)).level == Level::kCare);
    CHECK(judge(agreement(0.6, 10)).level == Level::kTooFew);
    auto all = agreement(0.6, 10);
    all.available = 10;  // no more to leave out
    CHECK_FALSE(says(judge(all), "--examples"));
    auto few_large = agreement(0.994, 20, 0.6);
    few_large.spearman = 0.44;
    CHECK(judge(few_large).level == Level::kCare);
    CHECK(says(judge(few_large), "by a few large changes: of all the ranks agree to 0.44"));
    CHECK_FALSE(says(judge(few_large), "the order holds"));
    few_large.spearman = 0.6;
    CHECK(says(judge(few_large), "the order holds"));
    auto order = agreement(0.994, 20, 300);
    order.sizes = false;
    CHECK(judge(order).level == Level::kTrusted);
    CHECK_FALSE(says(judge(order), "slope"));
    CHECK(judge(agreement(NAN, 20)).level == Level::kNot);
    auto but_one = agreement(-0.9, 20);
    but_one.apart = 37;
    but_one.without = 0.998;
    CHECK(judge(but_one).level == Level::kNot);
    CHECK(says(judge(but_one), "over 20 examples, 0.9980 without example 37, whose removal stands apart: "));
    but_one.without = 0.3;
    CHECK_FALSE(says(judge(but_one), "example 37"));
  }

  TEST_CASE("agreement on subsets") {
    CHECK(judge(SubsetAgreement{0.75, {0.7, 0.8}, 100, 1}).level == Level::kTrusted);
    CHECK(judge(SubsetAgreement{0.35, {0.3, 0.4}, 100, 1}).level == Level::kCare);
    CHECK(judge(SubsetAgreement{0.02, {-0.1, 0.12}, 100, 1}).level == Level::kNot);
    const auto few = judge(SubsetAgreement{0.3, {-0.1, 0.7}, 10, 60});
    CHECK(few.text ==
          "too few to say: LDS 0.30 (95 % -0.10 to 0.70) over 10 subsets; --subsets 80 takes about 81 minutes");
  }

  TEST_CASE("a ranking's verdict comes from its evidence, the worst first") {
    CHECK(judge(good()).level == Level::kTrusted);
    CHECK(starts(judge(good()), "can be trusted: every solve within 1.0e-07, every checkpoint at a minimum"));

    auto none = good();
    none.claim = Claim::kNothing;
    none.method = "random";
    CHECK(judge(none).text == "cannot be trusted: random is a baseline that knows nothing");

    auto far = good();
    far.stages[0].relative_gradient = 0.4;
    CHECK(judge(far).level == Level::kNot);
    CHECK(says(judge(far), "type --curvature gauss-newton"));
    far.stages[0].gauss_newton = false;  // the Hessian's damping is all there is
    CHECK(judge(far).level == Level::kCare);
    CHECK(says(judge(far), "at fit its checkpoint is no minimum"));
    far.stages[0].gauss_newton = true;
    far.hessian = false;
    CHECK(judge(far).level == Level::kCare);
    CHECK(says(judge(far), "to check: whence evaluate p.toml --scores out"));
    far.assumes_minimum = false;
    CHECK_FALSE(says(judge(far), "minimum"));
    far.hessian = true;  // response segment
    CHECK(judge(far).level == Level::kCare);
    CHECK(says(judge(far), "the training of fit is followed as descent"));

    auto failed = good();
    failed.stages.push_back({.stage = "tune", .damping = 1e-3, .solves = 4, .unconverged = 2, .residual = 0.7});
    CHECK(starts(judge(failed), "cannot be trusted: 2 of 4 solves at tune failed (relative residual 7.0e-01); type "));
    failed.stages[1].residual = 1e-4;
    CHECK(judge(failed).level == Level::kCare);

    auto wild = good();
    wild.stages[0].beyond_range = true;
    wild.stages[0].more_damping = "--relative-damping 12";
    CHECK(judge(wild).level == Level::kNot);
    CHECK(says(judge(wild), "beyond what the measurement can change; type --relative-damping 12; to check: "));
    wild.stages[0].more_damping.clear();  // nothing that a damping would mend
    CHECK_FALSE(says(judge(wild), "type"));

    auto stopped = good();
    stopped.stages[0].stopped_early = true;
    CHECK(judge(stopped).level == Level::kTrusted);  // near a minimum all the same
    for (const double gradient : {0.01, 0.4}) {
      stopped.stages[0].relative_gradient = gradient;
      CHECK(says(judge(stopped), "of an example's, stopped early by its validation)"));
    }

    auto damped = good();
    damped.stages[0].damping = 1;
    damped.stages[0].mean_eigenvalue = 2;
    CHECK(judge(damped).level == Level::kCare);
    damped.stages[0].damping = 0.01;
    CHECK(judge(damped).level == Level::kTrusted);

    auto carried = good();
    carried.stages[0].through = "tune";
    CHECK(judge(carried).text ==
          "with care: removals at fit are told as if tune kept to its minimum, and without an example it may end at "
          "another; to check: whence evaluate p.toml --scores out");

    auto warned = good();
    warned.warnings = {"stage fit: it trains its own head alone"};
    CHECK(starts(judge(warned), "with care: stage fit: it trains its own head alone"));

    auto order = good();
    order.curved = false;
    order.method = "grad-cos";
    order.claim = Claim::kOrder;
    order.stages = {{.stage = "fit"}};
    CHECK(starts(judge(order), "with care: grad-cos orders examples and predicts no removal"));
  }

  TEST_CASE("what retraining said decides, unless it says nothing") {
    auto evidence = good();
    evidence.stages[0].relative_gradient = 0.4;
    evidence.evaluated = judge(agreement(0.99, 20));
    CHECK(judge(evidence).level == Level::kTrusted);
    evidence.evaluated = judge(agreement(0.1, 100));
    CHECK(judge(evidence).level == Level::kNot);
    evidence.evaluated = judge(agreement(0.99, 3));
    CHECK(says(judge(evidence), "is no minimum"));
  }

  TEST_CASE("times in words") {
    CHECK(duration_words(0.2) == "0.2 s");
    CHECK(duration_words(10) == "10 s");
    CHECK(duration_words(89) == "89 s");
    CHECK(duration_words(540) == "9 minutes");
    CHECK(duration_words(7200) == "2 hours");
  }
}
