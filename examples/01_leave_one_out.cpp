// Leave-one-out: how a prediction's loss changes without single training examples, as influence predicts it from one
// training, beside what training again without each of them gives.
#include <ATen/ATen.h>
#include <whence/attribution/attribute.h>
#include <whence/evaluate/retraining.h>

#include <cstdio>

using namespace whence;

/// Points of two classes, the second further to the right and up.
Dataset points(std::int64_t count, Random random) {
  Dataset::Contents contents;
  contents.targets = at::arange(count).remainder(2);
  contents.inputs = random.normal({count, 2}) + contents.targets.unsqueeze(1);
  contents.ids = at::arange(count);
  contents.classes = {"left", "right"};
  return Dataset(contents);
}

int main() {
  const Random random(1);
  const Dataset data = points(60, random.stream("data")), query = points(1, random.stream("query"));
  Chain chain{begin_stage({.name = "train",
                           .model = create<Model>("mlp:widths=6"),
                           .loss = create<Loss>("cross-entropy"),
                           .optimizer = create<Optimizer>("lbfgs:tolerance=1e-9"),
                           .data = data,
                           .weight_decay = 0.02},
                          {}, random.stream("start"))};
  train(chain[0], random);

  const auto influence =
      create<Attributor>("influence")->prepare(chain, {create<Curvature>("hessian"), create<Solver>("direct")});
  const at::Tensor scores = score_matrix(chain, 0, *influence, query, Measurement::kLoss);  // [queries, examples]

  const at::Tensor rows = rows_across_scores(scores, 8);  // from the most helpful to the most harmful
  const at::Tensor predicted = -scores[0].index_select(0, rows) / data.size();
  const Retraining truth = retrain(chain, 0, leave_one_out_weights(rows, data.size()), query, Measurement::kLoss,
                                   /*optimizer=*/nullptr, random, {});
  const at::Tensor before = measure_all(Measurement::kLoss, chain[0], query);
  std::printf("the query's loss is %.4f; without\n  example   predicted   retrained\n", before[0].item<double>());
  for (std::int64_t i = 0; i < rows.numel(); ++i) {
    std::printf("  %7d   %+9.4f   %+9.4f\n", rows[i].item<int>(), predicted[i].item<double>(),
                (truth.measurements[i] - before)[0].item<double>());
  }
}
