#pragma once
#include "whence/core/parameters.h"
#include "whence/core/random.h"

namespace whence::detail {

/// A matrix [dimension, entries of the layout] of normal numbers of variance 1 / dimension, which keeps products of
/// long vectors nearly as they are (W. Johnson and J. Lindenstrauss 1984). Its rows are made when they are asked for,
/// each from the seed and its number alone.
class Projection {
 public:
  Projection(const Random& random, std::int64_t dimension, ParameterSet layout)
      : random_(random), dimension_(dimension), layout_(std::move(layout)) {}

  std::int64_t dimension() const { return dimension_; }
  /// How many rows to ask for at once: those that take 256 MiB, at least one.
  std::int64_t rows_at_once() const;
  /// Rows begin .. begin + count - 1, as directions of each parameter: [count, ...shape].
  Directions rows(std::int64_t begin, std::int64_t count) const;

 private:
  Random random_;
  std::int64_t dimension_;
  ParameterSet layout_;
};

}  // namespace whence::detail
