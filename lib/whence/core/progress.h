#pragma once
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

/// What long work that has no Progress at hand (a pass over the data, a product of an operator) asks between batches,
/// on any thread: nothing, until a program sets a check, which may throw Interrupted. Process-wide; set it before work
/// begins.
void set_interruption_check(std::function<void()> check);
void check_interruption();

}  // namespace whence
