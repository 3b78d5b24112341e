#pragma once
// Stages whose kernels are tried: every tuning on small models of each kind, away from any special point, and their
// outputs' gradients by autograd, an example and output at a time, neither padded nor packed.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <memory>
#include <string>
#include <vector>

#include "support/near.h"
#include "tuning/cases.h"
#include "whence/kernels/kernel_blocks.h"
#include "whence/kernels/parameter_filter.h"

namespace whence::test {

/// Four texts of 3, 4, 1 and 2 tokens that share three rows of a batch; one of two words is asked for at a place of
/// each.
inline Dataset word_texts(std::int64_t vocabulary = 5) {
  Dataset::Contents contents;
  auto& texts = contents.texts;
  texts.tokens = at::tensor({3, 0, 3, 1, 1, 4, 2, 2, 0, 4}, at::kInt);
  texts.begins = at::tensor({0, 3, 7, 8}, at::kLong);
  texts.lengths = at::tensor({3, 4, 1, 2}, at::kLong);
  texts.asked = at::tensor({2, 3, 0, 1}, at::kLong);
  texts.words = at::tensor({4, 1}, at::kLong);
  texts.vocabulary = vocabulary;
  contents.targets = at::tensor({0, 1, 1, 0}, at::kLong);
  contents.classes = {"no", "yes"};
  contents.ids = at::arange(4, at::kLong);
  return Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
}

/// A model with its data, by a case of the tunings' tests; texts are asked for words.
class KernelCase {
 public:
  explicit KernelCase(const TuningCase& on) : on_(on), bench_(on) {
    if (on.texts()) {
      auto config = on.model;  // with room before its texts
      for (const std::string room : {"n_positions", "max_position_embeddings"}) {
        if (const auto at = config.find(room); at != config.npos) {
          config.replace(at, room.size() + 4, room + "\": 9");
        }
      }
      folder_.put("config.json", config);
    }
    model_ = create<Model>(on.texts() ? "transformer:directory=" + folder_.folder().string() : on.model);
    loss_ = create<Loss>(on.texts() ? "cross-entropy" : on.loss);
    data_ = on.texts() ? word_texts() : bench_.data();
  }

  std::vector<std::string> tunings() const {
    auto out = every_tuning_spec(on_);
    if (on_.texts()) {
      out.insert(out.end(), {"prefix:length=2", "prefix:length=2,mlp=3",
                             "prefix-simplex:vertices=2,length=1,heads=false", "prompt:length=1"});
    }
    return out;
  }

  Stage fresh(const std::string& tuning) const {
    Chain chain{begin_stage({.name = "before", .model = model_, .loss = loss_, .data = data_}, {}, Random(1))};
    chain[0].theta = TuningBench::moved(chain[0].theta, 0.3);
    return begin_stage(
        {.name = "tuned", .model = model_, .loss = loss_, .tuning = create<Tuning>(tuning), .data = data_}, chain,
        Random(2));
  }
  Stage moved(const std::string& tuning) const {
    auto out = fresh(tuning);
    out.theta = TuningBench::moved(out.theta, 0.3);
    return out;
  }

 private:
  TuningCase on_;
  TuningBench bench_;
  Scratch folder_;
  std::shared_ptr<const Model> model_;
  std::shared_ptr<const Loss> loss_;
  Dataset data_;
};

inline KernelPoint point_of(const Stage& stage, const std::string& filter = "all") {
  return {stage.objective, stage.theta, stage.parent,
          filtered_parameters(stage.objective, stage.theta, stage.parent, filter)};
}

/// The gradients of every output in one of the point's parameters: [N, C, entries], for each name.
inline TensorList output_gradients(const KernelPoint& point, const Dataset& data) {
  const auto& names = point.objective.trained().names();
  auto theta = leaves(point.theta);
  TensorList wanted;
  for (const auto& name : point.names) {
    wanted.push_back(theta[static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin())]);
  }
  std::vector<TensorList> rows(wanted.size());
  std::int64_t outputs = 0;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    const auto one = data.batch(i, i + 1);
    const auto output = point.outputs(point.objective.output(theta, point.parent, one), one);
    outputs = output.size(1);
    for (std::int64_t c = 0; c < outputs; ++c) {
      const auto found = gradient(output[0][c], wanted, false, true);
      for (std::size_t p = 0; p < found.size(); ++p) {
        rows[p].push_back(found[p].detach().flatten());
      }
    }
  }
  TensorList out;
  for (const auto& of_parameter : rows) {
    out.push_back(at::stack(of_parameter).view({data.size(), outputs, -1}));
  }
  return out;
}

/// The kernel `name` of gradients [N, C, P] and [M, C, P] by its definition: [N, C, M, C].
inline at::Tensor defined_kernel(const std::string& name, const at::Tensor& rows, const at::Tensor& columns) {
  const auto a = name == "signgd" ? rows.sign() : rows, b = name == "entk" ? columns : columns.sign();
  return at::tensordot(a, b, {2}, {2});
}

inline const std::vector<std::string> kTangentKernels = {"entk", "signgd", "a-signgd"};

/// The names whose gradients are 0 nowhere but where they are exactly: the sign of what rounding leaves of 0 (of the
/// bias of an attention's keys) is no sign, and differs from one computation to another.
inline std::vector<std::string> names_with_signs(const KernelPoint& point, const TensorList& gradients) {
  std::vector<std::string> out;
  for (std::size_t p = 0; p < point.names.size(); ++p) {
    const auto size = gradients[p].abs();
    if (!size.gt(0).logical_and(size.lt(1e-13)).any().item<bool>()) {
      out.push_back(point.names[p]);
    }
  }
  return out;
}

}  // namespace whence::test
