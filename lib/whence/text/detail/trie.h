#pragma once
#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace whence::detail {

/// Ids by byte strings that share their beginnings.
class Trie {
 public:
  /// The last one added for a key counts. An empty key is left out.
  void add(std::string_view key, std::int32_t id) {
    std::size_t node = 0;
    for (const char byte : key) {
      auto next = child(node, byte);
      if (next == 0) {
        next = nodes_.size();
        auto& children = nodes_[node].children;
        const std::pair entry(byte, next);
        children.insert(std::lower_bound(children.begin(), children.end(), entry), entry);
        nodes_.emplace_back();
      }
      node = next;
    }
    if (node != 0) {
      nodes_[node].id = id;
    }
  }

  /// Calls take(size, id) for each key that `text` begins with, the shortest first.
  template <class Take>
  void for_each_prefix(std::string_view text, Take&& take) const {
    std::size_t node = 0;
    for (std::size_t at = 0; at < text.size(); ++at) {
      node = child(node, text[at]);
      if (node == 0) {
        return;
      }
      if (nodes_[node].id >= 0) {
        take(at + 1, nodes_[node].id);
      }
    }
  }

 private:
  struct Node {
    std::vector<std::pair<char, std::size_t>> children;  // by byte
    std::int32_t id = -1;
  };
  std::size_t child(std::size_t node, char byte) const {  // 0 where there is none
    const auto& children = nodes_[node].children;
    const auto found = std::lower_bound(children.begin(), children.end(), std::pair(byte, std::size_t{0}));
    return found != children.end() && found->first == byte ? found->second : 0;
  }

  std::vector<Node> nodes_ = std::vector<Node>(1);
};

}  // namespace whence::detail
