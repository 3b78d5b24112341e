#include "whence/models/ensemble.h"

#include <ATen/ATen.h>

#include <cmath>

#include "whence/core/error.h"

namespace whence {

std::vector<ParameterSet> drawn_models(const ParameterSet& theta, std::int64_t draws) {
  std::vector<ParameterSet> out;
  for (std::int64_t number = 0; number < draws; ++number) {
    std::shared_ptr<Additions> changed;
    for (const auto& [module, here] : theta.additions() ? *theta.additions() : Additions{}) {
      for (std::size_t i = 0; i < here.size(); ++i) {
        if (const auto* many = dynamic_cast<const ManyModels*>(here[i].get())) {
          changed = changed ? changed : std::make_shared<Additions>(*theta.additions());
          changed->find(module)->second[i] = many->drawn(number);
        }
      }
    }
    if (!changed) {
      throw InvalidArgument("its tuning draws no models: expected prefix-simplex");
    }
    out.push_back(theta.with_additions(std::move(changed)));
  }
  return out;
}

std::int64_t ensemble_of(const ParameterSet& theta) {
  for (const auto& [module, here] : theta.additions() ? *theta.additions() : Additions{}) {
    for (const auto& addition : here) {
      const auto* many = dynamic_cast<const ManyModels*>(addition.get());
      if (many != nullptr && many->ensemble() > 0) {
        return many->ensemble();
      }
    }
  }
  return 0;
}

std::vector<ParameterSet> predicting_models(const ParameterSet& theta, const Batch& batch) {
  const auto draws = batch.sampled ? 0 : ensemble_of(theta);
  return draws > 0 ? drawn_models(theta, draws) : std::vector<ParameterSet>{theta};
}

at::Tensor mean_prediction(const std::vector<at::Tensor>& outputs, const Batch& batch) {
  if (outputs.size() == 1) {
    return outputs.front();
  }
  if (batch.targets.is_floating_point()) {
    return at::stack(outputs).mean(0);
  }
  TensorList logs;
  for (const auto& output : outputs) {
    logs.push_back(output - output.logsumexp(1, /*keepdim=*/true));
  }
  return at::stack(logs).logsumexp(0) - std::log(static_cast<double>(outputs.size()));
}

}  // namespace whence
