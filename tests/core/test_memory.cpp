#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "whence/core/memory.h"
#include "whence/core/seconds.h"

using namespace whence;

TEST_SUITE_BEGIN("core");

TEST_CASE("the peak is what was held since it was last forgotten, and processes know how long they run") {
  constexpr std::size_t kBytes = std::size_t{96} << 20;  // more than the C library keeps for the next
  const auto touch = [] {
    std::vector<char> block(kBytes, 'x');
    CHECK(resident_bytes() > static_cast<double>(kBytes));
  };
  forget_peak();
  const double before = peak_bytes();
  CHECK(before > 0);
  CHECK(before >= resident_bytes() - (1 << 20));
  touch();
  CHECK(peak_bytes() > before + 0.9 * static_cast<double>(kBytes));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which have allocators of their own
  forget_peak();
  CHECK(peak_bytes() < before + 0.5 * static_cast<double>(kBytes));
  CHECK(allocated_bytes() > 0);
#endif
  const double seconds = process_seconds();
  CHECK(seconds > 0);
  CHECK(process_seconds() >= seconds);
}

TEST_CASE("a thread's seconds are what it took of a processor, not what it waited") {
  const auto start = Clock::now();
  const double before = thread_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(thread_seconds() - before < 0.5 * seconds_since(start));
  const double slept = thread_seconds();
  while (thread_seconds() - slept < 0.005 && seconds_since(start) < 60) {
  }
  CHECK(thread_seconds() - slept >= 0.005);
  double of_other = 1;
  std::thread([&] { of_other = thread_seconds(); }).join();
  CHECK(of_other < thread_seconds());
}

TEST_SUITE_END();
