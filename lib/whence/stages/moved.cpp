#include "whence/stages/moved.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "whence/core/rounding.h"
#include "whence/core/tensors.h"

namespace whence {
namespace {

/// What of merge() is a function of theta, which are leaves. A parameter that is trained as it is stands there itself.
ParameterSet moved_by(const TensorList& theta, const TensorList& parent, const Objective& objective) {
  const auto merged = objective.merge(theta, detach(parent));
  ParameterSet out;
  for (std::size_t i = 0; i < merged.size(); ++i) {
    if (merged.values()[i].requires_grad()) {
      out.add(merged.names()[i], merged.values()[i]);
    }
  }
  return out;
}

}  // namespace

std::vector<std::string> moved_parameters(const Stage& stage) {
  return moved_by(leaves(stage.theta), stage.parent, stage.objective).names();
}

Directions push_forward(const Stage& stage, const at::Tensor& v) {
  const auto theta = leaves(widened(stage.theta));
  const auto moved = moved_by(theta, widened(stage.parent), stage.objective);
  const auto blocks = directions_of(v, stage.objective.trained());
  Directions out;
  TensorList values, pushed;  // of the parameters that are functions of theta
  for (std::size_t i = 0; i < moved.size(); ++i) {
    const auto& value = moved.values()[i];
    const auto itself = std::find_if(theta.begin(), theta.end(), [&](const auto& t) { return t.is_same(value); });
    if (itself != theta.end()) {
      out.add(moved.names()[i], blocks.values()[static_cast<std::size_t>(itself - theta.begin())]);
      continue;
    }
    pushed.push_back(at::empty(direction_shape(v.size(0), value), v.options()));
    values.push_back(value);
    out.add(moved.names()[i], pushed.back());
  }
  if (values.empty()) {
    return out;
  }
  const auto cotangent = leaves(zeros_like(detach(values)));
  const auto pulled =
      gradient(values, theta, cotangent, true);  // linear in the cotangent: its derivative is the push-forward
  for (std::int64_t k = 0; k < v.size(0); ++k) {
    const auto found = gradient(pulled, cotangent, unflatten(v[k], theta), false, true);
    for (std::size_t i = 0; i < pushed.size(); ++i) {
      pushed[i][k].copy_(found[i]);
    }
  }
  return out;
}

std::pair<at::Tensor, at::Tensor> pull_back_merge(const Stage& stage, const Directions& cotangents, bool parents,
                                                  bool last) {
  const auto theta = leaves(widened(stage.theta));
  const auto parent = parents ? leaves(widened(stage.parent)) : widened(detach(stage.parent));
  const auto merged = last ? stage.objective.merge(theta, parent) : stage.objective.hand_on(theta, parent);
  TensorList values, blocks;
  for (std::size_t i = 0; i < cotangents.size(); ++i) {
    const auto& value = merged.at(cotangents.names()[i]);
    if (value.requires_grad()) {
      values.push_back(value);
      blocks.push_back(cotangents.values()[i]);
    }
  }
  auto both = theta;
  if (parents) {
    both.insert(both.end(), parent.begin(), parent.end());
  }
  const auto split = count_entries(theta), count = cotangents.values().front().size(0);
  auto out = at::zeros({count, count_entries(both)}, cotangents.values().front().options());
  for (std::int64_t k = 0; k < count && !values.empty(); ++k) {
    TensorList rows;
    for (const auto& block : blocks) {
      rows.push_back(block[k]);
    }
    out[k] = flatten(gradient(values, both, rows, false, true));
  }
  return {out.narrow(1, 0, split).contiguous(), out.narrow(1, split, out.size(1) - split).contiguous()};
}

std::vector<SharedEntries> entries_from_parent(const Stage& stage) {
  std::vector<SharedEntries> out;
  const auto& trained = stage.objective.trained();
  const auto& parent = stage.objective.parent_layout();
  std::int64_t here = 0;
  for (std::size_t i = 0; i < trained.size(); ++i) {
    std::int64_t there = 0;
    for (std::size_t j = 0; j < parent.size(); ++j) {
      if (parent.names()[j] == trained.names()[i]) {
        out.push_back({here, there, trained.values()[i].numel()});
      }
      there += parent.values()[j].numel();
    }
    here += trained.values()[i].numel();
  }
  return out;
}

}  // namespace whence
