#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/random.h"
#include "whence/stages/detail/unfinished.h"
#include "whence/stages/unfinished.h"

using namespace whence;
using nlohmann::json;
using whence::detail::read_unfinished;
using whence::detail::write_unfinished;

TEST_SUITE_BEGIN("stages");

TEST_CASE("training waits beside its checkpoint, of a folder too") {
  CHECK(unfinished_path("run/fit.safetensors") == "run/fit.safetensors.unfinished");
  CHECK(unfinished_path("run/./fit//") == "run/fit.unfinished");
}

TEST_CASE("training is saved within seconds, and saving takes its share of the time at most") {
  using whence::detail::SavePace;
  for (const double save : {1e-3, 0.5, 20.0}) {
    for (const double iteration : {1e-3, 0.7, 30.0}) {
      CAPTURE(save);
      CAPTURE(iteration);
      SavePace pace;
      double now = 0, saving = 0, last = 0, longest = 0;
      int saves = 0;
      while (now < 5000) {
        now += iteration;
        if (pace.is_due(now)) {
          CHECK((saves > 0 || now < SavePace::kFirst + iteration));
          longest = std::max(longest, now - last);
          saving += save;
          pace.saved(now, now + save);
          now += save;
          last = now;
          ++saves;
        }
      }
      CHECK(saves > 3);
      CHECK(saving - save <= SavePace::kShare * now);  // whatever one costs, there is a first
      CHECK(longest <= std::max(SavePace::kFirst, save / SavePace::kShare) + iteration + 1e-9);
    }
  }
}

TEST_CASE("unfinished training is read to the bit, and only by one that began alike with these parameters") {
  const test::Scratch scratch;
  const auto path = scratch / "fit.unfinished";
  auto draws = Random(1);
  const TensorList theta{draws.normal({2, 3}), draws.normal({2})};
  TrainingState state{theta, 41, {{draws.normal({2, 3}), draws.normal({2})}, {draws.normal({1})}}, 0.1};
  state.best = {draws.normal({2, 3}), draws.normal({2})};
  state.validation = {{20, 1.0 / 3, 0.25}, {40, 0.1, std::nan("")}};
  const json record{{"settings", {{"weight-decay", 0.1}}}, {"parent", {{"a", "1"}}}};
  write_unfinished(path, state, record);

  const auto read = read_unfinished(path, record, zeros_like(theta), "before", "whence train p.toml --force");
  CHECK(read.iteration == 41);
  CHECK(read.time == 0.1);
  CHECK(at::equal(flatten(read.theta), flatten(theta)));
  CHECK(at::equal(flatten(read.best), flatten(state.best)));
  REQUIRE(read.validation.size() == 2);
  CHECK(read.validation[0].iteration == 20);
  CHECK(read.validation[0].loss == 1.0 / 3);
  CHECK(read.validation[0].accuracy == 0.25);
  CHECK(read.validation[1].loss == 0.1);
  CHECK(std::isnan(read.validation[1].accuracy));
  CHECK(read.memory.size() == 2);
  CHECK(at::equal(flatten(read.memory[0]), flatten(state.memory[0])));
  CHECK(at::equal(flatten(read.memory[1]), flatten(state.memory[1])));

  const auto reading = [&](const json& now, const TensorList& like) {
    return read_unfinished(path, now, like, "before", "whence train p.toml --force");
  };
  auto other = record;
  other["settings"]["weight-decay"] = 0.2;
  other["parent"]["a"] = "2";
  CHECK_MESSAGE_HOLDS(InvalidArgument,
                      "holds training that began otherwise (weight-decay = 0.1, now 0.2; stage before has other "
                      "weights); finish it as it began, or begin anew: whence train p.toml --force",
                      reading(other, theta));
  CHECK_MESSAGE_HOLDS(DataError, "its parameters are not those of the stage; begin anew: whence train p.toml --force",
                      reading(record, {theta[0]}));
}

TEST_SUITE_END();
