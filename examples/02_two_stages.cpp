// Two stages without a pipeline file: a model is pretrained on one task and fine-tuned on another. Which examples of
// either does a prediction of the fine-tuned model come from?
#include <ATen/ATen.h>
#include <whence/attribution/attribute.h>
#include <whence/store/ranking.h>

#include <cmath>
#include <cstdio>

using namespace whence;

/// Points in the plane [N, 2], in classes by their direction, counted from the west through the south.
Dataset points(const at::Tensor& inputs, const std::vector<std::string>& directions) {
  const double turn = 2 * std::acos(-1);
  const at::Tensor share = at::atan2(inputs.select(1, 1), inputs.select(1, 0)) / turn + 0.5;  // of the way round
  Dataset::Contents contents;
  contents.inputs = inputs;
  contents.targets = (share * static_cast<double>(directions.size())).floor().to(at::kLong);
  contents.ids = at::arange(inputs.size(0));
  contents.classes = directions;
  return Dataset(contents);
}

int main() {
  Random random(1);
  const auto quarters = points(random.normal({100, 2}), {"south-west", "south-east", "north-east", "north-west"});
  const auto halves = points(random.normal({20, 2}), {"south", "north"});
  const std::shared_ptr<const Model> model = create<Model>("mlp:widths=8/4");
  const std::shared_ptr<const Optimizer> optimizer = create<Optimizer>("lbfgs:tolerance=1e-9");

  Chain chain;
  chain.push_back(begin_stage({.name = "pretrain",
                               .model = model,
                               .loss = create<Loss>("cross-entropy"),
                               .optimizer = optimizer,
                               .data = quarters,
                               .weight_decay = 1e-2},
                              chain, random.stream("pretrain")));
  train(chain.back(), random);
  chain.push_back(
      begin_stage({.name = "finetune",
                   .model = model,
                   .loss = create<Loss>("cross-entropy"),
                   .tuning = create<Tuning>("head"),  // a new head on the body that the first stage hands on
                   .optimizer = optimizer,
                   .data = halves,
                   .weight_decay = 1e-2},
                  chain, random.stream("finetune")));
  train(chain.back(), random);

  const auto query = points(at::tensor({1.0, 0.05}, at::kDouble).unsqueeze(0), {"south", "north"});
  std::printf("a point just north of east: its loss is %.3f\n",
              measure_all(Measurement::kLoss, chain.back(), query)[0].item<double>());
  const auto influence =
      create<Attributor>("influence")->prepare(chain, {create<Curvature>("hessian"), create<Solver>("direct")});
  for (std::size_t stage = 0; stage < chain.size(); ++stage) {
    const Dataset& data = chain[stage].objective.data();
    const at::Tensor scores = score_matrix(chain, stage, *influence, query, Measurement::kLoss);
    const Ranking ranking = rank_examples(scores[0], data.ids(), /*top=*/2, Measurement::kLoss);
    for (const auto* side : {&ranking.proponents, &ranking.opponents}) {
      for (const auto& example : *side) {
        const auto label = data.targets()[example.example].item<std::int64_t>();
        std::printf("%-8s  example %3d (%s): without it the loss changes by %+.4f\n", chain[stage].name.c_str(),
                    static_cast<int>(example.example), data.classes()[static_cast<std::size_t>(label)].c_str(),
                    *example.removal);
      }
    }
  }
}
