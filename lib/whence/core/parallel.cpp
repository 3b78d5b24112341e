#include "whence/core/parallel.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <latch>
#include <mutex>
#include <thread>
#include <vector>

#include "whence/core/error.h"

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define WHENCE_UNSEEN __attribute__((no_sanitize_thread))  // what a region itself shares: RegionOrder
#else
#define WHENCE_UNSEEN
#endif

namespace whence {
namespace {

/// Where the system gives libgomp no thread it ends the process, in words of its own, and locks and parts stay. So that
/// std::system_error is thrown in place of that, as many are asked for first; then libgomp makes those that it keeps.
void start_threads(int count) {
  std::latch all(1);
  std::vector<std::jthread> asked;
  try {
    for (int i = 1; i < count; ++i) {
      asked.emplace_back([&] { all.wait(); });
    }
  } catch (...) {
    all.count_down();
    throw;
  }
  all.count_down();
  asked.clear();
  std::atomic<int> begun{0};
#pragma omp parallel num_threads(count)
  ++begun;
}

/// What ThreadSanitizer is to know of a parallel region, since it sees nothing of libgomp: what came before it is seen
/// in it, and what is done in it afterwards. Nothing in other builds.
class RegionOrder {
 public:
#ifdef __SANITIZE_THREAD__
  void before() { __tsan_release(&begin_); }
  void in() { __tsan_acquire(&begin_); }
  void out() { __tsan_release(&end_); }
  void after() { __tsan_acquire(&end_); }

 private:
  char begin_ = 0, end_ = 0;
#else
  void before() {}
  void in() {}
  void out() {}
  void after() {}
#endif
};

}  // namespace

void set_threads(std::int64_t threads) {
  const std::int64_t cores = omp_get_num_procs(), most = std::max<std::int64_t>(64, 4 * cores);
  if (threads < 0 || threads > most) {
    throw InvalidArgument(fmt::format("threads = {}, expected 0 to {}: this machine has {} cores, and 0 takes all",
                                      threads, most, cores));
  }
  const auto count = static_cast<int>(threads > 0 ? threads : cores);
  start_threads(count);
  at::set_num_threads(count);
}

std::int64_t threads() { return at::get_num_threads(); }

WHENCE_UNSEEN void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& body,
                                const std::function<void()>& between) {
  // all threads, though some may find nothing to do: libgomp ends those above a region's number, and makes them anew
  // for the next; where the calling thread looks around in between, it has to find something
  const int workers = static_cast<int>(between     ? std::clamp<std::int64_t>(count, 1, threads())
                                       : count > 1 ? threads()
                                                   : 1);
  const auto caller = std::this_thread::get_id();
  std::exception_ptr first;
  std::mutex mutex;
  std::atomic<bool> stopped{false};
  const auto guarded = [&](const auto& call) {
    try {
      call();
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!first) {
        first = std::current_exception();
      }
      stopped = true;
    }
  };
  RegionOrder order;
  order.before();
#pragma omp parallel for num_threads(workers) schedule(dynamic, 1)
  for (std::int64_t i = 0; i < count; ++i) {
    order.in();
    if (stopped) {
      continue;
    }
    guarded([&] { body(i); });
    if (between && std::this_thread::get_id() == caller) {
      guarded(between);
    }
    order.out();
  }
  order.after();
  if (first) {
    std::rethrow_exception(first);
  }
}

}  // namespace whence
