#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace whence {

/// One report of long work. `total` is 0 where the end is not known.
struct ProgressEvent {
  std::string phase;  ///< "train pretrain", "solve finetune", …
  std::int64_t done = 0;
  std::int64_t total = 0;
  std::string detail;  ///< "loss 0.213, |gradient| 3.1e-05", or empty.
};

/// Called between steps of long work, on the thread that started it. It may throw Interrupted to stop the work there.
using Progress = std::function<void(const ProgressEvent&)>;

inline void report(const Progress& progress, const ProgressEvent& event) {
  if (progress) {
    progress(event);
  }
}

/// Work of which one step may take long (an iteration that passes over much data). While the object lives,
/// check_interruption() on its thread reports the last event again, with where the pass stands, once a second, so that
/// nobody waits without a sign. Scopes nest; the innermost speaks.
class ProgressScope {
 public:
  /// Reports `event`. `progress` must outlive the object.
  ProgressScope(const Progress& progress, ProgressEvent event);
  ProgressScope(Progress&& progress, ProgressEvent event) = delete;
  /// A part of the work around it, for code that is given no Progress: reports "PHASE, WHAT". Does nothing where no
  /// scope is open on this thread.
  explicit ProgressScope(const std::string& what, std::int64_t total = 0);
  ~ProgressScope();
  ProgressScope(const ProgressScope&) = delete;
  ProgressScope& operator=(const ProgressScope&) = delete;

  /// The number of steps, where that turns out later.
  void expect(std::int64_t total) { event_.total = total; }
  /// Goes on to so many steps, and says so.
  void at(std::int64_t done, std::string detail = "");

 private:
  friend void check_interruption(std::int64_t done, std::int64_t total);
  void say(const ProgressEvent& event);

  const Progress* progress_ = nullptr;
  ProgressEvent event_;
  std::string place_;  ///< Where the pass stands, of this step.
  ProgressScope* outer_;
  std::chrono::steady_clock::time_point said_{};
};

/// What long work that has no Progress at hand (a pass over the data, a product of an operator) asks between batches,
/// and models between layers, on any thread: nothing, until a program sets a check, which may throw Interrupted.
/// Process-wide; set it before work begins. `done` of `total` says where a pass stands; 0 of 0: where it stood.
/// Cost: a tenth of a microsecond.
void set_interruption_check(std::function<void()> check);
void check_interruption(std::int64_t done = 0, std::int64_t total = 0);

}  // namespace whence
