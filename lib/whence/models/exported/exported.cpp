// A model that torch.export.save wrote. J. Ansel et al., "PyTorch 2", ASPLOS 2024, of the capture.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <set>

#include "whence/core/described.h"
#include "whence/core/error.h"
#include "whence/core/printable.h"
#include "whence/core/progress.h"
#include "whence/models/exported/detail/archive.h"
#include "whence/models/exported/detail/frozen_program.h"
#include "whence/models/exported/detail/layers.h"
#include "whence/models/exported/detail/operators.h"
#include "whence/models/exported/detail/self_check.h"
#include "whence/models/exported/detail/signature.h"
#include "whence/models/exported/exported_model.h"
#include "whence/models/model.h"
#include "whence/models/ops.h"

namespace whence {
namespace {
namespace fs = std::filesystem;
using detail::ProgramInput;

struct ExportedOptions {
  std::string file;
  std::string head;
  std::string output;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("file", self.file, AnyText{}, "a program that torch.export.save wrote (.pt2)");
    field("head", self.head, AnyText{},
          "the module that belongs to one stage, by its name: fc; empty: all is handed on");
    field("output", self.output, AnyText{},
          "which of several outputs counts, by its key; empty: the only one, or logits");
  }
};

/// [rows, C] of what the program gave for a batch, [B, …] or, where tokens are predicted, [B, T, C].
at::Tensor as_rows(const at::Tensor& output, const Batch& batch) {
  if (batch.predicts_tokens()) {
    const auto& text = *batch.text;
    const auto example = text.examples.flatten().index_select(0, text.predicted);
    const auto position = text.positions.flatten().index_select(0, text.predicted);
    return output.index({example, position});
  }
  return output.dim() == 1 ? output.unsqueeze(1) : output.flatten(1);
}

/// Rows of the table that the tokens of a text are looked up in; 0: in none.
std::int64_t vocabulary_of(const detail::Program& program, const detail::ProgramSignature& signature,
                           const detail::ExportArchive& archive) {
  static const std::set<std::string> kSameNumbers = {"view",    "reshape", "_unsafe_view", "to",         "_to_copy",
                                                     "alias",   "clone",   "detach",       "contiguous", "unsqueeze",
                                                     "squeeze", "flatten", "expand",       "type_as"};
  std::set<int> tokens;
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
    if (signature.inputs[i].kind == ProgramInput::Kind::kUser && signature.inputs[i].name == "input_ids") {
      tokens.insert(static_cast<int>(i));
    }
  }
  const auto slot_at = [](const detail::Node& node, int place) {
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

class Exported : public Model, public ExportedModel, public Described {
 public:
  explicit Exported(ExportedOptions options) : options_(std::move(options)), file_(options_.file) {
    if (options_.file.empty()) {
      throw InvalidArgument("exported: option file is missing: the .pt2 file that torch.export.save wrote");
    }
    try {
      load(detail::ExportArchive::read(file_));
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

  std::string description() const override { return options_text(options_); }
  const fs::path& file() const override { return file_; }
  std::vector<fs::path> files() const override { return {file_}; }
  bool is_trained() const override { return true; }
  const std::vector<std::string>& notes() const override { return notes_; }
  const std::vector<std::string>& arguments() const override { return arguments_; }
  const std::vector<std::string>& class_names() const override { return classes_; }
  const std::vector<double>& channel_means() const override { return means_; }
  const std::vector<double>& channel_deviations() const override { return deviations_; }
  std::int64_t vocabulary() const override { return vocabulary_; }
  std::int64_t context() const override { return signature_.takes_tokens() ? signature_.context() : 0; }
  bool takes_texts() const override { return signature_.takes_tokens(); }
  void check_shapes(const std::vector<InputShape>& shapes, const std::string& from) const override {
    signature_.check_shapes(shapes, from, file_.string());
  }
  bool records_layers() const override { return !no_layers_; }

  ParameterSet initial(at::IntArrayRef input_shape, std::int64_t outputs, Random& random) const override;
  at::Tensor output(const ParameterSet& theta, const Batch& batch, Tape* tape) const override;
  ParameterSet read_parameters(const fs::path& file) const override;
  bool has_head() const override { return !options_.head.empty(); }
  ExportedFacts facts() const override;

 private:
  void load(detail::ExportArchive archive);
  void leave_unused(detail::ExportArchive& archive);
  ParameterSet parameters_of(const detail::ExportArchive& archive) const;
  std::string name_here(const std::string& name) const;
  at::Tensor output_of(const ParameterSet& theta, const std::vector<at::Tensor>& arguments,
                       const detail::Setting& setting, Tape* tape) const;
  std::string failing_example(const ParameterSet& theta, const std::vector<at::Tensor>& arguments,
                              const detail::Setting& setting, const Batch& batch) const;
  const std::vector<c10::IValue>& fixed_inputs(const detail::Setting& setting) const;
  at::Tensor run(const ParameterSet& theta, const std::vector<at::Tensor>& arguments, const detail::Setting& setting,
                 detail::NodeRunner* runner, const detail::OneByOne* examples = nullptr) const;
  at::Tensor run_one_by_one(const ParameterSet& theta, const std::vector<at::Tensor>& arguments,
                            const detail::Setting& setting, Tape* tape) const;
  detail::Setting setting_of(const ParameterSet& theta) const;
  double copied_percent() const;
  const detail::ProgramLayer* last_layer() const;

  const detail::FrozenProgram* frozen_in(const ParameterSet& theta, const detail::NodeRunner* runner) const;

  ExportedOptions options_;
  fs::path file_;
  detail::ProgramSignature signature_;
  std::unique_ptr<const detail::Program> program_;
  std::unique_ptr<const detail::FrozenProgram>
      frozen_;  ///< By what the file says is trained; null: nothing of weight is frozen.
  std::unique_ptr<const detail::FrozenProgram>
      frozen_body_;  ///< Where the head alone is trained; null as well where there is none.
  mutable detail::KeptValues kept_;
  std::vector<std::string> parameter_of_input_;
  detail::ProgramLayers layers_;
  ParameterSet theta_;  ///< As the file has it.
  std::map<std::string, at::Tensor> buffers_;
  at::ScalarType dtype_ = at::kFloat;
  std::size_t chosen_ = 0;  ///< Of the outputs.
  bool no_layers_ = false;
  std::string why_no_layers_;
  std::int64_t vocabulary_ = 0;
  std::vector<std::string> notes_, arguments_, classes_;
  std::vector<double> means_, deviations_;
  mutable std::mutex mutex_;
  mutable std::map<std::pair<at::ScalarType, std::string>, std::vector<c10::IValue>> fixed_;
};

std::string Exported::name_here(const std::string& name) const {
  return !options_.head.empty() && name.starts_with(options_.head + ".") ? head().qualified(name) : name;
}

/// Trained parameters in the program's order, those of one tensor once, under the first name.
ParameterSet Exported::parameters_of(const detail::ExportArchive& archive) const {
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
void Exported::leave_unused(detail::ExportArchive& archive) {
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

void Exported::load(detail::ExportArchive archive) {
  notes_ = archive.notes;
  signature_ = detail::ProgramSignature::read(archive);
  program_ = std::make_unique<const detail::Program>(archive.program["graph_module"]["graph"], archive.where);
  detail::check_pure(*program_, signature_, archive.where);
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
      const auto module = name.substr(0, name.rfind('.'));
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
  layers_ = detail::ProgramLayers::of(*program_, parameter_of_input_, theta_);
  std::set<int> trained, of_head;
  for (std::size_t i = 0; i < parameter_of_input_.size(); ++i) {
    if (const auto& name = parameter_of_input_[i]; !name.empty()) {
      trained.insert(static_cast<int>(i));
      if (head().holds(name)) {
        of_head.insert(static_cast<int>(i));
      }
    }
  }
  frozen_ = detail::FrozenProgram::of(*program_, signature_, trained);
  frozen_body_ =
      of_head.empty() || of_head == trained ? nullptr : detail::FrozenProgram::of(*program_, signature_, of_head);
  if (frozen_) {
    const auto more = detail::ProgramLayers::of(frozen_->moving(), parameter_of_input_, theta_);
    layers_.layers.insert(more.layers.begin(), more.layers.end());
  }
  classes_ = detail::stored<std::string>(archive, "classes");
  if (const auto width = signature_.width(chosen_); !classes_.empty() && width && *width > 1 &&
                                                    std::ssize(signature_.output_shapes.at(chosen_)) == 2 &&
                                                    std::ssize(classes_) != *width) {
    throw DataError(
        fmt::format("{}: it names {} classes and has {} outputs: classes = [...] of whence_export.save names each",
                    archive.where, classes_.size(), *width));
  }
  means_ = detail::stored<double>(archive, "mean");
  deviations_ = detail::stored<double>(archive, "std");
  vocabulary_ = vocabulary_of(*program_, signature_, archive);
  const auto check = detail::self_check(
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
const detail::ProgramLayer* Exported::last_layer() const {
  const auto width = signature_.width(chosen_);
  const detail::ProgramLayer* out = nullptr;
  for (const auto& node : program_->nodes()) {
    if (const auto found = layers_.layers.find(&node); found != layers_.layers.end() && width) {
      const auto& layer = found->second;
      const bool makes = layer.form == detail::ProgramLayer::Form::kLinear &&
                         theta_.at(layer.weight).size(layer.transposed ? 1 : 0) == *width;
      out = makes ? &layer : out;
    }
  }
  return out;
}

ExportedFacts Exported::facts() const {
  using Form = detail::ProgramLayer::Form;
  ExportedFacts out;
  for (const auto& input : signature_.inputs) {
    if (input.kind == ProgramInput::Kind::kUser) {
      out.inputs.push_back({input.name, detail::shape_text(input.shape), c10::toString(input.dtype)});
    }
  }
  for (std::size_t i = 0; i < signature_.output_names.size(); ++i) {
    out.outputs.push_back({signature_.output_names[i], detail::shape_text(signature_.output_shapes[i]), ""});
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
    out.last_module = last->weight.substr(0, last->weight.rfind('.'));
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
  if (options_.head.empty()) {
    throw InvalidArgument(fmt::format(
        "{}: a model of {} outputs, and the examples have {}: {}name the module that makes them, head = \"{}\" "
        "in [model], and a new one is drawn",
        file_.string(), *width, outputs,
        outputs == 1 ? "targets that are classes are whole numbers (targets.long() in torch); else " : "",
        last_layer() == nullptr ? "fc" : facts().last_module));
  }
  const auto* last = last_layer();
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

detail::Setting Exported::setting_of(const ParameterSet& theta) const {
  const auto& like = theta.values().front();
  const auto wanted = like.scalar_type();
  if (at::promote_types(wanted, dtype_) != wanted) {
    throw InvalidArgument(fmt::format(
        "{}: exported in {}, whose casts and constants do not fit {}: export the model in that, or use "
        "--dtype {}",
        file_.string(), c10::toString(dtype_), c10::toString(wanted), dtype_ == at::kDouble ? "float64" : "float32"));
  }
  return {dtype_, wanted, like.device()};
}

const std::vector<c10::IValue>& Exported::fixed_inputs(const detail::Setting& setting) const {
  const std::lock_guard lock(mutex_);
  auto& out = fixed_[{setting.wanted, setting.device.str()}];
  if (out.empty()) {
    for (const auto& input : signature_.inputs) {
      const auto found = buffers_.find(input.name);
      out.emplace_back(found == buffers_.end() ? c10::IValue() : c10::IValue(setting.tensor(found->second)));
    }
  }
  return out;
}

const detail::FrozenProgram* Exported::frozen_in(const ParameterSet& theta, const detail::NodeRunner* runner) const {
  const bool head_alone = frozen_body_ && runner == nullptr && [&] {
    for (std::size_t i = 0; i < theta.size(); ++i) {
      if (theta.values()[i].requires_grad() && !head().holds(theta.names()[i])) {
        return false;
      }
    }
    return true;
  }();
  return head_alone ? frozen_body_.get() : frozen_.get();
}

at::Tensor Exported::run(const ParameterSet& theta, const std::vector<at::Tensor>& arguments,
                         const detail::Setting& setting, detail::NodeRunner* runner,
                         const detail::OneByOne* examples) const {
  auto inputs = fixed_inputs(setting);
  std::size_t next = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!parameter_of_input_[i].empty()) {
      inputs[i] = theta.at(parameter_of_input_[i]);
    } else if (signature_.inputs[i].kind == ProgramInput::Kind::kUser) {
      const auto& argument = arguments.at(next++);
      const bool written = program_->written_inputs().count(static_cast<int>(i)) > 0;
      inputs[i] = written ? argument.clone() : argument;
    }
  }
  const auto* frozen = frozen_in(theta, runner);
  const detail::ProgramRun how{setting, runner};
  const auto outputs = frozen != nullptr ? frozen->run(std::move(inputs), arguments, how, examples, kept_)
                                         : program_->run(std::move(inputs), how);
  if (chosen_ >= outputs.size() || !outputs[chosen_].isTensor()) {
    throw DataError(fmt::format("{}: output {} is no tensor", file_.string(), chosen_));
  }
  return outputs[chosen_].toTensor();
}

at::Tensor Exported::run_one_by_one(const ParameterSet& theta, const std::vector<at::Tensor>& arguments,
                                    const detail::Setting& setting, Tape* tape) const {
  const detail::OneByOne examples(arguments.front().size(0));
  std::vector<at::Tensor> seen;
  for (const auto& argument : arguments) {
    seen.push_back(examples.seen(argument.unsqueeze(1)));
  }
  auto given = theta;
  if (tape != nullptr) {
    TensorList values;
    for (std::size_t i = 0; i < theta.size(); ++i) {
      const auto& name = theta.names()[i];
      const bool copied = std::binary_search(layers_.others.begin(), layers_.others.end(), name);
      values.push_back(copied ? detail::record_copies(name, theta.values()[i], examples, *tape) : theta.values()[i]);
    }
    given = theta.with(std::move(values)).with_additions(theta.additions());
  }
  detail::LayerRunner runner(layers_, theta, &examples, tape);
  const auto out = run(given, seen, setting, &runner, &examples);
  return examples.of_all(out).squeeze(1);
}

at::Tensor Exported::output_of(const ParameterSet& theta, const std::vector<at::Tensor>& arguments,
                               const detail::Setting& setting, Tape* tape) const {
  if (signature_.one_at_a_time() || (tape != nullptr && !no_layers_)) {
    return run_one_by_one(theta, arguments, setting, tape);
  }
  detail::LayerRunner runner(layers_, theta, nullptr, nullptr);
  return run(theta, arguments, setting, theta.additions() ? &runner : nullptr);
}

/// The first example that fails alone, with its arguments that are one whole number: ": example 17 (token 99)". Empty:
/// none does, or each of several.
std::string Exported::failing_example(const ParameterSet& theta, const std::vector<at::Tensor>& arguments,
                                      const detail::Setting& setting, const Batch& batch) const {
  const at::NoGradGuard no_gradient;
  std::string failing;
  bool others = batch.size() == 1;  // do not
  for (std::int64_t row = 0; row < batch.size() && (failing.empty() || !others); ++row) {
    std::vector<at::Tensor> alone;
    std::vector<std::string> numbers;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      const auto& x = alone.emplace_back(arguments[i].narrow(0, row, 1));
      if (!x.is_floating_point() && x.numel() == 1) {
        numbers.push_back(fmt::format("{} {}", arguments_[i], x.item<std::int64_t>()));
      }
    }
    try {
      output_of(theta, alone, setting, nullptr);
      others = true;
    } catch (const InvalidArgument&) {
      if (failing.empty()) {
        failing = fmt::format(": {}{}", example_text(batch, row),
                              numbers.empty() ? "" : fmt::format(" ({})", fmt::join(numbers, ", ")));
      }
    }
  }
  return others ? failing : "";
}

at::Tensor Exported::output(const ParameterSet& theta, const Batch& batch, Tape* tape) const {
  const auto setting = setting_of(theta);
  const auto arguments = signature_.arguments_of(batch, setting, file_.string());
  if (theta.additions() && no_layers_) {
    throw InvalidArgument(
        fmt::format("{}: a tuning that adds to layers needs a program that runs one example at a "
                    "time: use full or head",
                    file_.string()));
  }
  at::Tensor out;
  try {
    out = output_of(theta, arguments, setting, tape);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(error.what() + failing_example(theta, arguments, setting, batch));
  }
  if (out.dim() == 0 || out.size(0) != batch.size()) {
    throw InvalidArgument(fmt::format("{}: an output [{}] for {} examples, expected [examples, …]{}", file_.string(),
                                      fmt::join(out.sizes(), ", "), batch.size(),
                                      out.dim() == 0 ? detail::kOfEachExample : ""));
  }
  out = as_rows(out, batch);
  return out.scalar_type() == at::kBFloat16 || out.scalar_type() == at::kHalf ? out.to(at::kFloat) : out;
}

ParameterSet Exported::read_parameters(const fs::path& file) const {
  const auto archive = detail::ExportArchive::read(file);
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

}  // namespace

WHENCE_METHOD(Model, exported, Exported, ExportedOptions)

}  // namespace whence
