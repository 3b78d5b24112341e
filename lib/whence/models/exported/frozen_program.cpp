#include "whence/models/exported/detail/frozen_program.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/models/ops.h"

namespace whence::detail {

std::unique_ptr<const FrozenProgram> FrozenProgram::of(const Program& program, const ProgramSignature& signature,
                                                       const std::set<int>& moving) {
  std::unique_ptr<FrozenProgram> out(new FrozenProgram(program, program.parts(moving)));
  std::set<int> reads;
  for (const auto& node : out->parts_.fixed.nodes()) {
    for (const auto& input : node.inputs) {
      const auto slots = input.reads();
      reads.insert(slots.begin(), slots.end());
    }
  }
  bool has_weights = false;
  std::size_t arguments = 0;
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
    const auto kind = signature.inputs[i].kind;
    const bool user = kind == ProgramInput::Kind::kUser;
    if (reads.contains(static_cast<int>(i))) {
      has_weights = has_weights || kind == ProgramInput::Kind::kParameter;
      (user ? out->arguments_ : out->weights_).push_back(user ? arguments : i);
    }
    arguments += user ? 1 : 0;
  }
  return has_weights ? std::move(out) : nullptr;
}

std::vector<c10::IValue> FrozenProgram::run(std::vector<c10::IValue> inputs, const std::vector<at::Tensor>& arguments,
                                            const ProgramRun& how, const OneByOne* examples, KeptValues& kept) const {
  TensorList of, weights;
  for (const auto i : arguments_) {
    of.push_back(examples == nullptr ? arguments.at(i) : examples->of_all(arguments.at(i)));
  }
  for (const auto i : weights_) {
    if (inputs[i].isTensor()) {
      weights.push_back(inputs[i].toTensor());
    }
  }
  if (std::any_of(of.begin(), of.end(), [](const at::Tensor& x) { return x.requires_grad(); })) {
    return program_.run(std::move(inputs), how);
  }
  const auto kind = fmt::format("{} {} {} {}", c10::toString(how.setting.wanted), how.setting.device.str(),
                                examples != nullptr, fmt::ptr(this));
  // behind each value whether examples differ in it
  const auto values = kept.get(kind, of, weights, [&] {
    const DerivativeOrder none(1);  // nothing in it is differentiated: the same values, whoever asks first
    std::vector<c10::IValue> out;
    for (auto& value : parts_.fixed.run(inputs, how)) {
      const bool differs = examples != nullptr && value.isTensor() && examples->differs(value.toTensor());
      out.push_back(differs ? c10::IValue(examples->of_all(value.toTensor())) : value);
      out.emplace_back(differs);
    }
    return out;
  });
  for (std::size_t i = 0; i < values.size(); i += 2) {
    inputs.push_back(values[i + 1].toBool() ? c10::IValue(examples->seen(values[i].toTensor())) : values[i]);
  }
  return parts_.moving.run(std::move(inputs), how);
}

}  // namespace whence::detail
