#include <ATen/ATen.h>

#include <cmath>

#include "support/near.h"
#include "support/toy_chain.h"
#include "whence/attribution/plausible.h"

using namespace whence;

TEST_SUITE_BEGIN("attribution");

TEST_CASE("no removal takes a loss below 0 or a log-probability above it, nor any query farther than they lie apart") {
  const auto classes = test::toy_data("cross-entropy", 3, 2, Random(1));
  const auto losses = at::tensor({0.01, 0.5, 4.0}, at::kDouble);
  const auto room = room_to_move(Measurement::kLoss, classes, losses, classes);
  CHECK(room[1][0].item<double>() == 0.5);                   // down to 0
  CHECK(room[2][1].item<double>() == 4.0);                   // no farther up than the worst query is
  CHECK(room[0][0].item<double>() == doctest::Approx(0.2));  // a loss near 0 has some slack
  const auto mirrored = room_to_move(Measurement::kLogProbability, classes, -losses, classes);
  CHECK(at::equal(mirrored, room.flip(1)));
  const auto small = room_to_move(Measurement::kLoss, classes, at::tensor({0.1, 0.2, 0.3}, at::kDouble), classes);
  CHECK(small[0][1].item<double>() == doctest::Approx(std::log(3.0)));  // to no idea of three classes
  const auto logits = room_to_move(Measurement::kLogit, classes, at::tensor({-3.0, 0.0, 5.0}, at::kDouble), classes);
  CHECK(logits[1][0].item<double>() == 8);
  CHECK(logits[1][1].item<double>() == 8);
  const auto values = test::toy_data("squared-error", 1, 2, Random(1));
  CHECK(room_to_move(Measurement::kLoss, values, at::tensor({0.7}, at::kDouble), values)[0][1].item<double>() == 0.7);
  // one query that is met nearly exactly says nothing of how far a removal moves it: the targets do
  const auto training = test::toy_data("squared-error", 12, 2, Random(1));
  const auto y = training.targets().to(at::kDouble);
  const double farthest = (y - y.mean(0)).square().sum(1).max().item<double>() / 2;
  const auto met = room_to_move(Measurement::kLoss, values, at::tensor({5e-7}, at::kDouble), training);
  CHECK(met[0][1].item<double>() == doctest::Approx(farthest));
  CHECK(met[0][0].item<double>() == doctest::Approx(0.05 * farthest));
  const auto none = room_to_move(Measurement::kLoss, values, at::zeros({1}, at::kDouble), values);
  CHECK(none.min().item<double>() > 0);
}

TEST_SUITE_END();
