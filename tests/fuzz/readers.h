#pragma once
#include <span>
#include <string_view>

namespace whence::test {

/// A reader of files that anybody may have written.
struct FuzzedReader {
  std::string_view name;
  /// Reads `bytes` as its format. What is wrong with them is an Error; anything else that is thrown, a signal or a hang
  /// is a fault of the reader.
  void (*read)(std::string_view bytes);
};

/// All of them. Each has a folder of that name in tests/fuzz/corpus.
std::span<const FuzzedReader> fuzzed_readers();

}  // namespace whence::test
