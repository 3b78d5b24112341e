#include "whence/models/exported/detail/operand.h"

#include <ATen/ATen.h>
#include <ATen/core/jit_type.h>
#include <fmt/format.h>

#include <limits>

#include "whence/core/error.h"
#include "whence/core/printable.h"
#include "whence/models/exported/detail/archive.h"

namespace whence::detail {
namespace {

/// [number of the export's, c10's]
at::MemoryFormat memory_format(const JsonView& json) {
  switch (json.get<std::int64_t>()) {
    case 1:
      return at::MemoryFormat::Contiguous;
    case 2:
      return at::MemoryFormat::ChannelsLast;
    case 3:
      return at::MemoryFormat::ChannelsLast3d;
    case 4:
      return at::MemoryFormat::Preserve;
    default:
      json.refuse("a memory format from 1 to 4");
  }
}

const c10::Type* element_of(const c10::Type& type) {
  if (type.kind() == c10::TypeKind::ListType) {
    return type.castRaw<c10::ListType>()->getElementType().get();
  }
  return nullptr;
}

/// The type behind an Optional.
const c10::Type& plain(const c10::Type& type) {
  return type.kind() == c10::TypeKind::OptionalType ? *type.castRaw<c10::OptionalType>()->getElementType() : type;
}

c10::IValue as_tensor(const c10::IValue& value) {
  auto out = at::scalar_tensor(value.toScalar(), value.isDouble() ? at::kDouble
                                                 : value.isBool() ? at::kBool
                                                 : value.isInt()  ? at::kLong
                                                                  : at::kComplexDouble);
  out.unsafeGetTensorImpl()->set_wrapped_number(true);
  return out;
}

bool is_number(const c10::IValue& value) {
  return value.isInt() || value.isDouble() || value.isBool() || value.isComplexDouble();
}

c10::IValue list_of(std::vector<c10::IValue> values, const c10::Type* element) {
  using c10::TypeKind;
  const auto kind = element == nullptr ? TypeKind::AnyType : plain(*element).kind();
  const bool optional = element != nullptr && element->kind() == TypeKind::OptionalType;
  const bool tensors = kind == TypeKind::TensorType || (!values.empty() && values.front().isTensor());
  if (tensors && optional) {
    c10::List<std::optional<at::Tensor>> out;
    for (const auto& value : values) {
      out.push_back(value.isNone() ? std::optional<at::Tensor>() : std::optional<at::Tensor>(value.toTensor()));
    }
    return out;
  }
  if (tensors) {
    c10::List<at::Tensor> out;
    for (const auto& value : values) {
      out.push_back(is_number(value) ? as_tensor(value).toTensor() : value.toTensor());
    }
    return out;
  }
  if (kind == TypeKind::FloatType) {
    c10::List<double> out;
    for (const auto& value : values) {
      out.push_back(value.toScalar().toDouble());
    }
    return out;
  }
  if (kind == TypeKind::BoolType) {
    c10::List<bool> out;
    for (const auto& value : values) {
      out.push_back(value.toScalar().toBool());
    }
    return out;
  }
  if (kind == TypeKind::NumberType) {
    c10::List<at::Scalar> out;
    for (const auto& value : values) {
      out.push_back(value.toScalar());
    }
    return out;
  }
  c10::List<std::int64_t> out;
  for (const auto& value : values) {
    out.push_back(value.toScalar().toLong());
  }
  return out;
}

}  // namespace

double read_double(const JsonView& json) {
  if (json.is_string()) {
    const auto word = json.get<std::string>();
    if (word == "Infinity" || word == "-Infinity") {
      return word[0] == '-' ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
    }
    if (word == "NaN") {
      return std::numeric_limits<double>::quiet_NaN();
    }
  }
  return json.get<double>();
}

at::ScalarType Setting::type(at::ScalarType type) const {
  if (!at::isFloatingType(type)) {
    return at::isComplexType(type) && exported != wanted ? at::toComplexType(wanted) : type;
  }
  return type == exported ? wanted : exported == wanted ? type : at::promote_types(type, wanted);
}

at::Tensor Setting::tensor(const at::Tensor& x) const { return x.to(device, type(x.scalar_type())); }

int SlotNames::at(const JsonView& name) const {
  const auto found = slots_.find(name.get<std::string>());
  if (found == slots_.end()) {
    name.refuse("the name of a value that was made before");
  }
  return found->second;
}

int SlotNames::add(const std::string& name) {
  slots_[name] = count_;
  return count_++;
}

Operand Operand::fixed(c10::IValue value) {
  Operand out;
  out.fixed_ = std::move(value);
  return out;
}

Operand Operand::of_slot(int slot) {
  Operand out;
  out.kind_ = Kind::kSlot;
  out.slot_ = slot;
  return out;
}

Operand Operand::of(const JsonView& json, const SlotNames& slots) {
  const auto items = json.items();
  if (items.size() != 1) {
    json.refuse("an argument of one kind");
  }
  const auto& [kind, value] = items.front();
  const auto from_slot = [&](const JsonView& name) { return of_slot(slots.at(name)); };
  const auto list = [&](auto&& one) {
    Operand out;
    out.kind_ = Kind::kList;
    for (const auto& part : value.list()) {
      out.parts_.push_back(one(part));
    }
    return out;
  };
  const auto any = [&](const JsonView& part) { return of(part, slots); };
  const auto whole = [](const JsonView& part) { return fixed(part.get<std::int64_t>()); };
  const auto real = [](const JsonView& part) { return fixed(read_double(part)); };
  const auto flag = [](const JsonView& part) { return fixed(part.get<bool>()); };
  if (kind == "as_none") {
    return fixed({});
  }
  if (kind == "as_tensor") {
    return from_slot(value["name"]);
  }
  if (kind == "as_name") {
    return from_slot(value);
  }
  if (kind == "as_tensors") {
    return list([&](const JsonView& part) { return from_slot(part["name"]); });
  }
  if (kind == "as_optional_tensors" || kind == "as_sym_ints" || kind == "as_sym_floats" || kind == "as_sym_bools") {
    return list(any);
  }
  if (kind == "as_optional_tensor" || kind == "as_sym_int" || kind == "as_sym_float" || kind == "as_sym_bool") {
    return any(value);
  }
  if (kind == "as_int") {
    return whole(value);
  }
  if (kind == "as_float") {
    return real(value);
  }
  if (kind == "as_bool") {
    return flag(value);
  }
  if (kind == "as_ints") {
    return list(whole);
  }
  if (kind == "as_floats") {
    return list(real);
  }
  if (kind == "as_bools") {
    return list(flag);
  }
  if (kind == "as_string") {
    return fixed(value.get<std::string>());
  }
  if (kind == "as_complex") {
    return fixed(c10::complex<double>(read_double(value["real"]), read_double(value["imag"])));
  }
  if (kind == "as_scalar_type") {
    auto out = fixed(static_cast<std::int64_t>(dtype_of_export(value.get<std::int64_t>(), "as_scalar_type")));
    out.kind_ = Kind::kType;
    return out;
  }
  if (kind == "as_device") {
    Operand out;
    out.kind_ = Kind::kDevice;
    return out;
  }
  if (kind == "as_layout") {
    constexpr std::int64_t kStrided = 7;
    if (value.get<std::int64_t>() != kStrided) {
      value.refuse("7, the strided layout");
    }
    return fixed(static_cast<std::int64_t>(at::kStrided));
  }
  if (kind == "as_memory_format") {
    return fixed(static_cast<std::int64_t>(memory_format(value)));
  }
  json.refuse("an argument that is a tensor, a number, a text, a type or a list of them");
}

c10::IValue Operand::value(const Slots& slots, const Setting& setting, const c10::Argument* wanted) const {
  const auto fit = [&](const c10::IValue& value) { return wanted == nullptr ? value : coerced(value, *wanted); };
  switch (kind_) {
    case Kind::kFixed:
      return fit(fixed_);
    case Kind::kSlot:
      return fit(slots[static_cast<std::size_t>(slot_)]);
    case Kind::kType:
      return static_cast<std::int64_t>(setting.type(static_cast<at::ScalarType>(fixed_.toInt())));
    case Kind::kDevice:
      return setting.device;
    case Kind::kList:
      break;
  }
  std::vector<c10::IValue> values;
  for (const auto& part : parts_) {
    values.push_back(part.value(slots, setting, nullptr));
  }
  return list_of(std::move(values), wanted == nullptr ? nullptr : element_of(plain(*wanted->type())));
}

std::vector<int> Operand::reads() const {
  std::vector<int> out;
  if (slot_ >= 0) {
    out.push_back(slot_);
  }
  for (const auto& part : parts_) {
    const auto inner = part.reads();
    out.insert(out.end(), inner.begin(), inner.end());
  }
  return out;
}

c10::IValue coerced(const c10::IValue& value, const c10::Argument& wanted) {
  using c10::TypeKind;
  const auto& type = plain(*wanted.type());
  if (value.isNone()) {
    return value;
  }
  if (type.kind() == TypeKind::TensorType && is_number(value)) {
    return as_tensor(value);
  }
  if (type.kind() == TypeKind::FloatType && (value.isInt() || value.isBool())) {
    return value.toScalar().toDouble();
  }
  if ((type.kind() == TypeKind::IntType || type.kind() == TypeKind::SymIntType) && value.isBool()) {
    return static_cast<std::int64_t>(value.toBool());
  }
  if (type.kind() == TypeKind::NumberType && value.isTensor()) {
    return value.toTensor().item();
  }
  if (const auto* element = element_of(type); element != nullptr && is_number(value)) {
    return list_of(std::vector<c10::IValue>(static_cast<std::size_t>(std::max(1, wanted.N().value_or(1))), value),
                   element);
  }
  return value;
}

}  // namespace whence::detail
