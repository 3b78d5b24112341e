#include "whence/models/exported/detail/program.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/AutogradState.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/core/printable.h"
#include "whence/models/exported/detail/operators.h"
#include "whence/models/interruptible.h"

namespace whence::detail {
namespace {

constexpr int kDeepestGraph = 16;  // graphs within each other

/// "linear in layers.0.mlp": the node and the innermost module that it belongs to.
std::string place_of(const JsonView& json) {
  std::string name = json.contains("name") && json["name"].is_string() ? json["name"].get<std::string>() : "a node";
  if (json.contains("metadata")) {
    auto stack = json["metadata"].value("nn_module_stack", "");
    stack = stack.substr(stack.rfind(';') + 1);  // key,path,class
    const auto first = stack.find(','), second = stack.find(',', first + 1);
    if (second != stack.npos && second > first + 1) {
      name += " in " + stack.substr(first + 1, second - first - 1);
    }
  }
  return printable(name);
}

/// The slots that an Argument in the place of an output names; numbers and none have no slot.
void add_outputs(const JsonView& json, SlotNames& names, std::vector<int>& out, int depth = 0) {
  for (const auto& [kind, value] : json.items()) {
    if (kind == "as_tensor") {
      out.push_back(names.add(value["name"].get<std::string>()));
    } else if (kind == "as_name") {
      out.push_back(names.add(value.get<std::string>()));
    } else if (kind == "as_tensors") {
      for (const auto& part : value.list()) {
        out.push_back(names.add(part["name"].get<std::string>()));
      }
    } else if (kind == "as_optional_tensors" && depth == 0) {
      for (const auto& part : value.list()) {
        add_outputs(part, names, out, 1);
      }
    } else if ((kind == "as_sym_int" || kind == "as_sym_float" || kind == "as_sym_bool" ||
                kind == "as_optional_tensor") &&
               depth == 0) {
      add_outputs(value, names, out, 1);
    } else if (kind == "as_none" || kind == "as_int") {
      out.push_back(names.add(""));  // a return that nobody reads
    } else {
      json.refuse("an output that is a tensor or a size");
    }
  }
}

/// A stack's values with lists of tensors laid out.
void flatten_returns(torch::jit::Stack& stack) {
  torch::jit::Stack flat;
  for (auto& value : stack) {
    if (value.isTensorList()) {
      for (const auto& part : value.toTensorVector()) {
        flat.emplace_back(part);
      }
    } else {
      flat.push_back(std::move(value));
    }
  }
  stack = std::move(flat);
}

std::string first_line(const std::string& text) { return printable(text.substr(0, text.find('\n'))); }

/// Grad modes within a scope, forward mode's too: derivatives of every kind stop where PyTorch's do.
class GradientScope {
 public:
  explicit GradientScope(bool enabled)
      : backward_(c10::GradMode::is_enabled() && enabled),
        forward_before_(c10::AutogradState::get_tls_state().get_fw_grad_mode()) {
    c10::AutogradState::get_tls_state().set_fw_grad_mode(forward_before_ && enabled);
  }
  ~GradientScope() { c10::AutogradState::get_tls_state().set_fw_grad_mode(forward_before_); }
  GradientScope(const GradientScope&) = delete;
  GradientScope& operator=(const GradientScope&) = delete;

