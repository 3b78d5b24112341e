#include "whence/evaluate/suspects.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/borrowed.h"
#include "whence/core/error.h"

namespace whence {
namespace {

/// The data with other class numbers, as batches give it out.
Dataset with_labels(const Dataset& data, at::Tensor labels) {
  Dataset::Contents contents;
  if (data.is_text()) {
    contents.texts = data.texts();
  } else {
    contents.inputs = data.batch(0, data.size()).inputs.cpu();
  }
  contents.targets = std::move(labels);
  contents.ids = data.ids();
  contents.classes = data.classes();
  contents.files = data.files();
  contents.origins = data.origins();
  contents.table = data.table();
  return Dataset(std::move(contents)).to(data.dtype(), data.device());
}

}  // namespace

MislabelledStage mislabel(const Stage& stage, double fraction, Random random) {
  const auto& objective = stage.objective;
  const auto& data = objective.data();
  const auto count = static_cast<std::int64_t>(data.classes().size());
  if (data.target_kind() != TargetKind::kClasses || data.targets().dim() != 1 || count < 2 || objective.inner()) {
    throw InvalidArgument(
        fmt::format("stage {}: labels are changed of examples with one of two or more classes each, "
                    "and this stage has none such",
                    stage.name));
  }
  const auto n = data.size();
  const auto wrong = std::max<std::int64_t>(1, std::llround(fraction * static_cast<double>(n)));
  const auto rows = random.permutation(n).narrow(0, 0, wrong);
  const auto labels = data.targets().cpu().to(at::kLong);
  const auto steps = random.uniform({wrong}, 1, static_cast<double>(count)).to(at::kLong).clamp_max(count - 1);
  const auto changed = labels.index_copy(0, rows, (labels.index_select(0, rows) + steps).remainder(count));
  auto out = MislabelledStage{stage, at::zeros({n}, at::kBool).index_fill(0, rows, true)};
  out.stage.objective = Objective(borrowed(objective.model()), borrowed(objective.loss()), borrowed(objective.tuning()),
                                  with_labels(data, changed), objective.weight_decay(), objective.trained(),
                                  objective.parent_layout(), objective.batch_size());
  return out;
}

double found_among_first(const at::Tensor& scores, const at::Tensor& wanted, double share) {
  const auto inspected = std::llround(share * static_cast<double>(scores.numel()));
  const auto order = scores.argsort(/*stable=*/true, 0, /*descending=*/true);
  const auto found = wanted.index_select(0, order.narrow(0, 0, inspected)).sum().item<double>();
  return found / wanted.sum().item<double>();
}

Recall recall_of(const at::Tensor& scores, const at::Tensor& sources, const std::vector<std::int64_t>& ks) {
  const auto total = sources.sum().item<double>();
  std::vector<double> ranks;
  const auto of_sources = scores.masked_select(sources), of_others = scores.masked_select(sources.logical_not());
  for (std::int64_t s = 0; s < of_sources.numel(); ++s) {
    const auto before = of_others.ge(of_sources[s]).sum() + of_sources.gt(of_sources[s]).sum() +
                        of_sources.narrow(0, 0, s).eq(of_sources[s]).sum();
    ranks.push_back(1 + before.item<double>());
  }
  Recall out{1 / *std::min_element(ranks.begin(), ranks.end()), {}};
  for (const auto k : ks) {
    const auto found = std::count_if(ranks.begin(), ranks.end(), [&](double r) { return r <= static_cast<double>(k); });
    out.recall.push_back(static_cast<double>(found) / total);
  }
  return out;
}

}  // namespace whence
