#pragma once
#include <ATen/core/ivalue.h>

#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <vector>

#include "whence/core/tensors.h"

namespace whence::detail {

/// What a pure function made of tensors, kept for when it is asked of the same numbers again. Thread-safe.
class KeptValues {
 public:
  using Values = std::vector<c10::IValue>;

  /// make(), or what it gave when `kind`, the numbers in `of` and those in `weights` were the same, whatever tensors
  /// they are in. Nothing in them is differentiated. At most 256 MiB are kept (keepable_bytes()), of each `kind` and
  /// `of` what the last weights gave; where that is too little, all is forgotten and kept anew. Cost of asking: a
  /// comparison of `of` and `weights`, none where they are in the same memory.
  Values get(const std::string& kind, const TensorList& of, const TensorList& weights,
             const std::function<Values()>& make);

 private:
  /// A tensor as it was seen: what is written into it later makes it another.
  struct Seen {
    at::Tensor value;
    std::int64_t version;

    explicit Seen(const at::Tensor& x) : value(x.detach()), version(value._version()) {}
    bool is(const at::Tensor& x) const;
  };
  struct Entry {
    std::string kind;
    std::vector<Seen> of, weights;
    Values values;
    double bytes = 0;
  };
  static bool same(const std::vector<Seen>& seen, const TensorList& now);

  std::mutex mutex_;
  std::list<Entry> entries_;
  double bytes_ = 0;
};

}  // namespace whence::detail
