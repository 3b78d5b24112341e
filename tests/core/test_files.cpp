#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <set>
#include <thread>
#include <vector>

#include "support/contents.h"
#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/files.h"

namespace whence::test {
namespace {

namespace fs = std::filesystem;

/// No file may grow past `bytes` while this lives, as on a full disk.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) {  // no assertion here: what it prints may go to a file
      throw std::runtime_error("setrlimit");
    }
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};

TEST_SUITE_BEGIN("core");

TEST_CASE("files: plain and gzipped bytes are read whole") {
  const Scratch scratch;
  std::string text(300'000, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<char>(i * i % 251);
  }
  CHECK(read_text(scratch.put("plain", text)) == text);
  CHECK(read_text(scratch.put("packed.gz", text)) == text);
  CHECK(read_text(scratch.put("zeros.gz", std::string(5'000'000, '\0'))).size() == 5'000'000);
  CHECK(read_text(scratch.put("empty", "")).empty());
  CHECK(read_text(scratch.put("empty.gz", "")).empty());
  const auto held = open_bytes(scratch / "plain");
  fs::remove(scratch / "plain");
  CHECK(std::to_integer<int>(held->bytes()[1000]) == 1000 * 1000 % 251);
}

TEST_CASE("files: a gzip stream inflates to a limit that grows with it") {
  const Scratch scratch;
  constexpr std::size_t kMostInflated = std::size_t{64} << 20;
  const std::string zeros(kMostInflated + 1, '\0');
  CHECK(read_text(scratch.put("most.gz", zeros.substr(1))).size() == kMostInflated);
  CHECK_MESSAGE_HOLDS(DataError, "bomb.gz: inflates to more than 64 MiB, ", read_text(scratch.put("bomb.gz", zeros)));
  CHECK_MESSAGE_HOLDS(DataError, "gunzip --keep bomb.gz", read_text(scratch / "bomb.gz"));
  std::string noise(std::size_t{1} << 19, '\0');  // which packs badly, so that 200 times are more
  std::uint64_t state = 1;
  for (auto& byte : noise) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    byte = static_cast<char>(state >> 56);
  }
  CHECK(read_text(scratch.put("large.gz", noise + zeros)).size() == noise.size() + zeros.size());
}

TEST_CASE("files: a pipe is refused at once, not waited for") {
  const Scratch scratch;
  for (const char* name : {"pipe", "pipe.gz"}) {
    REQUIRE(::mkfifo((scratch / name).c_str(), 0600) == 0);
    CHECK_MESSAGE_HOLDS(DataError, "not a regular file, but a pipe", open_bytes(scratch / name));
    CHECK_MESSAGE_HOLDS(DataError, "not a regular file, but a pipe", digest(scratch / name));
  }
}

TEST_CASE("files: what cannot be read is named, with the reason") {
  const Scratch scratch;
  CHECK_MESSAGE_HOLDS(DataError, "cannot read " + (scratch / "gone").string() + ": No such file",
                      open_bytes(scratch / "gone"));
  CHECK_MESSAGE_HOLDS(DataError, "No such file", open_bytes(scratch / "gone.gz"));
  CHECK_MESSAGE_HOLDS(DataError, "not a regular file", open_bytes(scratch.folder()));
  CHECK_MESSAGE_HOLDS(DataError, "No such file", digest(scratch / "gone"));
}

TEST_CASE("files: a gzip stream truncated or damaged is refused") {
  const Scratch scratch;
  std::string text;
  for (int i = 0; i < 2000; ++i) {
    text += std::to_string(i * 7919 % 10007) + ' ';
  }
  const auto whole = bytes_of(scratch.put("a.gz", text));
  const auto put_raw = [&](const std::string& bytes) {
    std::ofstream(scratch / "bad.gz", std::ios::binary | std::ios::trunc) << bytes;
    return scratch / "bad.gz";
  };
  for (std::size_t size = 2; size < whole.size(); size += size < 64 || whole.size() - size < 64 ? 1 : 97) {
    INFO("first ", size, " of ", whole.size(), " bytes");
    CHECK_MESSAGE_HOLDS(DataError, "bad.gz: damaged or truncated gzip stream",
                        open_bytes(put_raw(whole.substr(0, size))));
  }
  for (const std::size_t place : {whole.size() - 1, whole.size() - 6, whole.size() / 2}) {
    auto bytes = whole;
    bytes[place] = static_cast<char>(bytes[place] ^ 0x10);
    CHECK_MESSAGE_HOLDS(DataError, "bad.gz: damaged or truncated gzip stream", open_bytes(put_raw(bytes)));
  }
}

TEST_CASE("files: write_atomically leaves the whole file and no part") {
  const Scratch scratch;
  write_text(scratch / "a", "first");
  write_text(scratch / "a", "second");
  CHECK(bytes_of(scratch / "a") == "second");
  std::string large;  // pieces below and above any buffer
  write_atomically(scratch / "b", [&](std::ostream& out) {
    for (std::size_t size : {1U, 65535U, 1U, 70000U, 3U, 65536U, 200000U}) {
      const std::string piece(size, static_cast<char>('a' + size % 26));
      large += piece;
      out << piece << std::flush;
    }
    out.put('!');
  });
  CHECK(bytes_of(scratch / "b") == large + '!');
  CHECK(names_in(scratch.folder()) == Names{"a", "b"});
}

