// Gradient products without curvature: the influence with the identity in the Hessian's place. G. Charpiat et al.,
// "Input Similarity from the Neural Network Perspective", NeurIPS 2019.
#include <ATen/ATen.h>

#include <set>

#include "whence/attribution/detail/gradient_source.h"

namespace whence {
namespace {

/// The measurement's gradient itself, in the parameters that a stage trains.
class PlainGradientSource : public detail::GradientSource {
 public:
  PlainGradientSource(const Chain& chain, Normalization own) : GradientSource(chain), own_(own) {}

  void check(const std::vector<std::size_t>& stages, Measurement measurement,
             Normalization normalization) const override {
    for (const auto k : stages) {
      detail::check_shared(chain_, k, own_ == Normalization::kNone ? "grad-dot" : "grad-cos");
    }
    if (own_ != Normalization::kNone && normalization != Normalization::kNone && normalization != own_) {
      throw InvalidArgument("normalize = " + std::string(to_string(normalization)) +
                            " with grad-cos, which is the cosine already: use grad-dot");
    }
    GradientSource::check(stages, measurement, normalization);
  }

  std::vector<QueryDirections> directions(const QueryBlock& queries, const std::vector<std::size_t>& stages,
                                          const Progress&) override {
    std::set<std::string> wanted;
    for (const auto k : stages) {
      const auto names = parameters(k);
      wanted.insert(names.begin(), names.end());
    }
    const auto gradients = measurement_gradients(queries.measurement, chain_.back(), queries.data, queries.begin,
                                                 queries.end, {wanted.begin(), wanted.end()});
    std::vector<QueryDirections> out(chain_.size());
    for (const auto k : stages) {
      out[k].points = {felt(gradients, k, queries.size())};
    }
    return out;
  }
  Normalization own_normalization() const override { return own_; }
  std::function<at::Tensor(const Batch&)> self_scorer() override {
    if (own_ == Normalization::kCosine) {
      throw InvalidArgument("grad-cos: the cosine of a gradient with itself is 1 for every example; use grad-dot");
    }
    return GradientSource::self_scorer();
  }

 private:
  Normalization own_;
};

class GradientAttributor : public Attributor {
 public:
  explicit GradientAttributor(Normalization own) : own_(own) {}
  bool uses_curvature() const override { return false; }
  Claim claim() const override { return Claim::kOrder; }
  std::unique_ptr<ScoreSource> prepare(const Chain& chain, const InverseProblem&) const override {
    return std::make_unique<PlainGradientSource>(chain, own_);
  }

 private:
  Normalization own_;
};

class GradientDot : public GradientAttributor {
 public:
  explicit GradientDot(NoOptions) : GradientAttributor(Normalization::kNone) {}
};
class GradientCosine : public GradientAttributor {
 public:
  explicit GradientCosine(NoOptions) : GradientAttributor(Normalization::kCosine) {}
};

}  // namespace

WHENCE_METHOD(Attributor, grad_dot, GradientDot, NoOptions)
WHENCE_METHOD(Attributor, grad_cos, GradientCosine, NoOptions)

}  // namespace whence
