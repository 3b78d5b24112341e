#pragma once
#include <memory>
#include <set>
#include <vector>

#include "whence/models/exported/detail/examples.h"
#include "whence/models/exported/detail/kept_values.h"
#include "whence/models/exported/detail/program.h"
#include "whence/models/exported/detail/signature.h"

namespace whence::detail {

/// A program whose beginning is made of nothing that is trained: what that gives for a batch is kept, and asked for
/// again it costs a comparison. Not to outlive the program.
class FrozenProgram {
 public:
  /// `moving` are the inputs that are trained. Null where no other weight is computed with before they come in, so that
  /// nothing is worth keeping.
  static std::unique_ptr<const FrozenProgram> of(const Program& program, const ProgramSignature& signature,
                                                 const std::set<int>& moving);

  /// The part that runs every time; it takes what the program takes and behind it what was kept.
  const Program& moving() const { return parts_.moving; }
  /// What the program gives for values of all its inputs. `arguments` are the user's among them, as they were given (an
  /// input may be a copy, to be written into); with `examples`, one at a time under vmap. The whole program is run
  /// where an argument is differentiated.
  std::vector<c10::IValue> run(std::vector<c10::IValue> inputs, const std::vector<at::Tensor>& arguments,
                               const ProgramRun& how, const OneByOne* examples, KeptValues& kept) const;

 private:
  FrozenProgram(const Program& program, Program::Parts parts) : program_(program), parts_(std::move(parts)) {}

  const Program& program_;
  Program::Parts parts_;
  std::vector<std::size_t> arguments_, weights_;  ///< What `fixed` is made of: of the arguments, and of the inputs.
};

}  // namespace whence::detail
