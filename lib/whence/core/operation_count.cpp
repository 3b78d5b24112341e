#include "whence/core/operation_count.h"

#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string_view>

namespace whence {
namespace {

std::mutex one_at_a_time, adding;
OperationCount* total = nullptr;  // of the call that counts

/// An operator at work.
struct Call : at::ObserverContext {
  Call* caller = nullptr;
  double multiplications = 0, bytes = 0;
  OperationCount called;              // what those that it called did
  double an_output = 0;               // multiplications for each value of the output
  const void* first_input = nullptr;  // which a view shares
};
thread_local Call* at_work = nullptr;

bool is_tensor(const c10::IValue& value) { return value.isTensor() && value.toTensor().defined(); }

double numel(const c10::IValue& value) { return is_tensor(value) ? static_cast<double>(value.toTensor().numel()) : 0; }

double size(const c10::IValue& value, std::int64_t dimension) {
  return is_tensor(value) && value.toTensor().dim() >= std::max<std::int64_t>(1, -dimension)
             ? static_cast<double>(value.toTensor().size(dimension))
             : 1;
}

/// What lies behind a tensor, to tell whether another shares it; null where nothing does, as behind a wrapped one.
const void* storage_of(const c10::IValue& value) {
  return is_tensor(value) && value.toTensor().has_storage() ? value.toTensor().storage().unsafeGetStorageImpl()
                                                            : nullptr;
}

/// Multiplications that the inputs tell of an operator; those by its output in `call`.
double multiplications(std::string_view name, c10::ArrayRef<c10::IValue> in, Call& call) {
  const auto is = [&](std::string_view other) { return name == other; };
  const auto has = [&](std::string_view part) { return name.find(part) != name.npos; };
  const bool backward = has("backward");
  if ((is("aten::mm") || is("aten::bmm") || is("aten::mv") || is("aten::dot")) && in.size() > 1) {
    return numel(in[0]) * (is("aten::mm") || is("aten::bmm") ? size(in[1], -1) : 1);
  }
  if ((is("aten::addmm") || is("aten::baddbmm") || is("aten::addmv")) && in.size() > 2) {
    return numel(in[1]) * (is("aten::addmv") ? 1 : size(in[2], -1));
  }
  if (has("scaled_dot_product") && in.size() > 3) {
    const auto& query = in[backward ? 1 : 0];
    const auto& key = in[backward ? 2 : 1];
    return (backward ? 5 : 2) * numel(query) * size(key, -2);
  }
  if (has("conv") && backward && in.size() > 2) {
    return 2 * numel(in[0]) * numel(in[2]) / size(in[2], 0);
  }
  if (has("conv") && in.size() > 1) {
    call.an_output = numel(in[1]) / size(in[1], 0);
  }
  return 0;
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
  auto call = std::make_unique<Call>();
  call->caller = at_work;
  const auto inputs = function.inputs();
  call->multiplications = multiplications(function.name(), inputs, *call);
  for (const auto& input : inputs) {
    if (is_tensor(input)) {
      call->bytes = std::max(call->bytes, numel(input) * static_cast<double>(input.toTensor().element_size()));
    }
  }
  call->first_input = inputs.empty() ? nullptr : storage_of(inputs[0]);
  at_work = call.get();
  return call;
}

void end(const at::RecordFunction& function, at::ObserverContext* context) {
  auto& call = *static_cast<Call*>(context);
  at_work = call.caller;
  const auto& outputs = function.outputs();
  if (!outputs.empty()) {
    call.multiplications += call.an_output * numel(outputs[0]);
    const bool in_place = std::string_view(function.name()).ends_with('_');
    if (call.first_input != nullptr && storage_of(outputs[0]) == call.first_input && !in_place) {
      call.bytes = 0;  // a view
    }
  }
  // an operator may do its work itself or leave it to others, whose sum is then as much
  const auto multiplications = std::max(call.multiplications, call.called.multiplications);
  const OperationCount done{multiplications,
                            multiplications > 0 ? call.called.bytes : std::max(call.bytes, call.called.bytes),
                            std::max(1.0, call.called.calls)};
  const std::lock_guard lock(adding);
  if (auto* sum = at_work != nullptr ? &at_work->called : total; sum != nullptr) {
    sum->multiplications += done.multiplications;
    sum->bytes += done.bytes;
    sum->calls += done.calls;
  }
}

}  // namespace

double OperationCount::nominal_seconds() const {
  constexpr double kMultiplicationsASecond = 6e10, kBytesASecond = 6e9, kSecondsACall = 2.5e-6;
  return multiplications / kMultiplicationsASecond + bytes / kBytesASecond + calls * kSecondsACall;
}

bool counts_operations() {
  const std::lock_guard lock(adding);
  return total != nullptr;
}

OperationCount count_operations(const std::function<void()>& work) {
  const std::lock_guard one(one_at_a_time);
  OperationCount out;
  {
    const std::lock_guard lock(adding);
    total = &out;
  }
  const auto handle = at::addThreadLocalCallback(
      at::RecordFunctionCallback(begin, end).needsInputs(true).needsOutputs(true).scopes({at::RecordScope::FUNCTION}));
  struct Stop {
    at::CallbackHandle handle;
    ~Stop() {
      at::removeCallback(handle);
      const std::lock_guard lock(adding);
      total = nullptr;
    }
  } const stop{handle};
  work();
  return out;
}

}  // namespace whence