TEST_CASE("files: a write that fails keeps the old file and leaves no part") {
  const Scratch scratch;
  write_text(scratch / "a", "old");
  CHECK_THROWS_AS(write_atomically(scratch / "a",
                                   [](std::ostream& out) {
                                     out << "half";
                                     throw Interrupted();
                                   }),
                  Interrupted);
  CHECK(bytes_of(scratch / "a") == "old");
  CHECK_MESSAGE_HOLDS(DataError, "cannot write " + (scratch / "no/such/a").string() + ": No such file",
                      write_text(scratch / "no/such/a", "x"));
  CHECK_MESSAGE_HOLDS(DataError, "a/b: Not a directory", write_text(scratch / "a/b", "x"));
  CHECK_MESSAGE_HOLDS(DataError, ": File name too long", write_text(scratch / std::string(300, 'n'), "x"));
  fs::create_directory(scratch / "folder");
  CHECK_MESSAGE_HOLDS(DataError, "folder: Is a directory", write_text(scratch / "folder", "x"));
  REQUIRE(::mkfifo((scratch / "pipe").c_str(), 0666) == 0);  // as a device is, /dev/null
  CHECK_MESSAGE_HOLDS(DataError, "pipe: not a regular file", write_text(scratch / "pipe", "x"));
  CHECK(fs::is_fifo(scratch / "pipe"));
  CHECK(names_in(scratch.folder()) == Names{"a", "folder", "pipe"});
  write_text(scratch / std::string(255, 'n'), "x");  // the longest name there can be
  CHECK(bytes_of(scratch / std::string(255, 'n')) == "x");
}

TEST_CASE("files: threads that write one file leave one of theirs, whole") {
  const Scratch scratch;
  std::vector<std::thread> writers;
  for (int t = 0; t < 4; ++t) {
    writers.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        write_text(scratch / "a", std::string(100'000, static_cast<char>('a' + t)));
      }
    });
  }
  for (auto& writer : writers) {
    writer.join();
  }
  const auto left = bytes_of(scratch / "a");
  CHECK(left == std::string(100'000, left.at(0)));
  CHECK(names_in(scratch.folder()) == Names{"a"});
}

TEST_CASE("files: a link stays a link, and what it names is replaced; permissions stay, new ones follow the umask") {
  const Scratch scratch;
  fs::create_directory(scratch / "real");
  write_text(scratch / "real/a", "old");
  fs::permissions(scratch / "real/a", fs::perms(0640));
  fs::create_symlink("real/a", scratch / "link");
  fs::create_symlink(scratch / "link", scratch / "links");
  fs::create_symlink("real/new", scratch / "dangling");
  fs::create_symlink("loop", scratch / "loop");
  write_text(scratch / "links", "new");
  CHECK(fs::is_symlink(scratch / "links"));
  CHECK(fs::is_symlink(scratch / "link"));
  CHECK(bytes_of(scratch / "real/a") == "new");
  CHECK(fs::status(scratch / "real/a").permissions() == fs::perms(0640));
  const auto before = ::umask(027);
  write_text(scratch / "dangling", "x");
  ::umask(before);
  CHECK(fs::is_symlink(scratch / "dangling"));
  CHECK(bytes_of(scratch / "real/new") == "x");
  CHECK(fs::status(scratch / "real/new").permissions() == fs::perms(0640));
  CHECK_MESSAGE_HOLDS(DataError, "loop: Too many levels of symbolic links", write_text(scratch / "loop", "x"));
  CHECK(names_in(scratch / "real") == Names{"a", "new"});
}

TEST_CASE("files: a full disk is an error that leaves nothing") {
  const Scratch scratch;
  std::string large, small, kept;
  {
    const FullDisk full(4096);
    large = message_of<DataError>([&] { write_text(scratch / "large", std::string(1'000'000, 'x')); });
    // Small pieces fail only when the stream's buffer is flushed.
    small = message_of<DataError>([&] {
      write_atomically(scratch / "small", [](std::ostream& out) {
        for (int i = 0; i < 100'000; ++i) {
          out << i << '\n';
        }
      });
    });
    kept = message_of<DataError>([&] { write_text(scratch / "fits", std::string(4096, 'x')); });
  }
  CHECK_MESSAGE(large.find("cannot write") == 0, large);
  CHECK_MESSAGE(small.find("cannot write") == 0, small);
  CHECK_MESSAGE(large.find("File too large") != large.npos, large);
  CHECK(kept.empty());
  CHECK(fs::exists(scratch / "fits"));
  CHECK(std::distance(fs::directory_iterator(scratch.folder()), fs::directory_iterator()) == 1);
}

TEST_CASE("files: digest is SHA-256") {
  const Scratch scratch;
  // FIPS 180-4 examples.
  CHECK(digest(scratch.put("abc", "abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(digest(scratch.put("none", "")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  const auto packed = scratch.put("abc.gz", "abc");
  fs::copy(packed, scratch / "same-bytes");
  CHECK(digest(packed) == digest(scratch / "same-bytes"));  // of the file as it lies, not of what it inflates to
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
