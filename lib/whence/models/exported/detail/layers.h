#pragma once
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/core/tensors.h"
#include "whence/models/exported/detail/examples.h"
#include "whence/models/exported/detail/program.h"
#include "whence/models/tape.h"

namespace whence::detail {

/// A node that multiplies with parameters as the operations of models/ops.h do.
struct ProgramLayer {
  enum class Form { kLinear, kConvolution, kTransposed, kEmbedding, kNorm, kRecurrent };
  Form form = Form::kLinear;
  std::string weight = {}, bias = {};  ///< Names of theta; a bias may be empty.
  bool transposed = false;             ///< A weight [in, out].
  int input = 0;                       ///< Places of the node's arguments,
  int weight_place = -1;               ///< of a norm.
  int bias_place = -1;
  std::vector<std::string> parameters = {};  ///< All of its names, in the order in which a recurrent one takes them.
};

/// Which nodes are layers, and the parameters all of whose uses are: those of others have no entry on a tape, and are
/// taken a copy an example. `parameters` has for each of the program's inputs the name in theta, empty where it is
/// none.
struct ProgramLayers {
  std::map<const Node*, ProgramLayer> layers;
  std::vector<std::string> others;  ///< Parameters with a use that is no layer.

  static ProgramLayers of(const Program& program, const std::vector<std::string>& parameters,
                          const ParameterSet& theta);
};

/// Runs a program's layers by the operations of models/ops.h, which do what theta's additions say and record. With
/// `examples`, within that scope, the tape's rows are known whatever the layout; without, no tape is taken.
class LayerRunner : public NodeRunner {
 public:
  LayerRunner(const ProgramLayers& layers, const ParameterSet& theta, const OneByOne* examples, Tape* tape)
      : layers_(layers), theta_(theta), examples_(examples), tape_(tape) {}
  void run(const Node& node, torch::jit::Stack& stack, const ProgramRun& run) override;

 private:
  at::Tensor physical(const at::Tensor& x) const { return examples_ == nullptr ? x : examples_->of_all(x); }
  at::Tensor seen(const at::Tensor& x) const { return examples_ == nullptr ? x : examples_->seen(x); }
  void set_rows(std::int64_t rows, const at::Tensor& like);
  void refuse_additions(std::string_view module) const;
  at::Tensor run_linear(const ProgramLayer& layer, const at::Tensor& x);
  at::Tensor run_embedding(const ProgramLayer& layer, const Node& node, const torch::jit::Stack& stack);
  at::Tensor run_norm(const ProgramLayer& layer, const Node& node, torch::jit::Stack& stack, const ProgramRun& run);
  at::Tensor run_convolution(const ProgramLayer& layer, const Node& node, const torch::jit::Stack& stack,
                             const at::Tensor& x);
  at::Tensor run_transposed(const ProgramLayer& layer, const Node& node, const torch::jit::Stack& stack,
                            const at::Tensor& x);
  /// Steps of cells, which are linear layers: what the node gives.
  TensorList run_recurrent(const ProgramLayer& layer, const Node& node, const torch::jit::Stack& stack,
                           const at::Tensor& x);

  const ProgramLayers& layers_;
  const ParameterSet& theta_;
  const OneByOne* examples_;
  Tape* tape_;
};

/// Records parameters that no layer owns: a copy an example, whose gradient is the example's. What stands for the
/// parameter in the program that runs within `examples`; it itself where the tape does not want it.
at::Tensor record_copies(const std::string& name, const at::Tensor& value, const OneByOne& examples, Tape& tape);

}  // namespace whence::detail
