// The Fisher matrix with labels drawn from the model, whose mean is the Gauss-Newton matrix, and the empirical one with
// the data's own labels, whose mean is not. F. Kunstner, L. Balles and P. Hennig, "Limitations of the empirical Fisher
// approximation for natural gradient descent", NeurIPS 2019. The penalty enters exactly.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/curvature/curvature.h"
#include "whence/curvature/detail/pieces.h"
#include "whence/curvature/detail/row_operator.h"

namespace whence {
namespace {

struct FisherOptions {
  std::int64_t samples = 1;
  std::int64_t seed = 0;
  double graph_bytes = 4e9;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("samples", self.samples, kAtLeastOne, "labels drawn for each example");
    field("seed", self.seed, kAtLeastZero, "of the labels");
    field("graph-bytes", self.graph_bytes, kAtLeastZero, "keep the rows of J when they take at most this");
  }
};

struct EmpiricalFisherOptions {
  double graph_bytes = 4e9;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("graph-bytes", self.graph_bytes, kAtLeastZero, "keep the rows of J when they take at most this");
  }
};

class RowCurvature : public Curvature {
 public:
  RowCurvature(const char* name, detail::RowKind kind, std::int64_t samples, std::int64_t seed, double bytes)
      : name_(name), kind_(kind), samples_(samples), seed_(static_cast<std::uint64_t>(seed)), bytes_(bytes) {}

  OperatorPtr operator_at(const CurvaturePoint& point) const override {
    return detail::row_operator(point, layout(point), choice(point), bytes_);
  }

  at::Tensor mixed_product(const CurvaturePoint& point, const at::Tensor& v) const override {
    auto out = detail::penalty_mixed_product(point, v);
    if (point.objective.tuning().merge_uses_parent()) {
      detail::add_row_mixed_product(point, layout(point), layout_of_parent(point), choice(point), v, out);
    }
    return out;
  }
  void check(const CurvaturePoint& point, bool mixed) const override {
    layout(point);
    if (mixed && point.objective.tuning().merge_uses_parent()) {
      layout_of_parent(point);
    }
  }

  std::string name() const override { return name_; }
  CurvatureFamily family() const override {
    return kind_ == detail::RowKind::kEmpirical ? CurvatureFamily::kEmpiricalFisher : CurvatureFamily::kGaussNewton;
  }

 private:
  detail::RowChoice choice(const CurvaturePoint& point) const {
    return detail::make_rows(kind_, samples_, seed_, point.objective);
  }
  detail::LayerLayout layout(const CurvaturePoint& point) const {
    constexpr auto kRows = detail::LayerLayout::Beside::kRows;
    const auto layout = detail::trained_layout(point, kRows);
    if (!layout) {
      throw InvalidArgument(fmt::format("{}: {} is no layer's weight or bias: use --curvature gauss-newton", name_,
                                        detail::outside_layers(point, kRows)));
    }
    return *layout;
  }

  detail::LayerLayout layout_of_parent(const CurvaturePoint& point) const {
    const auto layout = detail::parent_layout(point);
    if (!layout) {
      throw InvalidArgument(fmt::format("{}: the stage's parent is not used layer by layer; use gauss-newton", name_));
    }
    return *layout;
  }

  const char* name_;
  detail::RowKind kind_;
  std::int64_t samples_;
  std::uint64_t seed_;
  double bytes_;
};

class Fisher : public RowCurvature {
 public:
  explicit Fisher(const FisherOptions& o)
      : RowCurvature("fisher", detail::RowKind::kFisher, o.samples, o.seed, o.graph_bytes) {}
};

class EmpiricalFisher : public RowCurvature {
 public:
  explicit EmpiricalFisher(const EmpiricalFisherOptions& o)
      : RowCurvature("empirical-fisher", detail::RowKind::kEmpirical, 1, 0, o.graph_bytes) {}
};

}  // namespace

WHENCE_METHOD(Curvature, fisher, Fisher, FisherOptions)
WHENCE_METHOD(Curvature, empirical_fisher, EmpiricalFisher, EmpiricalFisherOptions)

}  // namespace whence
