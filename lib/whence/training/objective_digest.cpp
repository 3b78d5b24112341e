#include "whence/training/objective_digest.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/core/described.h"
#include "whence/core/digest.h"
#include "whence/data/dataset_digest.h"
#include "whence/models/addition.h"
#include "whence/training/priming.h"

namespace whence {

std::string objective_digest(const Objective& objective) {
  Digest digest;
  for (const auto& part : {identity(objective.model()), identity(objective.loss()), identity(objective.tuning()),
                           fmt::format("decay {}", objective.weight_decay()), dataset_digest(objective.data())}) {
    digest.add(part);
  }
  const auto n = objective.data().size();
  Batch rows;  // all that weights are asked by
  rows.inputs = rows.rows = at::arange(n);
  digest.add(objective.batch_weights(rows));
  for (const auto* set : {&objective.trained(), &objective.parent_layout()}) {
    digest.add(std::to_string(set->size()));
    for (std::size_t i = 0; i < set->size(); ++i) {
      const auto& value = set->values()[i];
      digest.add(fmt::format("{} {} [{}]", set->names()[i], c10::toString(value.scalar_type()),
                             fmt::join(value.sizes(), ", ")));
    }
    for (const auto& [module, here] : set->additions() ? *set->additions() : Additions{}) {
      for (const auto& addition : here) {  // a stage before's too, which theta is computed with
        digest.add(fmt::format("{} {}", module, identity(*addition)));
      }
    }
  }
  if (const auto* inner = objective.inner()) {
    digest.add(identity(inner->priming()));
    digest.add(identity(inner->tuning()));
    for (const auto& value : inner->start().values()) {
      digest.add(value);
    }
    for (const auto& task : inner->tasks()) {
      digest.add(task.support);
      digest.add(task.query);
    }
  }
  return digest.text();
}

}  // namespace whence
