#include "whence/models/exported/detail/zip.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "whence/core/error.h"
#include "whence/core/printable.h"

namespace whence::detail {
namespace {

/// Little-endian numbers at places of a file, which must be within it.
class Numbers {
 public:
  Numbers(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {}
  std::uint64_t at(std::uint64_t place, int width) const {
    check(place, static_cast<std::uint64_t>(width));
    std::uint64_t out = 0;
    for (int i = width - 1; i >= 0; --i) {
      out = out << 8 | std::to_integer<std::uint64_t>(bytes_[place + static_cast<std::uint64_t>(i)]);
    }
    return out;
  }
  std::string text(std::uint64_t place, std::uint64_t length) const {
    check(place, length);
    return {reinterpret_cast<const char*>(bytes_.data() + place), length};
  }
  void check(std::uint64_t place, std::uint64_t length) const {
    if (place > bytes_.size() || length > bytes_.size() - place) {
      throw DataError(fmt::format("{}: a zip file of {} bytes that goes on at byte {}: it is cut or damaged", where_,
                                  bytes_.size(), place));
    }
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& where_;
};

constexpr std::uint64_t kEnd = 0x06054b50, kEnd64 = 0x06064b50, kEnd64Place = 0x07064b50, kEntry = 0x02014b50,
                        kLocal = 0x04034b50, kIn64 = 0xffffffff;

struct Directory {
  std::uint64_t count = 0, begin = 0;
};

Directory find_directory(const Numbers& file, std::uint64_t size, const std::string& where) {
  constexpr std::uint64_t kEndSize = 22, kLongestComment = 65535, kPlaceSize = 20;
  for (std::uint64_t back = kEndSize; back <= std::min(size, kEndSize + kLongestComment); ++back) {
    const auto end = size - back;
    if (file.at(end, 4) != kEnd) {
      continue;
    }
    if (end >= kPlaceSize && file.at(end - kPlaceSize, 4) == kEnd64Place) {
      const auto end64 = file.at(end - kPlaceSize + 8, 8);
      if (file.at(end64, 4) != kEnd64) {
        break;
      }
      return {file.at(end64 + 32, 8), file.at(end64 + 48, 8)};
    }
    return {file.at(end + 10, 2), file.at(end + 16, 4)};
  }
  throw DataError(fmt::format("{}: no zip file, which torch.export.save writes, or a damaged one", where));
}

/// Sizes and the place of a member that do not fit 32 bits are in a field of their own, in this order.
void read_wide(const Numbers& file, std::uint64_t begin, std::uint64_t length, std::vector<std::uint64_t*> wanted) {
  for (auto place = begin; place + 4 <= begin + length;) {
    const auto kind = file.at(place, 2), size = file.at(place + 2, 2);
    auto value = place + 4;
    for (auto* number : wanted) {
      if (kind == 1 && *number == kIn64 && value + 8 <= place + 4 + size) {
        *number = file.at(value, 8);
        value += 8;
      }
    }
    place += 4 + size;
  }
}

}  // namespace

Zip::Zip(const std::filesystem::path& path) : where_(path.string()), file_(open_bytes(path)) {
  const auto size = file_->bytes().size();
  const Numbers file(file_->bytes(), where_);
  const auto directory = find_directory(file, size, where_);
  std::string root;
  std::uint64_t all = 0;
  auto place = directory.begin;
  for (std::uint64_t i = 0; i < directory.count; ++i) {
    if (file.at(place, 4) != kEntry) {
      throw DataError(fmt::format("{}: entry {} of the zip file's directory is none: it is damaged", where_, i));
    }
    const auto flags = file.at(place + 8, 2), method = file.at(place + 10, 2);
    const auto name_size = file.at(place + 28, 2), extra_size = file.at(place + 30, 2),
               comment_size = file.at(place + 32, 2);
    auto stored = file.at(place + 20, 4), plain = file.at(place + 24, 4), local = file.at(place + 42, 4);
    auto name = file.text(place + 46, name_size);
    read_wide(file, place + 46 + name_size, extra_size, {&plain, &stored, &local});
    if (method != 0 || (flags & 1) != 0 || stored != plain) {
      throw DataError(fmt::format("{}: member {} is compressed or encrypted, expected as torch.export.save stores it",
                                  where_, printable(name)));
    }
    Member member{0, plain, static_cast<std::uint32_t>(file.at(place + 16, 4))};
    if (file.at(local, 4) != kLocal) {
      throw DataError(fmt::format("{}: member {} is not where the directory says", where_, printable(name)));
    }
    member.begin = local + 30 + file.at(local + 26, 2) + file.at(local + 28, 2);
    file.check(member.begin, member.size);
    all += member.size;
    if (all > size) {
      throw DataError(fmt::format("{}: members of more than its {} bytes in all", where_, size));
    }
    if (i == 0) {
      root = name.substr(0, name.find('/') + 1);
    }
    if (name.starts_with(root)) {
      name.erase(0, root.size());
    }
    if (!members_.emplace(name, member).second) {
      throw DataError(fmt::format("{}: member {} is there twice", where_, printable(name)));
    }
    place += 46 + name_size + extra_size + comment_size;
  }
}

std::vector<std::string> Zip::names() const {
  std::vector<std::string> out;
  for (const auto& [name, member] : members_) {
    out.push_back(name);
  }
  return out;
}

std::span<const std::byte> Zip::bytes(const std::string& name) const {
  const auto found = members_.find(name);
  if (found == members_.end()) {
    throw DataError(fmt::format("{}: no member {}", where_, printable(name)));
  }
  const auto out = file_->bytes().subspan(found->second.begin, found->second.size);
  if (crc32_z(0, reinterpret_cast<const Bytef*>(out.data()), out.size()) != found->second.checksum) {
    throw DataError(fmt::format("{}: the bytes of {} are not those that were written: its checksum is another", where_,
                                printable(name)));
  }
  return out;
}

std::string Zip::text(const std::string& name) const {
  const auto found = bytes(name);
  return {reinterpret_cast<const char*>(found.data()), found.size()};
}

}  // namespace whence::detail
