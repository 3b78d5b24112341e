#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <set>

#include "cli.h"
#include "whence/core/error.h"
#include "whence/core/progress.h"

namespace whence::cli {
namespace {

using Clock = std::chrono::steady_clock;

volatile std::sig_atomic_t signal_received = 0;
bool bar_open = false;

std::string duration_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  return whole < 60     ? fmt::format("{} s", whole)
         : whole < 3600 ? fmt::format("{} min {:02} s", whole / 60, whole % 60)
                        : fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

/// One line of progress at a time, a few times a second on a terminal, every ten seconds elsewhere.
class Display {
 public:
  void show(const ProgressEvent& event) {
    const auto now = Clock::now();
    const bool fresh = event.phase != phase_;
    if (fresh) {
      end_progress();
      phase_ = event.phase;
      begun_ = now;
      done_at_begin_ = event.done;
    }
    const auto period = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10000);
    const bool finished = event.total > 0 && event.done >= event.total;
    if (now - shown_ < period && !(finished && terminal_)) {
      return;
    }
    shown_ = now;
    const auto line = text(event, std::chrono::duration<double>(now - begun_).count());
    if (terminal_) {
      std::fprintf(stderr, "\r\033[K%s", line.c_str());
      std::fflush(stderr);
      bar_open = true;
    } else {
      std::fprintf(stderr, "%s\n", line.c_str());
    }
  }

 private:
  std::string text(const ProgressEvent& event, double elapsed) const {
    std::string line = event.phase;
    const auto steps = static_cast<double>(event.done - done_at_begin_);
    if (event.total > 0) {
      if (terminal_) {
        constexpr std::int64_t kWidth = 24;
        const auto filled = std::min(kWidth, kWidth * event.done / event.total);
        line += fmt::format(" [{:-<{}}]", std::string(static_cast<std::size_t>(filled), '#'), kWidth);
      }
      line += fmt::format(" {}/{}", event.done, event.total);
      if (steps > 0 && elapsed > 0.5) {
        line += fmt::format(", {:.3g}/s, at most {} left", steps / elapsed,
                            duration_text(elapsed / steps * static_cast<double>(event.total - event.done)));
      }
    }
    return event.detail.empty() ? line : line + ", " + event.detail;
  }

  const bool terminal_ = isatty(STDERR_FILENO) == 1;
  std::string phase_;
  Clock::time_point begun_{}, shown_{};
  std::int64_t done_at_begin_ = 0;
};

void throw_if_signalled() {
  if (signal_received != 0) {
    throw Interrupted();
  }
}

}  // namespace

void install_signal_handlers() {
  set_interruption_check(throw_if_signalled);
  const auto handler = [](int number) { signal_received = number; };
  std::signal(SIGINT, handler);
  std::signal(SIGTERM, handler);
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit then shows as a failed write, which is reported by name
}

int received_signal() { return signal_received; }

void end_progress() {
  if (bar_open) {
    std::fprintf(stderr, "\n");
    bar_open = false;
  }
}

Progress terminal_progress(bool quiet) {
  return [quiet, display = std::make_shared<Display>()](const ProgressEvent& event) {
    throw_if_signalled();
    if (!quiet) {
      display->show(event);
    }
  };
}

namespace {

void tell(const char* kind, const std::string& message) {
  static std::set<std::string> told;
  if (told.insert(message).second) {
    end_progress();
    std::fprintf(stderr, "whence: %s: %s\n", kind, message.c_str());
  }
}

}  // namespace

void warn(const std::string& message) { tell("warning", message); }

void note(const std::string& message) { tell("note", message); }

}  // namespace whence::cli
