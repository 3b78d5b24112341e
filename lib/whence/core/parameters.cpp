#include "whence/core/parameters.h"

#include <ATen/ATen.h>

#include "whence/core/error.h"

namespace whence {

ParameterSet::ParameterSet() : index_(std::make_shared<Index>()) {}

ParameterSet::ParameterSet(std::initializer_list<std::pair<std::string, at::Tensor>> values) : ParameterSet() {
  for (const auto& [name, value] : values) {
    add(name, value);
  }
}

void ParameterSet::add(std::string name, at::Tensor value) {
  // an index that other sets share is copied before it changes; a set that is put together has its own
  auto index = index_.use_count() > 1 ? std::make_shared<Index>(*index_) : std::const_pointer_cast<Index>(index_);
  if (!index->position.emplace(name, values_.size()).second) {
    throw InvalidArgument("parameter \"" + name + "\" is named twice");
  }
  index->names.push_back(std::move(name));
  index_ = std::move(index);
  values_.push_back(std::move(value));
}

bool ParameterSet::contains(std::string_view name) const { return index_->position.count(std::string(name)) != 0; }

const at::Tensor& ParameterSet::at(std::string_view name) const {
  const auto found = index_->position.find(std::string(name));
  if (found == index_->position.end()) {
    throw InvalidArgument(unknown_name("parameter", name, names()));
  }
  return values_[found->second];
}

ParameterSet ParameterSet::with(TensorList values) const {
  if (values.size() != size()) {
    throw InvalidArgument("parameter set of " + std::to_string(size()) + " tensors, got " +
                          std::to_string(values.size()));
  }
  ParameterSet out = *this;
  out.values_ = std::move(values);
  return out;
}

template <class Wanted>
ParameterSet ParameterSet::filtered(const Wanted& wanted) const {
  ParameterSet out;
  for (std::size_t i = 0; i < size(); ++i) {
    if (wanted(names()[i])) {
      out.add(names()[i], values_[i]);
    }
  }
  return out;
}

ParameterSet ParameterSet::select(std::string_view prefix) const {
  return filtered([&](const std::string& name) { return name.starts_with(prefix); });
}

ParameterSet ParameterSet::without(std::string_view prefix) const {
  return filtered([&](const std::string& name) { return !name.starts_with(prefix); });
}

ParameterSet ParameterSet::without(const ParameterSet& others) const {
  return filtered([&](const std::string& name) { return !others.contains(name); });
}

ParameterSet ParameterSet::join(const ParameterSet& other) const {
  ParameterSet out = *this;
  for (std::size_t i = 0; i < other.size(); ++i) {
    out.add(other.names()[i], other.values_[i]);
  }
  if (additions_ && other.additions_) {
    auto both = *additions_;
    for (const auto& [module, more] : *other.additions_) {
      auto& here = both[module];
      here.insert(here.end(), more.begin(), more.end());
    }
    out.additions_ = std::make_shared<const Additions>(std::move(both));
  } else if (other.additions_) {
    out.additions_ = other.additions_;
  }
  return out;
}

ParameterSet ParameterSet::with_additions(std::shared_ptr<const Additions> additions) const {
  ParameterSet out = *this;
  out.additions_ = std::move(additions);
  return out;
}

ParameterSet ParameterSet::to(at::ScalarType dtype, at::Device device) const {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  return each([&](const at::Tensor& t) { return t.detach().to(options, /*non_blocking=*/false, /*copy=*/true); });
}

std::vector<std::int64_t> direction_shape(std::int64_t count, const at::Tensor& parameter) {
  auto shape = parameter.sizes().vec();
  shape.insert(shape.begin(), count);
  return shape;
}

Directions directions_of(const at::Tensor& block, const ParameterSet& layout) {
  std::int64_t offset = 0;
  return layout.each([&](const at::Tensor& value) {
    const auto part = block.narrow(1, offset, value.numel());
    offset += value.numel();
    return part.reshape(direction_shape(block.size(0), value));
  });
}

at::Tensor direction_norms(const Directions& v) {
  at::Tensor squares;
  for (const auto& value : v.values()) {
    const auto rows = value.reshape({value.size(0), -1});
    const auto part = row_dots(rows, rows);
    squares = squares.defined() ? squares.add_(part) : part;
  }
  return squares.sqrt_();
}

}  // namespace whence
