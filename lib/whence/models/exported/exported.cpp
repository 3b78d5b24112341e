// A model that torch.export.save wrote, as it is read. J. Ansel et al., "PyTorch 2", ASPLOS 2024, of the capture.
#include "whence/models/exported/detail/exported.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "whence/core/error.h"
#include "whence/core/printable.h"
#include "whence/core/progress.h"
#include "whence/models/exported/detail/operators.h"
#include "whence/models/exported/detail/self_check.h"

namespace whence {
namespace detail {
namespace fs = std::filesystem;
namespace {

/// Rows of the table that the tokens of a text are looked up in; 0: in none.
std::int64_t vocabulary_of(const Program& program, const ProgramSignature& signature, const ExportArchive& archive) {
  static const std::set<std::string> kSameNumbers = {"view",    "reshape", "_unsafe_view", "to",         "_to_copy",
                                                     "alias",   "clone",   "detach",       "contiguous", "unsqueeze",
                                                     "squeeze", "flatten", "expand",       "type_as"};
  std::set<int> tokens;
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
    if (signature.inputs[i].kind == ProgramInput::Kind::kUser && signature.inputs[i].name == "input_ids") {
      tokens.insert(static_cast<int>(i));
    }
  }
  const auto slot_at = [](const Node& node, int place) {
    return place < 0 ? -1 : node.inputs[static_cast<std::size_t>(place)].slot();
  };
  for (const auto& node : program.nodes()) {
    if (node.schema == nullptr || node.inputs.empty()) {
      continue;
    }
    if (kSameNumbers.count(node.operation()) > 0 && tokens.count(slot_at(node, 0)) > 0) {
      tokens.insert(node.outputs.begin(), node.outputs.end());
    } else if (node.operation() == "embedding" && tokens.count(slot_at(node, node.argument("indices"))) > 0) {
      const auto table = slot_at(node, node.argument("weight"));
      if (table >= 0 && table < std::ssize(signature.inputs)) {
        const auto found = archive.weights.find(signature.inputs[static_cast<std::size_t>(table)].name);
        if (found != archive.weights.end() && found->second.value.dim() == 2) {
          return found->second.value.size(0);
        }
      }
    }
  }
  return 0;
}

std::string module_of(const std::string& parameter) { return parameter.substr(0, parameter.rfind('.')); }

}  // namespace

Exported::Exported(ExportedOptions options) : options_(std::move(options)), file_(options_.file) {
  if (options_.file.empty()) {
    throw InvalidArgument("exported: option file is missing: the .pt2 file that torch.export.save wrote");
  }
  try {
    load(ExportArchive::read(file_));
  } catch (const Error&) {
    throw;
  } catch (const c10::Error& error) {
    throw DataError(fmt::format("{}: {}", file_.string(), printable(error.what_without_backtrace())));
  } catch (const std::bad_alloc&) {
    throw DataError(fmt::format("{}: it asks for more memory than there is", file_.string()));
  } catch (const Interrupted&) {
    throw;
  } catch (const std::exception& error) {
    throw DataError(fmt::format("{}: it is damaged: {}", file_.string(), printable(error.what())));
  }
}

std::string Exported::name_here(const std::string& name) const {
  return !options_.head.empty() && name.starts_with(options_.head + ".") ? head().qualified(name) : name;
}

/// Trained parameters in the program's order, those of one tensor once, under the first name.
ParameterSet Exported::parameters_of(const ExportArchive& archive) const {
  ParameterSet out;
  std::set<std::string> places;
  for (const auto& input : signature_.inputs) {
    if (input.kind == ProgramInput::Kind::kParameter) {
      const auto& stored = archive.weights.at(input.name);
      if (stored.trained && places.insert(stored.place).second) {
        out.add(name_here(input.name), stored.value);
      }
    }
  }
  return out;
}

/// What no node reads has no derivative and is not trained, as if it were frozen.
void Exported::leave_unused(ExportArchive& archive) {
  std::set<int> read;
  for (const auto& node : program_->nodes()) {
    for (const auto& input : node.inputs) {
      const auto slots = input.reads();
      read.insert(slots.begin(), slots.end());
    }
  }
  std::set<std::string> places;  // of weights that are read, by whatever name
  for (std::size_t i = 0; i < signature_.inputs.size(); ++i) {
    if (const auto& input = signature_.inputs[i];
        input.kind == ProgramInput::Kind::kParameter && read.contains(static_cast<int>(i))) {
      places.insert(archive.weights.at(input.name).place);
    }
  }
  std::vector<std::string> left;
  for (const auto& input : signature_.inputs) {
    if (input.kind != ProgramInput::Kind::kParameter) {
      continue;
    }
    if (auto& stored = archive.weights.at(input.name); stored.trained && !places.contains(stored.place)) {
      stored.trained = false;
      left.push_back(input.name);
    }
  }
  if (!left.empty()) {
    notes_.push_back(fmt::format("{}: forward does not use {}: {} as it is", archive.where, fmt::join(left, ", "),
                                 left.size() == 1 ? "it stays" : "each stays"));
  }
}

void Exported::load(ExportArchive archive) {
  notes_ = archive.notes;
  signature_ = ProgramSignature::read(archive);
  program_ = std::make_unique<const Program>(archive.program["graph_module"]["graph"], archive.where);
  check_pure(*program_, signature_, archive.where);
  chosen_ = signature_.chosen_output(options_.output, archive.where);
  arguments_ = signature_.arguments();
  leave_unused(archive);
  theta_ = parameters_of(archive);
  if (theta_.empty()) {
    throw DataError(
        fmt::format("{}: every parameter is frozen or there is none: for p in model.parameters(): "
                    "p.requires_grad_(True) before the export",
                    archive.where));
  }
  std::vector<std::string> names;  // as the file has them
  for (const auto& input : signature_.inputs) {
    if (input.kind == ProgramInput::Kind::kParameter && archive.weights.at(input.name).trained) {
      names.push_back(input.name);
    }
  }
  const auto in_head = [&](const auto& name) { return name.starts_with(options_.head + "."); };
  if (!options_.head.empty() && std::none_of(names.begin(), names.end(), in_head)) {
    std::vector<std::string> modules;
    for (const auto& name : names) {
      const auto module = module_of(name);
      if (name.find('.') != name.npos && std::find(modules.begin(), modules.end(), module) == modules.end()) {
        modules.push_back(module);
      }
    }
    throw InvalidArgument(
        fmt::format("exported: option head: {}: {}", archive.where, unknown_name("module", options_.head, modules)));
  }
  if (!options_.head.empty() && !in_head(head().qualified("")) &&
      std::any_of(names.begin(), names.end(), [&](const auto& name) { return head().holds(name); })) {
    throw InvalidArgument(
        fmt::format("exported: option head: {}: {} is to be the head, and the model has another module called {}, as "
                    "heads are called here: name that one, or rename it before the export",
                    archive.where, options_.head, head().name()));
  }
  std::map<std::string, std::string> name_of_place;  // of tied weights the first
  for (const auto& input : signature_.inputs) {
    std::string parameter;
    if (input.kind == ProgramInput::Kind::kParameter) {
      const auto& stored = archive.weights.at(input.name);
      if (stored.trained) {
        parameter = name_of_place.emplace(stored.place, name_here(input.name)).first->second;
      } else {
        buffers_[input.name] = stored.value;
      }
    } else if (input.kind == ProgramInput::Kind::kBuffer || input.kind == ProgramInput::Kind::kConstant) {
      const auto weight = archive.weights.find(input.name);
      buffers_[input.name] =
          weight != archive.weights.end() ? weight->second.value : archive.constants.at(input.name).value;
    }
    parameter_of_input_.push_back(parameter);
  }
  for (const auto& value : theta_.values()) {
    if (at::isFloatingType(value.scalar_type())) {
      dtype_ = value.scalar_type();
      break;
    }
  }
  layers_ = ProgramLayers::of(*program_, parameter_of_input_, theta_);
  std::set<int> trained, of_head;
  for (std::size_t i = 0; i < parameter_of_input_.size(); ++i) {
    if (const auto& name = parameter_of_input_[i]; !name.empty()) {
      trained.insert(static_cast<int>(i));
      if (head().holds(name)) {
        of_head.insert(static_cast<int>(i));
      }
    }
  }
  frozen_ = FrozenProgram::of(*program_, signature_, trained);
  frozen_body_ = of_head.empty() || of_head == trained ? nullptr : FrozenProgram::of(*program_, signature_, of_head);
  if (frozen_) {
    const auto more = ProgramLayers::of(frozen_->moving(), parameter_of_input_, theta_);
    layers_.layers.insert(more.layers.begin(), more.layers.end());
  }
  classes_ = stored<std::string>(archive, "classes");
  if (const auto width = signature_.width(chosen_); !classes_.empty() && width && *width > 1 &&
                                                    std::ssize(signature_.output_shapes.at(chosen_)) == 2 &&
                                                    std::ssize(classes_) != *width) {
    throw DataError(
        fmt::format("{}: it names {} classes and has {} outputs: classes = [...] of whence_export.save names each",
                    archive.where, classes_.size(), *width));
  }
  means_ = stored<double>(archive, "mean");
  deviations_ = stored<double>(archive, "std");
  vocabulary_ = vocabulary_of(*program_, signature_, archive);
  const auto check = self_check(
      archive, signature_, dtype_,
      {[&](const std::vector<at::Tensor>& arguments) { return run(theta_, arguments, setting_of(theta_), nullptr); },
       [&](const std::vector<at::Tensor>& arguments) {
         return run_one_by_one(theta_, arguments, setting_of(theta_), nullptr);
       },
       [&](const std::vector<at::Tensor>& arguments) {
         const auto free = theta_.with(leaves(theta_.values()));
         return gradient(run(free, arguments, setting_of(theta_), nullptr).square().sum(), free.values());
       }});
  no_layers_ = !check.why_no_layers.empty();
  why_no_layers_ = check.why_no_layers;
  notes_.insert(notes_.end(), check.notes.begin(), check.notes.end());
  if (no_layers_) {
    notes_.push_back(fmt::format(
        "{}: it does not run for one example at a time ({}): gradients of examples come from double backward, and "
        "what is made of layers (ekfac, logra, tunings that add to layers) is not to be had",
        archive.where, check.why_no_layers));
  }
  if (const auto share = copied_percent(); share > 0 && !no_layers_) {
    notes_.push_back(
        fmt::format("{}: {:.1f} % of the parameters' entries are in layers, {:.1f} % are taken by a copy "
                    "an example ({}{})",
                    archive.where, 100 - share, share,
                    fmt::join(layers_.others.begin(),
                              layers_.others.begin() + std::min<std::ptrdiff_t>(3, std::ssize(layers_.others)), ", "),
                    layers_.others.size() > 3 ? ", …" : ""));
  }
}

double Exported::copied_percent() const {
  double copied = 0;
  for (const auto& name : layers_.others) {
    copied += static_cast<double>(theta_.at(name).numel());
  }
  return 100 * copied / static_cast<double>(theta_.entries());
}

/// The last linear layer that has as many outputs as the program; null: none has.
const ProgramLayer* Exported::last_layer() const {
  const auto width = signature_.width(chosen_);
  const ProgramLayer* out = nullptr;
  for (const auto& node : program_->nodes()) {
    if (const auto found = layers_.layers.find(&node); found != layers_.layers.end() && width) {
      const auto& layer = found->second;
      const bool makes =
          layer.form == ProgramLayer::Form::kLinear && theta_.at(layer.weight).size(layer.transposed ? 1 : 0) == *width;
      out = makes ? &layer : out;
    }
  }
  return out;
}

ExportedFacts Exported::facts() const {
  using Form = ProgramLayer::Form;
  ExportedFacts out;
  for (const auto& input : signature_.inputs) {
    if (input.kind == ProgramInput::Kind::kUser) {
      out.inputs.push_back({input.name, shape_text(input.shape), c10::toString(input.dtype)});
    }
  }
  for (std::size_t i = 0; i < signature_.output_names.size(); ++i) {
    out.outputs.push_back({signature_.output_names[i], shape_text(signature_.output_shapes[i]), ""});
  }
  out.chosen = chosen_;
  out.dimensions = std::ssize(signature_.output_shapes.at(chosen_));
  out.width = signature_.width(chosen_).value_or(0);
  out.why_no_layers = why_no_layers_;
  out.copied = layers_.others;
  out.copied_share = copied_percent() / 100;
  std::map<Form, std::int64_t> counts;
  for (const auto& node : program_->nodes()) {
    const auto found = layers_.layers.find(&node);
    if (found == layers_.layers.end()) {
      continue;
    }
    const auto& layer = found->second;
    ++counts[layer.form];
  }
  if (const auto* last = last_layer()) {
    out.last_module = module_of(last->weight);
  }
  for (const auto& [form, word] :
       {std::pair(Form::kLinear, "linear"), std::pair(Form::kConvolution, "convolution"),
        std::pair(Form::kTransposed, "transposed convolution"), std::pair(Form::kRecurrent, "recurrent"),
        std::pair(Form::kEmbedding, "embedding"), std::pair(Form::kNorm, "norm")}) {
    if (counts.contains(form)) {
      out.layers.emplace_back(word, counts[form]);
    }
  }
  return out;
}

ParameterSet Exported::initial(at::IntArrayRef input_shape, std::int64_t outputs, Random& random) const {
  if (!input_shape.empty()) {
    signature_.check_shapes({{"", input_shape.vec()}}, "", file_.string());
  }
  auto theta = theta_.to(at::kDouble, at::kCPU);
  const auto width = signature_.width(chosen_);
  if (outputs <= 0 || !width || *width == outputs) {
    return theta;
  }
  const auto* last = last_layer();
  if (options_.head.empty()) {
    throw InvalidArgument(fmt::format(
        "{}: a model of {} outputs, and the examples have {}: {}name the module that makes them, head = \"{}\" "
        "in [model], and a new one is drawn",
        file_.string(), *width, outputs,
        outputs == 1 ? "targets that are classes are whole numbers (targets.long() in torch); else " : "",
        last == nullptr ? "fc" : module_of(last->weight)));
  }
  if (last == nullptr || !head().holds(last->weight) || (!last->bias.empty() && !head().holds(last->bias))) {
    throw InvalidArgument(
        fmt::format("{}: a model of {} outputs, and the examples have {}: no linear layer in {} that is trained makes "
                    "these outputs, "
                    "so that no other can be drawn",
                    file_.string(), *width, outputs, options_.head));
  }
  ParameterSet out;
  for (std::size_t i = 0; i < theta.size(); ++i) {
    const auto& name = theta.names()[i];
    auto value = theta.values()[i];
    if (name == last->weight) {
      auto sizes = value.sizes().vec();
      sizes[last->transposed ? 1 : 0] = outputs;
      const auto fan = static_cast<double>(outputs + value.numel() / *width);
      value = random.stream(name).normal(sizes) * std::sqrt(2 / fan);
    } else if (name == last->bias) {
      value = at::zeros({outputs}, at::kDouble);
    }
    out.add(name, value);
  }
  return out;
}

ParameterSet Exported::read_parameters(const fs::path& file) const {
  const auto archive = ExportArchive::read(file);
  ParameterSet out;
  for (const auto& input : signature_.inputs) {
    const auto found = archive.weights.find(input.name);
    if (found == archive.weights.end()) {
      continue;
    }
    const auto name = name_here(input.name);
    if (theta_.contains(name)) {
      out.add(name, found->second.value);
    } else if (const auto own = buffers_.find(input.name);
               own != buffers_.end() && !at::equal(own->second, found->second.value.to(own->second.scalar_type()))) {
      throw DataError(fmt::format(
          "{}: {} is another than in {}, whose program would be run with its own: a chain's stages share their "
          "buffers, so keep batch norms in eval mode while the later stage is trained",
          file.string(), input.name, file_.string()));
    }
  }
  return out;
}

}  // namespace detail

WHENCE_METHOD(Model, exported, detail::Exported, detail::ExportedOptions)

}  // namespace whence
