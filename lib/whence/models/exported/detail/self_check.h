#pragma once
#include <functional>
#include <string>
#include <vector>

#include "whence/core/tensors.h"
#include "whence/models/exported/detail/archive.h"
#include "whence/models/exported/detail/signature.h"

namespace whence::detail {

/// What is run of a program, from forward's arguments [B, …].
struct ProgramProbes {
  std::function<at::Tensor(const std::vector<at::Tensor>&)> output;
  std::function<at::Tensor(const std::vector<at::Tensor>&)> one_by_one;
  /// Of the sum of the output's squares, in the parameters.
  std::function<TensorList(const std::vector<at::Tensor>&)> gradient;
};

struct SelfCheck {
  std::vector<std::string> notes;
  std::string why_no_layers;  ///< Empty: it runs for one example at a time, with the same output.
};

/// Two examples through a program: those that its file stores (python/whence_export.py), or made-up ones. Throws
/// DataError where one example's output moves with the other, or the file tells of another output. A gradient whose
/// norm is not the one that PyTorch had is a note: something stopped it there that the file does not show. Cost: five
/// passes.
SelfCheck self_check(const ExportArchive& archive, const ProgramSignature& signature, at::ScalarType dtype,
                     const ProgramProbes& probes);

/// The list that python/whence_export.py stored under `key`; empty where it did not.
template <class T>
std::vector<T> stored(const ExportArchive& archive, std::string_view key) {
  return archive.told && archive.told->contains(key) && !(*archive.told)[key].is_null()
             ? (*archive.told)[key].get<std::vector<T>>()
             : std::vector<T>();
}

}  // namespace whence::detail
