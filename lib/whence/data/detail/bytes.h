#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "whence/core/files.h"

namespace whence::detail {

/// Bytes that a tensor of this shape takes; nothing when that, or the product of its sizes other than 0, leaves 63
/// bits.
std::optional<std::int64_t> checked_bytes(at::IntArrayRef shape, std::int64_t element_size);

/// The tensor whose little-endian entries start at byte `offset` of `file`, which must hold them all. Shares the file's
/// memory, read only, and keeps it alive; a copy where the entries are not aligned.
at::Tensor mapped_tensor(std::shared_ptr<const FileBytes> file, std::size_t offset, at::IntArrayRef shape,
                         at::ScalarType dtype);

/// The first row of x [N, ...] that holds an entry that is not finite; -1 where there is none. With a dtype: as that.
std::int64_t first_nonfinite_row(const at::Tensor& x, std::optional<at::ScalarType> dtype = {});

}  // namespace whence::detail
