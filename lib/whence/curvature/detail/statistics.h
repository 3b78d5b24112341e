#pragma once
#include <functional>
#include <string>

#include "whence/core/options.h"
#include "whence/curvature/detail/layer_rows.h"

namespace whence::detail {

/// What diagonal, kfac and ekfac are fitted to.
struct StatisticsOptions {
  std::string labels = "auto";
  std::int64_t examples = 0;
  std::int64_t seed = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field(
        "labels", self.labels, OneOf{"auto|exact|sampled|data"},
        "exact: the Gauss-Newton matrix, a backward pass an output (of texts whose tokens are predicted, an output and "
        "token); sampled: one label a prediction, drawn from the model; data: the empirical Fisher, in a chain with "
        "its "
        "mixed products; auto: exact up to 16 passes, then sampled");
    field("examples", self.examples, kAtLeastZero, "fit to so many, drawn at random; 0: all");
    field("seed", self.seed, kAtLeastZero, "of labels and examples");
  }
};

/// Empirical Fisher where the labels are the data's, else Gauss-Newton.
CurvatureFamily statistics_family(const StatisticsOptions& options);
/// The mixed product of that family.
at::Tensor statistics_mixed_product(const StatisticsOptions& options, const CurvaturePoint& point, const at::Tensor& v);

/// Curvature::check() of what is fitted to rows with a `widest` side.
void check_statistics(const char* name, const StatisticsOptions& options, const CurvaturePoint& point, bool mixed,
                      std::int64_t widest);

/// Calls body with the rows of every batch that the statistics are taken over, from example `begin` on. With a `widest`
/// side, parameters outside the layers and layers wider than it come as RowBatch::others(). Throws InvalidArgument,
/// with `name`, where what the stage trains is not made of layers.
void for_each_rows(const char* name, const StatisticsOptions& options, const CurvaturePoint& point,
                   const std::function<void(const RowBatch&)>& body, std::optional<std::int64_t> widest = {},
                   std::int64_t begin = 0);

/// Sum over the rows of the squares of (left' gradient right), elementwise: [outputs, columns]. `left` [outputs,
/// outputs] and `right` [columns, columns] where given.
at::Tensor squared_gradients(const LayerRows& rows, const at::Tensor& left, const at::Tensor& right);

}  // namespace whence::detail
