#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace whence {

/// Takes scores as they are made, so that no caller need hold the whole matrix. One writer at a time.
class ScoreSink {
 public:
  virtual ~ScoreSink() = default;
  /// Whether the cells [first_query, first_query + queries) x [first_example, first_example + examples) are already
  /// held, so that an interrupted run goes on where it stopped.
  virtual bool has(std::int64_t first_query, std::int64_t queries, std::int64_t first_example,
                   std::int64_t examples) const = 0;
  /// Scores [queries, examples] of a block, for queries and examples numbered by row. Positive: upweighting the example
  /// raises the measurement. Throws NumericalError when one is not finite: none is ever written.
  virtual void block(std::int64_t first_query, std::int64_t first_example, const at::Tensor& scores) = 0;
};

}  // namespace whence
