#pragma once
#include <unistd.h>
#include <zlib.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/near.h"  // torch before doctest: both define CHECK, and the last one counts

namespace whence::test {

/// A folder of its own, removed at the end.
class Scratch {
 public:
  Scratch() {
    static std::atomic<int> count{0};
    folder_ = std::filesystem::temp_directory_path() /
              ("whence-test-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(folder_);
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const std::filesystem::path& folder() const { return folder_; }
  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }

  /// Writes a file of these bytes, gzipped where the name ends in .gz.
  std::filesystem::path put(const std::string& name, const std::string& bytes) const {
    const auto path = folder_ / name;
    if (path.extension() == ".gz") {
      const gzFile file = gzopen(path.c_str(), "wb");
      REQUIRE(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())) == static_cast<int>(bytes.size()));
      REQUIRE(gzclose(file) == Z_OK);
    } else {
      std::ofstream(path, std::ios::binary) << bytes;
    }
    return path;
  }

 private:
  std::filesystem::path folder_;
};

/// The bytes of a file as they lie.
inline std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// What an expected exception says; empty when it is not thrown. Any other exception escapes and fails the test.
template <class Exception, class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Exception& error) {
    return error.what();
  }
  return "";
}

/// That `call` throws an Exception whose message holds `part`.
#define CHECK_MESSAGE_HOLDS(Exception, part, ...)                                                       \
  do {                                                                                                  \
    const std::string text_ = whence::test::message_of<Exception>([&] { (void)(__VA_ARGS__); });        \
    CHECK_MESSAGE(text_.find(part) != std::string::npos, "expected \"", part, "\" in \"", text_, "\""); \
  } while (false)

}  // namespace whence::test
