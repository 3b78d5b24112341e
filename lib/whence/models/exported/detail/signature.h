#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "whence/data/dataset.h"
#include "whence/models/exported/detail/archive.h"
#include "whence/models/exported/detail/program.h"

namespace whence::detail {

/// The shape of a value of the program: nothing for a size that may be any.
using OpenShape = std::vector<std::optional<std::int64_t>>;

/// One input of a program's graph.
struct ProgramInput {
  enum class Kind {
    kParameter,
    kBuffer,
    kConstant,  ///< A tensor that the program holds.
    kUser,      ///< A tensor of the caller's: an argument of forward.
    kFixed      ///< What the export fixed; nothing reads it.
  };
  Kind kind = Kind::kFixed;
  std::string name = {};                  ///< In the state dict, or of forward's argument.
  OpenShape shape = {};                   ///< Of an argument,
  std::vector<std::string> symbols = {};  ///< what the program calls each of its open sizes,
  OpenShape sample = {};                  ///< as it was when it was exported,
  at::ScalarType dtype = at::kFloat;
};

/// What goes into a program and comes out of it.
struct ProgramSignature {
  std::vector<ProgramInput> inputs;       ///< In the graph's order.
  std::vector<std::string> output_names;  ///< By the keys of what forward returns; of one alone "".
  std::vector<OpenShape> output_shapes;
  std::map<std::string, std::int64_t> most;  ///< Of open sizes, by what the program calls them.

  /// Throws DataError for what forward may not do: change buffers, take numbers, or run for one size of batch only.
  static ProgramSignature read(const ExportArchive& archive);

  std::vector<std::string> arguments() const;
  bool takes_tokens() const;
  /// The most tokens that it takes: a fixed length, or the range that the export was given.
  std::int64_t context() const;
  /// Whether it was exported for one example, as it stays.
  bool one_at_a_time() const;
  /// Throws InvalidArgument where no output has that key, or one is to be chosen.
  std::size_t chosen_output(const std::string& wanted, const std::string& where) const;
  /// The last size of an output, where it is fixed.
  std::optional<std::int64_t> width(std::size_t output) const;
  /// Throws InvalidArgument, naming the argument, where an example's inputs of these shapes do not fit: one, or one for
  /// each argument in order. `from` is where they come from; empty: not known.
  void check_shapes(const std::vector<InputShape>& shapes, const std::string& from, const std::string& where) const;
  /// The arguments of forward for a batch, in order. Several are laid end to end in its inputs, [B, entries of all].
  std::vector<at::Tensor> arguments_of(const Batch& batch, const Setting& setting, const std::string& where) const;
};

/// What mends an output of one number, a loss that is a mean.
inline constexpr const char* kOfEachExample =
    ": a loss inside the model is one number an example: reduction=\"none\" in torch, and no mean() or sum()";

/// "[any, 3, 32, 32]".
std::string shape_text(const OpenShape& shape);

/// Throws DataError for a program that writes into its parameters or buffers, is in training mode or draws random
/// numbers, naming the module and what to write before the export.
void check_pure(const Program& program, const ProgramSignature& signature, const std::string& where);

}  // namespace whence::detail
