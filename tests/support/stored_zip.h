#pragma once
#include <zlib.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace whence::test {

/// A zip file of these members, stored as PyTorch stores them.
inline std::string stored_zip(const std::vector<std::pair<std::string, std::string>>& members) {
  const auto number = [](std::uint64_t value, int width) {  // the lowest byte first
    std::string out;
    for (int i = 0; i < width; ++i, value >>= 8) {
      out.push_back(static_cast<char>(value & 0xff));
    }
    return out;
  };
  std::string out, directory;
  for (const auto& [name, data] : members) {
    const auto checksum = crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size());
    const auto begin = out.size();
    const auto middle = number(checksum, 4) + number(data.size(), 4) + number(data.size(), 4) + number(name.size(), 2);
    out += "PK\x03\x04" + number(20, 2) + number(0, 8) + middle + number(0, 2) + name + data;
    directory +=
        "PK\x01\x02" + number(20, 2) + number(20, 2) + number(0, 8) + middle + number(0, 12) + number(begin, 4) + name;
  }
  const auto end = number(members.size(), 2) + number(members.size(), 2) + number(directory.size(), 4) +
                   number(out.size(), 4) + number(0, 2);
  return out + directory + "PK\x05\x06" + number(0, 4) + end;
}

}  // namespace whence::test