 private:
  c10::AutoGradMode backward_;
  bool forward_before_;
};

/// The values on top of a stack, taken from it.
std::vector<c10::IValue> take(torch::jit::Stack& stack) {
  std::vector<c10::IValue> out(std::make_move_iterator(stack.begin()), std::make_move_iterator(stack.end()));
  stack.clear();
  return out;
}

/// Behind the last dot but one, of torch.ops.NAMESPACE.NAME.OVERLOAD.
struct OperatorName {
  std::string space, name, overload;
};
std::optional<OperatorName> operator_name(const std::string& target) {
  constexpr std::string_view kOps = "torch.ops.";
  if (!target.starts_with(kOps)) {
    return std::nullopt;
  }
  const auto rest = target.substr(kOps.size());
  const auto space = rest.find('.'), name = rest.find('.', space + 1);
  if (space == rest.npos || name == rest.npos) {
    return std::nullopt;
  }
  auto overload = rest.substr(name + 1);
  return OperatorName{rest.substr(0, space), rest.substr(space + 1, name - space - 1),
                      overload == "default" ? "" : overload};
}

/// An assertion about what was traced, or a bound on a size: nothing to compute.
bool is_assertion(const OperatorName& op) {
  return op.space == "aten" && (op.name.starts_with("_assert_") || op.name.starts_with("sym_constrain_range"));
}

}  // namespace

std::string Node::operation() const {
  const auto name = operator_name(target);
  return name ? name->name : target;
}

int Node::argument(const std::string& name) const {
  for (std::size_t i = 0; schema != nullptr && i < schema->arguments().size(); ++i) {
    if (schema->arguments()[i].name() == name) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

Program::Program(const JsonView& graph, const std::string& where) {
  Unknown unknown;
  *this = Program(graph, where, unknown, 0);
  if (!unknown.operators.empty()) {
    std::sort(unknown.operators.begin(), unknown.operators.end());
    unknown.operators.erase(std::unique(unknown.operators.begin(), unknown.operators.end()), unknown.operators.end());
    constexpr std::size_t kShown = 20;
    const auto shown = std::min(kShown, unknown.operators.size());
    const std::vector<std::string> first(unknown.operators.begin(),
                                         unknown.operators.begin() + static_cast<std::ptrdiff_t>(shown));
    throw DataError(fmt::format(
        "{}: operators that are not run: {}{}; expected torch's own (aten) that only compute", where,
        fmt::join(first, ", "),
        shown < unknown.operators.size() ? fmt::format(" and {} more", unknown.operators.size() - shown) : ""));
  }
}

Program::Program(const JsonView& graph, const std::string& where, Unknown& unknown, int depth) : where_(where) {
  if (depth > kDeepestGraph) {
    throw DataError(fmt::format("{}: more than {} graphs within each other", where, kDeepestGraph));
  }
  SlotNames names;
  for (const auto& input : graph["inputs"].list()) {
    std::vector<int> slot;
    if (input.contains("as_tensor") || input.contains("as_sym_int") || input.contains("as_sym_float") ||
        input.contains("as_sym_bool")) {
      add_outputs(input, names, slot);
    } else {
      slot.push_back(names.add(""));  // a value that the export fixed: nobody reads the input
    }
    if (slot.size() != 1) {
      input.refuse("an input of one value");
    }
    inputs_.push_back(slot.front());
  }
  for (const auto& node : graph["nodes"].list()) {
    compile(node, names, unknown, depth);
  }
  for (const auto& output : graph["outputs"].list()) {
    outputs_.push_back(Operand::of(output, names));
  }
  slots_ = names.count();
  find_writes();
  find_last_uses();
}

void Program::compile(const JsonView& json, SlotNames& names, Unknown& unknown, int depth) {
  Node node;
  node.target = json["target"].get<std::string>();
  node.where = place_of(json);
  const auto refuse = [&] {
    unknown.operators.push_back(fmt::format("{} ({})", printable(node.target), node.where));
    std::vector<int> ignored;
    for (const auto& output : json["outputs"].list()) {
      add_outputs(output, names, ignored);
    }
  };
  const auto name = operator_name(node.target);
  if (name && is_assertion(*name)) {
    return;
  }
  constexpr std::string_view kHigher = "torch.ops.higher_order.";
  if (node.target.starts_with(kHigher)) {
    const auto which = node.target.substr(kHigher.size());
    const std::size_t first_graph = which == "wrap_with_autocast" ? 4 : 1;
    const bool branch = which == "cond", scope = which == "wrap_with_set_grad_enabled";
    if (!branch && !scope && which != "wrap_with_autocast") {
      return refuse();
    }
    const auto given = json["inputs"].list();
    const auto graph_at = [&](std::size_t i) {
      const auto graph = json["inputs"][i]["arg"]["as_graph"]["graph"];
      return std::make_shared<const Program>(Program(graph, where_, unknown, depth + 1));
    };
    auto first = graph_at(first_graph);
    auto second = branch ? graph_at(2) : nullptr;
    const bool enabled = !scope || json["inputs"][0]["arg"]["as_bool"].get<bool>();
    if (branch) {
      node.inputs.push_back(Operand::of(given.at(0)["arg"], names));
    }
    for (auto i = first_graph + (branch ? 2 : 1); i < given.size(); ++i) {
      const auto argument = given[i]["arg"];
      if (argument.contains("as_tensors")) {  // operands of a branch
        for (const auto& part : argument["as_tensors"].list()) {
          node.inputs.push_back(Operand::of(JsonView({{"as_tensor", part.json()}}, where_), names));
        }
      } else {
        node.inputs.push_back(Operand::of(argument, names));
      }
    }
    node.graphs = branch ? std::vector{first, second} : std::vector{first};
    node.call = [first, second, branch, scope, enabled](torch::jit::Stack& stack, const ProgramRun& run) {
      auto inputs = take(stack);
      auto graph = first;
      if (branch) {
        const auto& chosen = inputs.front();
        graph = (chosen.isTensor() ? chosen.toTensor().item<bool>() : chosen.toBool()) ? first : second;
        inputs.erase(inputs.begin());
      }
      const GradientScope gradients(!scope || enabled);
      stack = graph->run(std::move(inputs), {run.setting, nullptr});
    };
  } else if (name && name->space == "aten" &&
             (name->name == "sym_size" || name->name == "sym_numel" || name->name == "sym_stride" ||
              name->name == "sym_storage_offset")) {
    for (const auto& input : json["inputs"].list()) {
      node.inputs.push_back(Operand::of(input["arg"], names));
    }
    node.call = [which = name->name](torch::jit::Stack& stack, const ProgramRun&) {
      const auto inputs = take(stack);
      const auto x = inputs.at(0).toTensor();
      stack.emplace_back(which == "sym_size"     ? x.size(inputs.at(1).toInt())
                         : which == "sym_stride" ? x.stride(inputs.at(1).toInt())
                         : which == "sym_numel"  ? x.numel()
                                                 : x.storage_offset());
    };
  } else if (auto arithmetic = size_arithmetic(node.target)) {
    for (const auto& input : json["inputs"].list()) {
      node.inputs.push_back(Operand::of(input["arg"], names));
    }
    node.call = [arithmetic](torch::jit::Stack& stack, const ProgramRun&) {
      const auto inputs = take(stack);
      stack.push_back(arithmetic(inputs));
    };
  } else {
    const auto handle = name && name->space == "aten" && is_allowed(name->name)
                            ? c10::Dispatcher::singleton().findSchema({"aten::" + name->name, name->overload})
                            : std::nullopt;
    if (!handle) {
      return refuse();
    }
    node.schema = &handle->schema();
    std::map<std::string, JsonView> given;
    for (const auto& input : json["inputs"].list()) {
      given.emplace(input["name"].get<std::string>(), input["arg"]);
    }
    for (const auto& argument : node.schema->arguments()) {
      const auto found = given.find(argument.name());
      if (found != given.end()) {
        node.inputs.push_back(Operand::of(found->second, names));
        given.erase(found);
      } else if (argument.default_value()) {
        node.inputs.push_back(Operand::fixed(*argument.default_value()));
      } else if (argument.type()->kind() == c10::TypeKind::OptionalType) {
        node.inputs.push_back(Operand::fixed({}));
      } else {
        throw DataError(
            fmt::format("{}: {}: {} without its argument {}", where_, node.where, node.target, argument.name()));
      }
    }
    if (!given.empty()) {
      throw DataError(fmt::format("{}: {}: {} has no argument {}", where_, node.where, printable(node.target),
                                  printable(given.begin()->first)));
    }
    auto call = rewritten(*handle);
    node.call = [call = call ? call : OperatorCall([handle = *handle](torch::jit::Stack& stack) {
                   handle.callBoxed(&stack);
                 })](torch::jit::Stack& stack, const ProgramRun&) { call(stack); };
  }
  for (const auto& output : json["outputs"].list()) {
    add_outputs(output, names, node.outputs);
  }
  nodes_.push_back(std::move(node));
}

void Program::find_last_uses() {
  std::vector<int> last(static_cast<std::size_t>(slots_), -1);
  for (std::size_t n = 0; n < nodes_.size(); ++n) {
    for (const auto& input : nodes_[n].inputs) {
      for (const auto slot : input.reads()) {
        last[static_cast<std::size_t>(slot)] = static_cast<int>(n);
      }
    }
    for (const auto slot : nodes_[n].outputs) {
      last[static_cast<std::size_t>(slot)] = static_cast<int>(n);
    }
  }
  for (const auto& output : outputs_) {
    for (const auto slot : output.reads()) {
      last[static_cast<std::size_t>(slot)] = -1;
    }
  }
  for (int slot = 0; slot < slots_; ++slot) {
    if (const auto at = last[static_cast<std::size_t>(slot)]; at >= 0) {
      nodes_[static_cast<std::size_t>(at)].done.push_back(slot);
    }
  }
}

std::vector<c10::IValue> Program::run(std::vector<c10::IValue> inputs, const ProgramRun& run) const {
  if (inputs.size() != inputs_.size()) {
    throw DataError(fmt::format("{}: a graph of {} inputs is given {}", where_, inputs_.size(), inputs.size()));
  }
  Slots slots(static_cast<std::size_t>(slots_));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    slots[static_cast<std::size_t>(inputs_[i])] = std::move(inputs[i]);
  }
  torch::jit::Stack stack;
  for (const auto& node : nodes_) {
    try {
      stack.clear();
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        stack.push_back(
            node.inputs[i].value(slots, run.setting, node.schema == nullptr ? nullptr : &node.schema->arguments()[i]));
      }
      if (run.runner != nullptr) {
        run.runner->run(node, stack, run);
      } else {
        node.call(stack, run);
      }
    } catch (const InvalidArgument& error) {  // a graph within names its own node
      const std::string text = error.what();
      throw InvalidArgument(text.starts_with(where_ + ": ") ? text
                                                            : fmt::format("{}: {}: {}", where_, node.where, text));
    } catch (const Error&) {
      throw;
    } catch (const Interrupted&) {
      throw;
    } catch (const c10::Error& error) {
      throw InvalidArgument(
          fmt::format("{}: {}: {}: {}", where_, node.where, node.target, first_line(error.what_without_backtrace())));
    } catch (const std::exception& error) {
      throw InvalidArgument(fmt::format("{}: {}: {}: {}", where_, node.where, node.target, first_line(error.what())));
    }
    flatten_returns(stack);
    if (stack.size() < node.outputs.size()) {
      throw DataError(fmt::format("{}: {}: {} makes {} values, of which the file names {}", where_, node.where,
                                  node.target, stack.size(), node.outputs.size()));
    }
    constexpr std::int64_t kLarge = 1 << 14;  // what takes long is larger
    if (!stack.empty() && stack.front().isTensor() && stack.front().toTensor().defined() &&
        stack.front().toTensor().numel() > kLarge) {
      interruptible(stack.front().toTensor());
    }
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      slots[static_cast<std::size_t>(node.outputs[i])] = std::move(stack[i]);
    }
    for (const auto slot : node.done) {
      slots[static_cast<std::size_t>(slot)] = {};
    }
  }
  std::vector<c10::IValue> out;
  for (const auto& output : outputs_) {
    out.push_back(output.value(slots, run.setting, nullptr));
  }
  return out;
}

}  // namespace whence::detail
