#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <set>

#include "fuzz/readers.h"
#include "support/near.h"
#include "whence/core/files.h"

namespace whence::test {
namespace {

namespace fs = std::filesystem;

const fs::path kCorpus = fs::path(WHENCE_TESTS) / "fuzz/corpus";

TEST_SUITE_BEGIN("fuzz");

TEST_CASE("every reader takes its corpus, and what is made of it by cutting and flipping, without a fault") {
  std::set<std::string> folders;
  for (const auto& entry : fs::directory_iterator(kCorpus)) {
    folders.insert(entry.path().filename().string());
  }
  for (const auto& [name, read] : fuzzed_readers()) {
    CAPTURE(name);
    CHECK_MESSAGE(folders.erase(std::string(name)) == 1, "a folder of the corpus for each reader");
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(kCorpus / name)) {
      files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    REQUIRE_FALSE(files.empty());
    std::vector<std::string> texts;
    for (const auto& file : files) {
      CAPTURE(file.string());
      const auto& bytes = texts.emplace_back(read_text(file));
      CHECK_NOTHROW(read(bytes));
      constexpr std::size_t kTries = 8;
      for (std::size_t i = 1; i < kTries; ++i) {
        const auto place = bytes.size() * i / kTries;
        CHECK_NOTHROW(read(bytes.substr(0, place)));
        auto flipped = bytes;
        if (place < flipped.size()) {
          flipped[place] = static_cast<char>(flipped[place] ^ (1 << i));
          CHECK_NOTHROW(read(flipped));
        }
      }
    }
    std::mt19937 random(0);
    constexpr std::size_t kFlips = 600;  // of one bit, over all files
    for (std::size_t i = 0; i < kFlips; ++i) {
      auto flipped = texts[i % texts.size()];
      if (!flipped.empty()) {
        auto& byte = flipped[random() % flipped.size()];
        byte = static_cast<char>(byte ^ (1 << random() % 8));
        CHECK_NOTHROW(read(flipped));
      }
    }
  }
  CHECK_MESSAGE(folders.empty(), "a reader for each folder of the corpus");
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
