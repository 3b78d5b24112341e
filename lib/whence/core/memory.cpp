#include "whence/core/memory.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <limits>
#include <string>

#include "whence/core/error.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace whence {
namespace {

double status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    double kibibytes = 0;
    if (word == key && status >> kibibytes) {
      return kibibytes * 1024;
    }
    status.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

double limit_of_process = std::numeric_limits<double>::infinity();

}  // namespace

void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the most that glibc takes
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

double resident_bytes() { return status_bytes("VmRSS:"); }

double peak_bytes() { return status_bytes("VmHWM:"); }

void give_back_freed_memory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

void forget_peak() {
  give_back_freed_memory();
  std::ofstream("/proc/self/clear_refs") << "5\n";
}

double allocated_bytes() {
#ifdef __GLIBC__
  const auto info = mallinfo2();
  return static_cast<double>(info.uordblks) + static_cast<double>(info.hblkhd);
#else
  return 0;
#endif
}

void limit_memory(double bytes) {
  const double program = status_bytes("RssFile:");  // mapped, so that RLIMIT_DATA does not count it
  if (bytes <= resident_bytes()) {
    throw InvalidArgument(
        fmt::format("memory-limit = {:.0f} MiB, expected more than the {:.0f} MiB of the program alone",
                    bytes / (1 << 20), resident_bytes() / (1 << 20)));
  }
  rlimit limit{};
  ::getrlimit(RLIMIT_DATA, &limit);
  limit.rlim_cur = std::min(limit.rlim_max, static_cast<rlim_t>(bytes - program));
  if (::setrlimit(RLIMIT_DATA, &limit) != 0) {
    throw InvalidArgument(fmt::format("memory-limit: this system sets none: {}", std::strerror(errno)));
  }
#ifdef __GLIBC__
  // what is freed is given back, of every size that counts: else the gaps that a run leaves in its heaps fit nothing of
  // the next, which has smaller blocks
  mallopt(M_MMAP_THRESHOLD, 1 << 16);
  mallopt(M_TRIM_THRESHOLD, 1 << 20);
  mallopt(M_ARENA_MAX, 2);
#endif
  limit_of_process = bytes;
}

double memory_limit() { return limit_of_process; }

double most_bytes() {
  const double pages = static_cast<double>(::sysconf(_SC_PHYS_PAGES));
  return pages > 0 ? std::min(limit_of_process, pages * static_cast<double>(::sysconf(_SC_PAGESIZE)))
                   : limit_of_process;
}

double keepable_bytes(double most) {
  return std::min(most, std::max(0.0, limit_of_process - status_bytes("RssFile:") - allocated_bytes()) / 3);
}

double process_seconds() {
  std::ifstream stat("/proc/self/stat");
  stat.ignore(std::numeric_limits<std::streamsize>::max(), ')');
  std::string skipped;
  for (int field = 3; field < 22; ++field) {  // proc(5): the 22nd is the start, in ticks since the system's
    stat >> skipped;
  }
  double ticks = 0;
  timespec now{};
  if (!(stat >> ticks) || ::clock_gettime(CLOCK_BOOTTIME, &now) != 0) {
    return 0;
  }
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec) -
         ticks / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace whence
