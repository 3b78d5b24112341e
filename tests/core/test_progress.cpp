#include <doctest/doctest.h>

#include <thread>
#include <type_traits>
#include <vector>

#include "whence/core/error.h"
#include "whence/core/progress.h"

using namespace whence;

// A scope refers to its callback: one that is made for the call would be gone.
static_assert(!std::is_constructible_v<ProgressScope, Progress, ProgressEvent>);
static_assert(std::is_constructible_v<ProgressScope, const Progress&, ProgressEvent>);

TEST_SUITE_BEGIN("core");

TEST_CASE("a scope speaks when it moves on and, within a step, once a second with where the pass stands") {
  std::vector<ProgressEvent> events;
  const Progress progress = [&](const ProgressEvent& event) { events.push_back(event); };
  {
    ProgressScope solve(progress, {"solve finetune", 0, 10, "0 of 2 solved"});
    check_interruption(5, 100);  // too early to repeat
    REQUIRE(events.size() == 1);
    solve.at(1, "1 of 2 solved");
    REQUIRE(events.size() == 2);
    CHECK(events[1].done == 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(1010));
    check_interruption(40, 100);
    REQUIRE(events.size() == 3);
    CHECK(events[2].phase == "solve finetune");
    CHECK(events[2].detail == "1 of 2 solved; 40 of 100 examples");
    {
      ProgressScope part("the dense matrix", 7);
      part.at(3);
    }
    REQUIRE(events.size() == 5);
    CHECK(events[4].phase == "solve finetune, the dense matrix");
    CHECK(events[4].done == 3);
    CHECK(events[4].total == 7);
    std::thread([] { check_interruption(1, 2); }).join();  // another thread has no scope
  }
  ProgressScope alone("nobody listens");
  alone.at(1);
  CHECK(events.size() == 5);
}

TEST_CASE("a progress callback may stop the work from within a pass") {
  bool stop = false;
  const Progress progress = [&](const ProgressEvent&) {
    if (stop) {
      throw Interrupted();
    }
  };
  const ProgressScope scope(progress, {"solve", 0, 0, ""});
  stop = true;
  std::this_thread::sleep_for(std::chrono::milliseconds(1010));
  CHECK_THROWS_AS(check_interruption(), Interrupted);
}

TEST_SUITE_END();
