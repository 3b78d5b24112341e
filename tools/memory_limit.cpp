#include "memory_limit.h"

#include <c10/util/Exception.h>
#include <execinfo.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <new>
#include <string_view>

#include "cli.h"

namespace whence::cli {

double parse_bytes(const std::string& flag, const std::string& text) {
  constexpr std::string_view kUnits = "KMGT";
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  std::string unit(end);
  unit.erase(0, unit.find_first_not_of(' ') == unit.npos ? unit.size() : unit.find_first_not_of(' '));
  const auto power = unit.empty() ? kUnits.npos : kUnits.find(unit.front());
  const auto suffix = unit.empty() ? std::string() : unit.substr(1);
  if (end == text.c_str() || !(number > 0) || power == kUnits.npos ||
      (suffix != "" && suffix != "B" && suffix != "iB")) {
    throw UsageError(fmt::format("--{} = {}, expected a size: 800M, 1.5GiB, 4G", flag, text));
  }
  double bytes = number;
  for (std::size_t i = 0; i <= power; ++i) {
    bytes *= suffix == "B" ? 1000 : 1024;
  }
  return bytes;
}

std::string readable_bytes(double bytes) {
  constexpr std::array kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < kUnits.size(); ++unit) {
    bytes /= 1024;
  }
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, kUnits.at(unit));
}

bool is_out_of_memory(const std::exception& error) {
  constexpr std::array kWords{"can't allocate memory", "not enough memory", "Cannot allocate memory", "out of memory"};
  const auto* torch = dynamic_cast<const c10::Error*>(&error);  // whose what() asks for memory
  const std::string_view message = torch != nullptr ? torch->what_without_backtrace() : error.what();
  return dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
         dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
         std::any_of(kWords.begin(), kWords.end(),
                     [&](const char* words) { return message.find(words) != message.npos; });
}

namespace {

std::atomic<void*> reserve{nullptr};

void find_memory() {
  if (std::uncaught_exceptions() == 0 || !release_reserve()) {
    throw std::bad_alloc();
  }
}

}  // namespace

void keep_reserve() {
  constexpr std::size_t kBytes = 1 << 20;  // a vocabulary of 50,000 as JSON takes 800 KB to destroy
  std::set_new_handler(&find_memory);
  // Where an exception first passes through a function of glibc, it loads what unwinds that, and aborts where there is
  // no memory: this loads it.
  void* frame = nullptr;
  ::backtrace(&frame, 1);
  void* none = nullptr;
  void* kept = reserve == nullptr ? std::malloc(kBytes) : nullptr;
  if (!reserve.compare_exchange_strong(none, kept)) {
    std::free(kept);
  }
}

bool release_reserve() {
  void* kept = reserve.exchange(nullptr);
  std::free(kept);
  return kept != nullptr;
}

}  // namespace whence::cli
