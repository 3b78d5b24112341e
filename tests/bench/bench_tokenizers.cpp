// What compare_tokenizers.py compares with the Python package: encodings of a file of texts, and the time they take.
//   whence_bench tokenizers encode TOKENIZER TEXTS OUT
//   whence_bench tokenizers time TOKENIZER TEXTS REPEATS
// TEXTS is a sequence of (uint32 size, bytes). OUT is, for each text, uint32 count, int32 ids, begins and ends, then
// the text decoded without and with special tokens, each as (uint32 size, bytes). `time` prints the seconds of the
// fastest repeat.
#include <fmt/format.h>

#include <cstring>
#include <ctime>
#include <fstream>
#include <limits>

#include "bench/bench.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/text/tokenizer.h"

using namespace whence;

namespace {

std::vector<std::string_view> read_texts(std::string_view bytes) {
  std::vector<std::string_view> texts;
  for (std::size_t at = 0; at < bytes.size(); at += texts.back().size()) {
    std::uint32_t size = 0;
    std::memcpy(&size, bytes.data() + at, sizeof(size));
    at += sizeof(size);
    texts.push_back(bytes.substr(at, size));
  }
  return texts;
}

void put(std::ostream& out, std::int64_t number) {
  const auto narrow = static_cast<std::int32_t>(number);
  out.write(reinterpret_cast<const char*>(&narrow), sizeof(narrow));
}

void put(std::ostream& out, const std::string& text) {
  put(out, static_cast<std::int64_t>(text.size()));
  out << text;
}

void encode(const Tokenizer& tokenizer, const std::vector<std::string_view>& texts, const char* path) {
  std::ofstream out(path, std::ios::binary);
  for (const auto text : texts) {
    const auto encoding = tokenizer.encode(text);
    put(out, static_cast<std::int64_t>(encoding.ids.size()));
    for (const auto id : encoding.ids) {
      put(out, id);
    }
    for (const auto& offsets : encoding.offsets) {
      put(out, offsets.first);
    }
    for (const auto& offsets : encoding.offsets) {
      put(out, offsets.second);
    }
    put(out, tokenizer.decode(encoding.ids, true));
    put(out, tokenizer.decode(encoding.ids, false));
  }
}

void time(const Tokenizer& tokenizer, const std::vector<std::string_view>& texts, int repeats) {
  double best = std::numeric_limits<double>::infinity();
  std::size_t tokens = 0;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const auto begin = std::clock();
    for (const auto text : texts) {
      tokens += tokenizer.encode(text).ids.size();
    }
    best = std::min(best, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
  }
  fmt::print("{} {}\n", best, tokens / static_cast<std::size_t>(repeats));
}

}  // namespace

int bench_tokenizers(int count, char** arguments) try {
  if (count != 5) {
    throw InvalidArgument("expected encode TOKENIZER TEXTS OUT or time TOKENIZER TEXTS REPEATS");
  }
  const Tokenizer tokenizer(arguments[2]);
  const auto bytes = read_text(arguments[3]);
  const auto texts = read_texts(bytes);
  if (std::strcmp(arguments[1], "encode") == 0) {
    encode(tokenizer, texts, arguments[4]);
  } else {
    time(tokenizer, texts, std::stoi(arguments[4]));
  }
  return 0;
} catch (const std::exception& error) {
  fmt::print(stderr, "{}\n", error.what());
  return 1;
}
