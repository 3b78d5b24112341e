#include "whence/models/exported/detail/signature.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "whence/core/error.h"
#include "whence/core/printable.h"
#include "whence/models/exported/detail/operators.h"

namespace whence::detail {

std::string shape_text(const OpenShape& shape) {
  std::vector<std::string> sizes;
  for (const auto& size : shape) {
    sizes.push_back(size ? std::to_string(*size) : "any");
  }
  return fmt::format("[{}]", fmt::join(sizes, ", "));
}

namespace {

/// The sizes of a tensor's description: those that are fixed, or as the export saw them.
OpenShape read_shape(const JsonView& meta, bool as_seen) {
  OpenShape out;
  constexpr std::int64_t kMost = std::int64_t{1} << 48;
  std::int64_t entries = 1;
  for (const auto& size : meta["sizes"].list()) {
    if (size.contains("as_int")) {
      out.emplace_back(size["as_int"].get<std::int64_t>());
    } else if (const auto symbol = size["as_expr"];
               as_seen && symbol.contains("hint") && symbol["hint"].contains("as_int")) {
      out.emplace_back(symbol["hint"]["as_int"].get<std::int64_t>());
    } else {
      out.emplace_back(std::nullopt);
    }
    if (out.back().value_or(1) < 0 || __builtin_mul_overflow(entries, out.back().value_or(1), &entries) ||
        entries > kMost) {
      meta.refuse("sizes >= 0 of a tensor that memory can hold");
    }
  }
  return out;
}

/// s77 of Symbol('s77', positive=True, integer=True); an expression as it is.
std::string symbol_of(const std::string& expression) {
  constexpr std::string_view kBegin = "Symbol('";
  const auto end = expression.find('\'', kBegin.size());
  return expression.starts_with(kBegin) && end != expression.npos
             ? expression.substr(kBegin.size(), end - kBegin.size())
             : expression;
}

/// The names of a tree's leaves: keys of dictionaries and of outputs with fields, joined by dots.
void add_leaves(const nlohmann::json& tree, const std::string& name, std::vector<std::string>& out, int depth = 0) {
  constexpr int kDeepest = 64;
  const auto children = tree.is_object() ? tree.find("children_spec") : tree.end();
  if (depth > kDeepest || !tree.is_object() || tree.value("type", nlohmann::json()).is_null() ||
      children == tree.end() || !children->is_array()) {
    out.push_back(name);
    return;
  }
  nlohmann::json keys;
  if (const auto context = tree.find("context"); context != tree.end() && context->is_string()) {
    try {
      keys = parse_bounded<nlohmann::json>(context->get<std::string>(), "context");
    } catch (const DataError&) {  // of a type of somebody's own: its parts have numbers
    }
  }
  for (std::size_t i = 0; i < children->size(); ++i) {
    const bool named = keys.is_array() && keys.size() == children->size() && keys[i].is_string();
    const auto part = named ? keys[i].get<std::string>() : std::to_string(i);
    add_leaves((*children)[i], name.empty() ? part : name + "." + part, out, depth + 1);
  }
}

std::vector<std::string> leaf_names(const JsonView& program) {
  std::vector<std::string> out;
  for (const auto& call : program["graph_module"]["module_call_graph"].list()) {
    if (call["fqn"] != "" || call["signature"].is_null()) {
      continue;
    }
    const auto text = call["signature"]["out_spec"];
    const auto tree = parse_bounded<nlohmann::json>(text.get<std::string>(), "out_spec");
    if (tree.is_array() && tree.size() == 2) {
      add_leaves(tree[1], "", out);
    }
  }
  return out;
}

/// Texts' tokens, one a row, and what goes with them: [B, L].
at::Tensor of_texts(const Batch& batch, const ProgramInput& input, const std::string& where) {
  const auto& text = *batch.text;
  const auto& name = input.name;
  auto places = text.tokens.places;
  if (input.shape.size() > 1 && input.shape[1] && *input.shape[1] > places.size(1)) {
    places = at::constant_pad_nd(places, {0, *input.shape[1] - places.size(1)}, -1);
  }
  const auto real = places.ge(0);
  const auto by_place = [&](const at::Tensor& x) {
    return x.flatten().index_select(0, places.clamp_min(0).flatten()).view(places.sizes()) * real.to(at::kLong);
  };
  if (name == "input_ids") {
    return by_place(batch.inputs.to(at::kLong));
  }
  if (name == "attention_mask") {
    return real;
  }
  if (name == "token_type_ids") {
    return text.types.defined() ? by_place(text.types) : at::zeros_like(places);
  }
  if (name == "position_ids") {
    return by_place(text.positions);
  }
  throw InvalidArgument(fmt::format(
      "{}: argument {} of forward, and texts give input_ids, attention_mask, token_type_ids and position_ids", where,
      name));
}

/// Whether examples of a shape have that of an argument. Throws InvalidArgument unless they do, or have as many numbers
/// in the same order: in a row, or but for sizes of 1.
bool has_shape(at::IntArrayRef shape, const ProgramInput& input, const std::string& from, const std::string& where) {
  std::vector<std::int64_t> wanted, found;  // without sizes of 1
  bool open = false, same = shape.size() + 1 == input.shape.size();
  for (std::size_t i = 1; i < input.shape.size(); ++i) {
    const auto& size = input.shape[i];
    open = open || !size;
    same = same && (!size || *size == shape[i - 1]);
    if (size != 1) {
      wanted.push_back(size.value_or(-1));
    }
  }
  std::copy_if(shape.begin(), shape.end(), std::back_inserter(found), [](std::int64_t size) { return size != 1; });
  const bool as_many = !open && c10::multiply_integers(wanted) == c10::multiply_integers(found);
  if (same || (as_many && (wanted == found || wanted.size() < 2 || found.size() < 2))) {
    return same;
  }
  const bool turned = std::is_permutation(wanted.begin(), wanted.end(), found.begin(), found.end());
  throw InvalidArgument(fmt::format("{}{}examples of shape [{}] for argument {} of {}, expected {}{}", from,
                                    from.empty() ? "" : ": ", fmt::join(shape, ", "), input.name, where,
                                    shape_text({input.shape.begin() + 1, input.shape.end()}),
                                    turned ? ": the same sizes in another order, which torch's permute() mends" : ""));
}

/// x [B, …] as an argument's shape has it.
at::Tensor shaped(const at::Tensor& x, const ProgramInput& input, const std::string& where) {
  if (has_shape(x.sizes().slice(1), input, "", where)) {
    return x;
  }
  std::vector<std::int64_t> sizes{x.size(0)};
  for (std::size_t i = 1; i < input.shape.size(); ++i) {
    sizes.push_back(*input.shape[i]);
  }
  return x.reshape(sizes);
}

/// Throws InvalidArgument, naming the example, where x [B, …] is no integers as an argument's type has them.
void check_whole(const at::Tensor& x, const ProgramInput& input, const Batch& batch, const std::string& where) {
  if (at::isFloatingType(input.dtype) || !x.is_floating_point() || x.numel() == 0) {
    return;
  }
  const auto type = x.scalar_type();
  const double exact = type == at::kBFloat16 ? 0x1p8
                       : type == at::kHalf   ? 0x1p11
                       : type == at::kFloat  ? 0x1p24
                                             : 0x1p53;
  const auto flat = x.reshape({x.size(0), -1});
  const auto other = flat.ne(flat.round()).logical_or(flat.abs().ge(exact));
  if (other.any().item<bool>()) {
    const auto row = other.any(1).to(at::kInt).argmax().item<std::int64_t>();
    const auto value = flat[row].masked_select(other[row])[0].item<double>();
    throw InvalidArgument(fmt::format("{}: {} has {} for argument {}, expected whole numbers ({}){}", where,
                                      example_text(batch, row), value, input.name, c10::toString(input.dtype),
                                      std::abs(value) < exact ? ""
                                                              : fmt::format(" below {:g}, up to which {} holds all of "
                                                                            "them: --dtype float64 holds more",
                                                                            exact, c10::toString(type))));
  }
}

/// The sizes of each argument behind the batch, of arguments laid end to end: what is open in them is one size, that of
/// a text say, and follows from how much is there.
std::function<std::vector<std::int64_t>(const ProgramInput&)> argument_sizes(const ProgramSignature& signature,
                                                                             const at::Tensor& inputs,
                                                                             const std::string& where) {
  std::set<std::string> open;
  std::int64_t fixed = 0, of_open = 0;
  std::string shapes;
  for (const auto& input : signature.inputs) {
    if (input.kind != ProgramInput::Kind::kUser) {
      continue;
    }
    std::int64_t entries = 1, unknown = 0;
    for (std::size_t i = 1; i < input.shape.size(); ++i) {
      entries *= input.shape[i].value_or(1);
      if (!input.shape[i]) {
        open.insert(input.symbols[i]);
        ++unknown;
      }
    }
    (unknown > 0 ? of_open : fixed) += entries;
    shapes += fmt::format("{}{} {}", shapes.empty() ? "" : ", ", input.name, shape_text(input.shape));
    if (unknown > 1) {
      open.insert("");  // a square is not solved for
    }
  }
  const auto all = inputs.dim() == 2 ? inputs.size(1) : -1;
  const auto size = of_open > 0 ? (all - fixed) / of_open : 0;
  if (open.size() > 1 || size < 0 || fixed + of_open * size != all) {
    throw InvalidArgument(
        fmt::format("{}: inputs [{}] for the arguments {}", where, fmt::join(inputs.sizes(), ", "), shapes));
  }
  return [size](const ProgramInput& input) {
    std::vector<std::int64_t> sizes;
    for (std::size_t i = 1; i < input.shape.size(); ++i) {
      sizes.push_back(input.shape[i].value_or(size));
    }
    return sizes;
  };
}

}  // namespace

ProgramSignature ProgramSignature::read(const ExportArchive& archive) {
  ProgramSignature out;
  const auto graph_module = archive.program["graph_module"];
  const auto graph = graph_module["graph"], signature = graph_module["signature"];
  const auto specs = signature["input_specs"].list();
  if (specs.size() != graph["inputs"].size()) {
    signature.refuse(fmt::format("{} input_specs, as the graph has inputs", graph["inputs"].size()));
  }
  constexpr std::size_t kMost = 1000;  // each is looked for among all values of the graph
  const auto taken = static_cast<std::size_t>(
      std::count_if(specs.begin(), specs.end(), [](const JsonView& spec) { return spec.contains("user_input"); }));
  if (std::max(taken, signature["output_specs"].size()) > kMost) {
    throw DataError(fmt::format("{}: forward takes {} values and gives {}, expected at most {}", archive.where, taken,
                                signature["output_specs"].size(), kMost));
  }
  const auto held = [&](const std::map<std::string, StoredTensor>& tensors, const std::string& name,
                        const JsonView& spec) {
    if (tensors.count(name) == 0) {
      spec.refuse("a tensor that the file holds");
    }
  };
  for (const auto& spec : specs) {
    ProgramInput input;
    if (spec.contains("parameter")) {
      input = {ProgramInput::Kind::kParameter, spec["parameter"]["parameter_name"].get<std::string>()};
      held(archive.weights, input.name, spec);
    } else if (spec.contains("buffer")) {
      input = {ProgramInput::Kind::kBuffer, spec["buffer"]["buffer_name"].get<std::string>()};
      held(spec["buffer"].value("persistent", true) ? archive.weights : archive.constants, input.name, spec);
    } else if (spec.contains("tensor_constant")) {
      input = {ProgramInput::Kind::kConstant, spec["tensor_constant"]["tensor_constant_name"].get<std::string>()};
      held(archive.constants, input.name, spec);
    } else if (spec.contains("user_input")) {
      const auto argument = spec["user_input"]["arg"];
      if (argument.contains("as_tensor")) {
        input = {ProgramInput::Kind::kUser, argument["as_tensor"]["name"].get<std::string>()};
        const auto meta = graph["tensor_values"][input.name];
        input.shape = read_shape(meta, /*as_seen=*/false);
        input.sample = read_shape(meta, /*as_seen=*/true);
        for (const auto& size : meta["sizes"].list()) {
          input.symbols.push_back(size.contains("as_expr") ? symbol_of(size["as_expr"].value("expr_str", "")) : "");
        }
        input.dtype = dtype_of_export(meta["dtype"].get<std::int64_t>(), archive.where);
      } else if (argument.contains("as_sym_int") || argument.contains("as_sym_float")) {
        throw DataError(fmt::format("{}: an argument of forward that is a number: fix it where the model is exported",
                                    archive.where));
      }
    } else if (!spec.contains("constant_input") && !spec.contains("token")) {
      spec.refuse("a parameter, a buffer, a constant or an argument");
    }
    out.inputs.push_back(std::move(input));
  }
  if (archive.program.contains("range_constraints")) {
    for (const auto& [symbol, range] : archive.program["range_constraints"].items()) {
      if (range.contains("max_val") && !range["max_val"].is_null()) {
        out.most[symbol] = range["max_val"].get<std::int64_t>();
      }
    }
  }
  const auto names = leaf_names(archive.program);
  const auto outputs = graph["outputs"].list();
  const auto output_specs = signature["output_specs"].list();
  for (std::size_t i = 0; i < output_specs.size(); ++i) {
    for (const char* kind : {"buffer_mutation", "parameter_mutation", "user_input_mutation"}) {
      if (output_specs[i].contains(kind)) {
        throw DataError(fmt::format("{}: forward changes {}: call model.eval() before torch.export.export",
                                    archive.where,
                                    kind == std::string_view("buffer_mutation")
                                        ? "the buffer " + printable(output_specs[i][kind].value("buffer_name", ""))
                                        : "what it is given"));
      }
    }
    out.output_names.push_back(i < names.size() && names.size() == output_specs.size() ? names[i] : std::to_string(i));
    OpenShape shape;
    if (i < outputs.size() && outputs[i].contains("as_tensor")) {
      shape = read_shape(graph["tensor_values"][outputs[i]["as_tensor"]["name"].get<std::string>()], false);
    }
    out.output_shapes.push_back(std::move(shape));
  }
  if (out.arguments().empty()) {
    throw DataError(fmt::format("{}: forward takes no tensor, expected examples", archive.where));
  }
  for (const auto& input : out.inputs) {
    if (input.kind == ProgramInput::Kind::kUser && (input.shape.empty() || input.shape.front().value_or(1) != 1)) {
      throw DataError(
          fmt::format("{}: argument {} is {}: the batch is fixed; export it with dynamic_shapes={{\"{}\": {{0: "
                      "torch.export.Dim(\"B\", min=2)}}}} and an example batch of 2 or more",
                      archive.where, input.name, shape_text(input.shape), input.name));
    }
  }
  return out;
}

std::vector<std::string> ProgramSignature::arguments() const {
  std::vector<std::string> out;
  for (const auto& input : inputs) {
    if (input.kind == ProgramInput::Kind::kUser) {
      out.push_back(input.name);
    }
  }
  return out;
}

bool ProgramSignature::takes_tokens() const {
  return std::any_of(inputs.begin(), inputs.end(), [](const ProgramInput& input) {
    return input.kind == ProgramInput::Kind::kUser && input.name == "input_ids";
  });
}

std::int64_t ProgramSignature::context() const {
  constexpr std::int64_t kAny = 1 << 20;
  for (const auto& input : inputs) {
    if (input.kind == ProgramInput::Kind::kUser && input.name == "input_ids" && input.shape.size() > 1) {
      const auto found = most.find(input.symbols[1]);
      return input.shape[1] ? *input.shape[1] : found == most.end() ? kAny : std::min(kAny, found->second);
    }
  }
  return 0;
}

bool ProgramSignature::one_at_a_time() const {
  return std::any_of(inputs.begin(), inputs.end(), [](const ProgramInput& input) {
    return input.kind == ProgramInput::Kind::kUser && input.shape.front().has_value();
  });
}

std::size_t ProgramSignature::chosen_output(const std::string& wanted, const std::string& where) const {
  const auto& key = wanted.empty() && output_names.size() > 1 ? std::string("logits") : wanted;
  if (key.empty() && output_names.size() == 1) {
    return 0;
  }
  const auto found = std::find(output_names.begin(), output_names.end(), key);
  if (found == output_names.end()) {
    throw InvalidArgument(
        fmt::format("{}: forward gives {}: choose one, output = \"KEY\"", where,
                    output_names.empty() ? "nothing" : printable(fmt::format("{}", fmt::join(output_names, ", ")))));
  }
  return static_cast<std::size_t>(found - output_names.begin());
}

std::optional<std::int64_t> ProgramSignature::width(std::size_t output) const {
  const auto& shape = output_shapes.at(output);
  return shape.size() < 2 ? std::optional<std::int64_t>() : shape.back();
}

void ProgramSignature::check_shapes(const std::vector<InputShape>& shapes, const std::string& from,
                                    const std::string& where) const {
  if (shapes.size() != arguments().size()) {
    return;  // which reading says, by name
  }
  std::size_t next = 0;
  for (const auto& input : inputs) {
    if (input.kind == ProgramInput::Kind::kUser) {
      has_shape(shapes[next++].sizes, input, from, where);
    }
  }
}

std::vector<at::Tensor> ProgramSignature::arguments_of(const Batch& batch, const Setting& setting,
                                                       const std::string& where) const {
  std::vector<at::Tensor> out;
  const bool alone = arguments().size() == 1;
  std::int64_t next = 0;
  std::function<std::vector<std::int64_t>(const ProgramInput&)> sizes_of;
  if (!alone && !batch.text) {
    sizes_of = argument_sizes(*this, batch.inputs, where);
  }
  for (const auto& input : inputs) {
    if (input.kind != ProgramInput::Kind::kUser) {
      continue;
    }
    at::Tensor x;
    if (batch.text) {
      x = of_texts(batch, input, where);
    } else if (alone) {
      x = batch.inputs;
    } else {
      auto sizes = sizes_of(input);
      const auto entries = c10::multiply_integers(sizes);
      sizes.insert(sizes.begin(), batch.inputs.size(0));
      x = batch.inputs.narrow(1, next, entries).reshape(sizes);
      next += entries;
    }
    x = shaped(x, input, where);
    check_whole(x, input, batch, where);
    out.push_back(x.to(setting.device, setting.type(input.dtype)));
  }
  return out;
}

void check_pure(const Program& program, const ProgramSignature& signature, const std::string& where) {
  for (const auto& [slot, node] : program.written_inputs()) {
    const auto i = static_cast<std::size_t>(slot);
    if (i >= signature.inputs.size() || signature.inputs[i].kind != ProgramInput::Kind::kUser) {
      throw DataError(fmt::format("{}: {} writes into {}: call model.eval() before torch.export.export", where,
                                  node->where,
                                  i < signature.inputs.size() ? printable(signature.inputs[i].name) : "a tensor"));
    }
  }
  for (const auto& node : program.nodes()) {
    if (const auto what = impurity(node); !what.empty()) {
      throw DataError(fmt::format(
          "{}: {} {}: {}", where, node.where, what,
          what.starts_with("draws")
              ? "a model must be a function of its input; draw them beside it and give them as an argument"
          : what.starts_with("has")
              ? "write dropout_p = p if self.training else 0, and call model.eval() before torch.export.export"
              : "call model.eval() before torch.export.export"));
    }
    for (const auto& graph : node.graphs) {
      check_pure(*graph, {}, where);
    }
  }
}

}  // namespace whence::detail
