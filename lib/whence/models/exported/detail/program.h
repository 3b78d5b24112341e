#pragma once
#include <ATen/core/stack.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "whence/models/exported/detail/operand.h"

namespace whence::detail {

class Program;
class NodeRunner;

/// How a program is run.
struct ProgramRun {
  Setting setting;
  NodeRunner* runner = nullptr;  ///< Null: every node is called as it is.
};

/// One step of a program.
struct Node {
  std::string target;                           ///< As the file calls it: torch.ops.aten.linear.default.
  std::string where;                            ///< "linear_3 in layers.0.mlp": as messages name it.
  const c10::FunctionSchema* schema = nullptr;  ///< Of an operator; null: arithmetic of sizes, or a scope.
  std::vector<Operand> inputs;                  ///< An operator's in its schema's order.
  std::vector<int> outputs;                     ///< Slots of all values that it makes, lists laid end to end.
  /// Pops as many values as there are inputs and pushes as many as there are outputs.
  std::function<void(torch::jit::Stack&, const ProgramRun&)> call;
  std::vector<std::shared_ptr<const Program>> graphs;  ///< Graphs within it.
  std::vector<int> done;                               ///< Slots that no later node reads.
  bool output_written = false;                         ///< Whether a later node writes into what it makes,
  bool input_written = false;                          ///< or into what it reads.

  /// "linear" of torch.ops.aten.linear.default.
  std::string operation() const;
  /// The place of an argument in `inputs`; -1 where the operator has none of that name.
  int argument(const std::string& name) const;
};

/// What runs a program's nodes otherwise than by calling them.
class NodeRunner {
 public:
  virtual ~NodeRunner() = default;
  virtual void run(const Node& node, torch::jit::Stack& stack, const ProgramRun& run) = 0;
};

/// A graph of the export format, compiled: names are slots, operators looked up, constants made. Of operators only
/// `aten`'s that compute are taken; a graph within it is one of its nodes. Immutable.
class Program {
 public:
  /// `graph` is a Graph of the export schema. Throws DataError for what is not run: all its unknown operators in one
  /// line, with the modules that they are of.
  Program(const JsonView& graph, const std::string& where);

  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<Operand>& outputs() const { return outputs_; }

  /// The outputs for values of all inputs. Throws InvalidArgument naming the node where an operator refuses what it is
  /// given.
  std::vector<c10::IValue> run(std::vector<c10::IValue> inputs, const ProgramRun& run) const;

  /// Inputs that a node writes into, themselves or a view of them, and the node: training mode, where they are
  /// parameters or buffers.
  const std::map<int, const Node*>& written_inputs() const { return written_inputs_; }

  /// Two programs that make it up: `fixed` computes from its inputs what no input of `moving` has a part in, and
  /// nothing that is written into later; `moving` takes the same inputs and behind them what `fixed` gives.
  struct Parts;
  Parts parts(const std::set<int>& moving) const;

 private:
  struct Unknown {
    std::vector<std::string> operators;
  };
  Program(const JsonView& graph, const std::string& where, Unknown& unknown, int depth);
  void compile(const JsonView& json, SlotNames& names, Unknown& unknown, int depth);
  void find_writes();  // program_parts.cpp
  void find_last_uses();

  std::string where_;
  std::vector<int> inputs_;  ///< Slots.
  int slots_ = 0;
  std::vector<Node> nodes_;
  std::vector<Operand> outputs_;
  std::map<int, const Node*> written_inputs_;
  struct Touch {
    std::size_t node;
    int memory;  ///< The slot whose tensor it may be.
    bool writes;
  };
  std::vector<Touch> touches_;                   ///< What nodes read, make and write, in order.
  std::vector<std::pair<int, int>> may_be_one_;  ///< Memory that a node may give one or the other of.
};

struct Program::Parts {
  Program fixed, moving;
};

}  // namespace whence::detail
