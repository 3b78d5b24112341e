// What an exported model makes of a batch: the whole of it, or an example at a time where layers are recorded.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>

#include "whence/core/error.h"
#include "whence/models/exported/detail/exported.h"
#include "whence/models/ops.h"

namespace whence::detail {
namespace {

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
}  // namespace

Setting Exported::setting_of(const ParameterSet& theta) const {
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

const std::vector<c10::IValue>& Exported::fixed_inputs(const Setting& setting) const {
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

const FrozenProgram* Exported::frozen_in(const ParameterSet& theta, const NodeRunner* runner) const {
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

at::Tensor Exported::run(const ParameterSet& theta, const std::vector<at::Tensor>& arguments, const Setting& setting,
                         NodeRunner* runner, const OneByOne* examples) const {
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
  const ProgramRun how{setting, runner};
  const auto outputs = frozen != nullptr ? frozen->run(std::move(inputs), arguments, how, examples, kept_)
                                         : program_->run(std::move(inputs), how);
  if (chosen_ >= outputs.size() || !outputs[chosen_].isTensor()) {
    throw DataError(fmt::format("{}: output {} is no tensor", file_.string(), chosen_));
  }
  return outputs[chosen_].toTensor();
}

at::Tensor Exported::run_one_by_one(const ParameterSet& theta, const std::vector<at::Tensor>& arguments,
                                    const Setting& setting, Tape* tape) const {
  const OneByOne examples(arguments.front().size(0));
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
      values.push_back(copied ? record_copies(name, theta.values()[i], examples, *tape) : theta.values()[i]);
    }
    given = theta.with(std::move(values)).with_additions(theta.additions());
  }
  LayerRunner runner(layers_, theta, &examples, tape);
  const auto out = run(given, seen, setting, &runner, &examples);
  return examples.of_all(out).squeeze(1);
}

at::Tensor Exported::output_of(const ParameterSet& theta, const std::vector<at::Tensor>& arguments,
                               const Setting& setting, Tape* tape) const {
  if (signature_.one_at_a_time() || (tape != nullptr && !no_layers_)) {
    return run_one_by_one(theta, arguments, setting, tape);
  }
  LayerRunner runner(layers_, theta, nullptr, nullptr);
  return run(theta, arguments, setting, theta.additions() ? &runner : nullptr);
}

/// The first example that fails alone, with its arguments that are one whole number: ": example 17 (token 99)". Empty:
/// none does, or each of several.
std::string Exported::failing_example(const ParameterSet& theta, const std::vector<at::Tensor>& arguments,
                                      const Setting& setting, const Batch& batch) const {
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
                                      out.dim() == 0 ? kOfEachExample : ""));
  }
  out = as_rows(out, batch);
  return out.scalar_type() == at::kBFloat16 || out.scalar_type() == at::kHalf ? out.to(at::kFloat) : out;
}

}  // namespace whence::detail
