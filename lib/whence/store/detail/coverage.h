#pragma once
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <vector>

namespace whence::detail {

/// A rectangle of cells: rows are queries, columns examples.
struct Block {
  std::int64_t first_row, rows, first_column, columns;
};

/// Which cells of a matrix are held: per row, the disjoint intervals of columns. Rows filled from left to right keep
/// one each.
class Coverage {
 public:
  explicit Coverage(std::int64_t rows) : rows_(static_cast<std::size_t>(rows)) {}

  void add(const Block& block) {
    for (auto row = block.first_row; row < block.first_row + block.rows; ++row) {
      add_interval(rows_[static_cast<std::size_t>(row)], block.first_column, block.first_column + block.columns);
    }
  }

  bool holds(const Block& block) const {
    for (auto row = block.first_row; row < block.first_row + block.rows; ++row) {
      if (held_up_to(row, block.first_column) < block.first_column + block.columns) {
        return false;
      }
    }
    return true;
  }

  /// The end of the run of held columns that starts at `column`; `column` itself where it is not held.
  std::int64_t held_up_to(std::int64_t row, std::int64_t column) const {
    const auto& held = rows_[static_cast<std::size_t>(row)];
    const auto next = held.upper_bound(column);
    return next == held.begin() ? column : std::max(column, std::prev(next)->second);
  }

 private:
  using Intervals = std::map<std::int64_t, std::int64_t>;  // begin to end, disjoint and not touching

  static void add_interval(Intervals& held, std::int64_t begin, std::int64_t end) {
    if (begin == end) {
      return;
    }
    auto at = held.upper_bound(begin);
    if (at != held.begin() && std::prev(at)->second >= begin) {
      at = std::prev(at);
      begin = at->first;
    }
    while (at != held.end() && at->first <= end) {
      end = std::max(end, at->second);
      at = held.erase(at);
    }
    held.emplace(begin, end);
  }

  std::vector<Intervals> rows_;
};

}  // namespace whence::detail
