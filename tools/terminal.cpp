#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <new>
#include <set>
#include <system_error>
#include <thread>

#include "cli.h"
#include "whence/core/error.h"
#include "whence/core/printable.h"
#include "whence/core/progress.h"
#include "whence/core/seconds.h"

namespace whence::cli {
namespace {

volatile std::sig_atomic_t signal_received = 0;

std::string duration_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  return whole < 60     ? fmt::format("{} s", whole)
         : whole < 3600 ? fmt::format("{} min {:02} s", whole / 60, whole % 60)
                        : fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

/// One line of progress at a time: a few times a second on a terminal, every four seconds elsewhere, and none in a
/// shorter run. Where work is silent for longer, the last line comes again with the time that has passed, by a thread
/// of its own.
class Display {
 public:
  void show(const ProgressEvent& event) {
    const std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    if (event.phase != event_.phase || !active_) {
      end_line();
      begun_ = now;
      done_at_begin_ = event.done;
    }
    if (!ticks_) {
      ticks_ = true;
      try {
        ticker_ = std::jthread([this](const std::stop_token& stop) { tick(stop); });
      } catch (const std::system_error&) {  // no thread to be had: lines then come with events alone
      }
    }
    event_ = event;
    active_ = true;
    const bool finished = event.total > 0 && event.done >= event.total;
    if (now - shown_ >= (terminal_ ? std::chrono::milliseconds(100) : kSilence) || (finished && terminal_)) {
      print(now, false);
    }
  }

  void end() {
    const std::lock_guard lock(mutex_);
    active_ = false;
    end_line();
  }

 private:
  void tick(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, stop, std::chrono::milliseconds(250), [&] { return stop.stop_requested(); })) {
      const auto now = Clock::now();
      if (active_ && now - shown_ >= (terminal_ ? std::chrono::milliseconds(1000) : kSilence)) {
        print(now, true);
      }
    }
  }

  void print(Clock::time_point now, bool again) {
    shown_ = now;
    const double elapsed = std::chrono::duration<double>(now - begun_).count();
    std::string line;
    try {
      line = text(elapsed);
      if (again && elapsed >= 1) {
        line += fmt::format(", {} so far", duration_text(elapsed));
      }
    } catch (const std::bad_alloc&) {
      return;  // where memory is short it is the work that says so, not a line of progress, which no thread may throw
               // from
    }
    if (terminal_) {
      std::fprintf(stderr, "\r\033[K%s", line.c_str());
      std::fflush(stderr);
      open_ = true;
    } else {
      std::fprintf(stderr, "%s\n", line.c_str());
    }
  }

  void end_line() {
    if (open_) {
      std::fprintf(stderr, "\n");
      open_ = false;
    }
  }

  std::string text(double elapsed) const {
    std::string line = printable(event_.phase);
    const auto steps = static_cast<double>(event_.done - done_at_begin_);
    if (event_.total > 0) {
      if (terminal_) {
        constexpr std::int64_t kWidth = 24;
        const auto filled = std::min(kWidth, kWidth * event_.done / event_.total);
        line += fmt::format(" [{:-<{}}]", std::string(static_cast<std::size_t>(filled), '#'), kWidth);
      }
      line += fmt::format(" {}/{}", event_.done, event_.total);
      if (steps > 0 && elapsed > 0.5 && event_.done < event_.total) {
        line += fmt::format(", {:.3g}/s, at most {} left", steps / elapsed,
                            duration_text(elapsed / steps * static_cast<double>(event_.total - event_.done)));
      }
    }
    return event_.detail.empty() ? line : line + ", " + printable(event_.detail);
  }

  static constexpr std::chrono::milliseconds kSilence{4000};
  const bool terminal_ = isatty(STDERR_FILENO) == 1;
  std::mutex mutex_;
  std::condition_variable_any wake_;  // for the stop alone
  ProgressEvent event_;
  Clock::time_point begun_ = Clock::now(), shown_ = begun_;
  std::int64_t done_at_begin_ = 0;
  bool active_ = false, open_ = false, ticks_ = false;
  std::jthread ticker_;  // last: it ends before what it uses
};

Display& display() {
  static Display one;
  return one;
}

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

void end_progress() { display().end(); }

std::string& last_phase() {
  static std::string phase;
  return phase;
}

std::string progress_phase() { return last_phase(); }

Progress terminal_progress(bool quiet) {
  return [quiet](const ProgressEvent& event) {
    throw_if_signalled();
    last_phase() = event.phase;
    if (!quiet) {
      display().show(event);
    }
  };
}

namespace {

void tell(const char* kind, const std::string& message) {
  static std::set<std::string> told;
  if (told.insert(message).second) {
    end_progress();
    std::fprintf(stderr, "whence: %s: %s\n", kind, printable(message).c_str());
  }
}

}  // namespace

void warn(const std::string& message) { tell("warning", message); }

void note(const std::string& message) { tell("note", message); }

}  // namespace whence::cli
