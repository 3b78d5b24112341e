// A libFuzzer program for one reader, WHENCE_FUZZED: built where WHENCE_FUZZ is on, by clang.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "fuzz/readers.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const auto* const reader = [] {
    const auto readers = whence::test::fuzzed_readers();
    return &*std::find_if(readers.begin(), readers.end(), [](const auto& r) { return r.name == WHENCE_FUZZED; });
  }();
  reader->read({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
