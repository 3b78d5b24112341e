#include <openssl/evp.h>

#include <cstring>
#include <optional>

#include "whence/text/detail/normalizers.h"
#include "whence/text/detail/regex.h"

namespace whence::detail {
namespace {

/// A double-array trie over bytes, as the darts-clone library writes it, whose values are places in a list of texts
/// that end in a zero byte. https://github.com/google/sentencepiece, src/normalizer.cc.
class Charsmap {
 public:
  /// Throws DataError of `component` when `bytes` are not such a map.
  Charsmap(const std::string& bytes, const Component& component) {
    std::uint32_t size = 0;
    if (bytes.size() >= sizeof(size)) {
      std::memcpy(&size, bytes.data(), sizeof(size));
    }
    if (size == 0 || size % 4 != 0 || size > bytes.size() - sizeof(size)) {
      component.fail("precompiled_charsmap: expected the size of a trie, the trie and the texts");
    }
    units_.resize(size / 4);
    std::memcpy(units_.data(), bytes.data() + sizeof(size), size);
    texts_ = bytes.substr(sizeof(size) + size);
    if (!is_utf8(texts_)) {
      component.fail("precompiled_charsmap: its texts are not UTF-8");
    }
  }

  /// What the shortest key that `text` begins with maps to, if there is one.
  std::optional<std::string_view> find(std::string_view text) const {
    std::size_t node = offset(units_[0]);
    for (const char byte : text) {
      const auto label = static_cast<unsigned char>(byte);
      node ^= label;
      if (label == 0 || node >= units_.size() || (units_[node] & (1u << 31 | 0xff)) != label) {
        break;
      }
      const auto unit = units_[node];
      node ^= offset(unit);
      if ((unit >> 8 & 1) != 0 && node < units_.size()) {
        const auto place = units_[node] & ~(1u << 31);
        return place < texts_.size() ? std::string_view(texts_.c_str() + place) : std::string_view{};
      }
    }
    return std::nullopt;
  }

 private:
  static std::size_t offset(std::uint32_t unit) {
    return static_cast<std::size_t>(unit >> 10) << ((unit & 1 << 9) >> 6);
  }

  std::vector<std::uint32_t> units_;
  std::string texts_;
};

/// Replaces what the map has: a short grapheme cluster as a whole, else its characters one by one.
class Precompiled : public Normalizer {
 public:
  explicit Precompiled(Charsmap map) : map_(std::move(map)) {}

  void apply(AlignedText& text) const override {
    const auto bytes = text.bytes();
    std::vector<Change> changes;
    std::vector<Match> clusters;
    clusters_.find(bytes, clusters);
    for (const auto& [span, matched] : clusters) {
      text.check_room(changes.size());
      const auto cluster = bytes.substr(span.begin, span.end - span.begin);
      if (cluster.size() < 6 && replace(cluster, changes)) {
        continue;
      }
      for (std::size_t at = 0; at < cluster.size();) {
        const auto begin = at;
        const auto character = next_character(cluster, at);
        if (!replace(cluster.substr(begin, at - begin), changes)) {
          changes.push_back({character, 0});
        }
      }
    }
    text.transform(changes);
  }

 private:
  /// False when the map has no key that `old` begins with.
  bool replace(std::string_view old, std::vector<Change>& changes) const {
    const auto found = map_.find(old);
    if (!found) {
      return false;
    }
    std::ptrdiff_t difference = 0;
    for (std::size_t at = 0; at < found->size(); ++difference) {
      changes.push_back({next_character(*found, at), 0});
    }
    for (std::size_t at = 0; at < old.size(); --difference) {
      next_character(old, at);
    }
    if (difference < 0 && !changes.empty()) {
      changes.back().change += static_cast<int>(difference);
    }
    for (auto change = changes.rbegin(); difference > 0; --difference, ++change) {
      change->change = 1;
    }
    return true;
  }

  Charsmap map_;
  Pattern clusters_{"\\X", Pattern::Kind::kRegex};
};

std::string read_charsmap(const Component& component) {
  const auto text = component.text("precompiled_charsmap");
  std::string bytes(text.size() / 4 * 3, '\0');
  const auto size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                    reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (size < 0) {
    component.fail("precompiled_charsmap: not base64");
  }
  bytes.resize(static_cast<std::size_t>(size) - (text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0));
  return bytes;
}

}  // namespace

std::unique_ptr<Normalizer> read_precompiled(const Component& component) {
  return std::make_unique<Precompiled>(Charsmap(read_charsmap(component), component));
}

}  // namespace whence::detail
