// Trainings on random subsets: the linear datamodelling score.
#include <ATen/ATen.h>

#include "truth_ceiling.h"
#include "whence/evaluate/lds.h"
#include "whence/evaluate/retraining.h"

namespace whence {
namespace cli {
namespace {

class LinearDatamodelling : public CeilingedTruth {
 public:
  explicit LinearDatamodelling(NoOptions) : CeilingedTruth("lds", spearman, 0.5) {}
  std::vector<std::string> flags() const override {
    return {"subsets", "fraction", "no-ceiling", "optimizer", "train-from"};
  }
  bool judges_results() const override { return true; }
  std::string more() const override { return "--subsets"; }

  std::optional<Json> compare(Comparison& at) const override {
    const auto subsets = at.line().get<std::int64_t>("subsets");
    const auto fraction = at.line().get<double>("fraction");
    const auto weights = subset_weights(subsets, at.data().size(), fraction, at.random().stream("subsets"));
    if (at.planned({.weights = weights, .seeds = at.seeds(), .count_flag = "subsets"})) {
      return std::nullopt;
    }
    const auto methods = at.scored();
    const auto trained = at.train(weights, at.seeds());
    const auto inside = weights.gt(0).to(at::kDouble);
    const auto& actual = trained[0].measurements;
    const auto other = trained.size() > 1 ? trained[1].measurements : at::Tensor();
    const auto draws = at.random().stream("bootstrap");
    Json out{{"subsets", subsets}, {"fraction", fraction}};
    out.update(at.told(trained));
    out["ceiling"] = ceiling_of(actual, other, draws);
    for (const auto& method : methods) {
      Json row{{"method", method.method}};
      add_agreement(row, summed_scores(method.scores, inside), actual, other, draws);
      row["seconds"] = method.seconds;
      out["table"].push_back(std::move(row));
    }
    return out;
  }
};

}  // namespace
}  // namespace cli

WHENCE_METHOD(cli::Truth, lds, cli::LinearDatamodelling, NoOptions)

}  // namespace whence
