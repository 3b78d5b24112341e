// The contract of every registered curvature on texts, whose tokens are predicted: equal to its dense matrix, built
// text by text from plain autograd. A new family is tested here by its registration line; what an approximation is must
// stand in TextTruth::of.
#include "curvature/text_truth.h"
#include "whence/core/error.h"
#include "whence/curvature/example_norms.h"
#include "whence/curvature/gram_operator.h"

using namespace whence;
using test::Labels;
using test::relative_error;
using test::Tolerance;

namespace {

/// A method as it is, which draws labels where it has the choice, 20 passes being many; and with all labels and the
/// data's.
std::vector<std::pair<std::string, Labels>> specs_of(const Method<Curvature>& method) {
  const std::string name(method.name);
  std::vector<std::pair<std::string, Labels>> out{{name, Labels::kSampled}};
  for (const auto& option : method.options("")) {
    if (option.name == "labels") {
      out.emplace_back(name + ":labels=exact", Labels::kExact);
      out.emplace_back(name + ":labels=data", Labels::kData);
    }
  }
  return out;
}

/// The curvature's operator; null where it asks for layers and the point trains other things too.
OperatorPtr operator_at(const Curvature& curvature, const CurvaturePoint& point) {
  try {
    return curvature.operator_at(point);
  } catch (const InvalidArgument& error) {
    CAPTURE(error.what());
    CHECK_FALSE(covered_by_layers(point));
    return nullptr;
  }
}

CurvaturePoint in_float32(const CurvaturePoint& point) {
  const auto narrow = [](TensorList values) {
    for (auto& value : values) {
      value = value.to(at::kFloat);
    }
    return values;
  };
  return {point.objective.to(at::kFloat), narrow(point.theta), narrow(point.parent)};
}

}  // namespace

TEST_SUITE_BEGIN("curvature");

TEST_CASE("on texts the layers of a pass give autograd's gradients of their weights") {
  for (const auto& tiny : test::kTinyTransformers) {
    CAPTURE(tiny.name);
    const test::TextPoints points(tiny);
    const auto point = points.second_layers();
    const auto places = test::places_of(point.objective.trained());
    int compared = 0;
    for (const auto& text : test::text_rows(Labels::kExact, point)) {
      for (const auto& layer : text.layers) {
        if (places.count(layer.weight) > 0 && text.gradients.size(0) > 0) {
          const auto expected = text.gradients.index_select(1, test::entries_of(layer, places));
          CHECK(relative_error(test::layer_gradients(layer).flatten(1), expected) < Tolerance::kDense);
          ++compared;
        }
      }
    }
    CHECK(compared >= 6);
  }
}

TEST_CASE("every curvature on texts equals its dense matrix, packed or alone, in float64 and float32") {
  for (const auto& tiny : test::kTinyTransformers) {
    const test::TextPoints points(tiny);
    std::map<std::string_view, int> compared;
    for (const auto& point : points.both()) {
      const test::TextTruth truth(point);
      const auto p = count_entries(point.theta), q = count_entries(point.parent);
      const auto x = Random(3).normal({3, p});
      for (const auto& method : methods<Curvature>()) {
        for (const auto& [spec, labels] : specs_of(method)) {
          CAPTURE(tiny.name);
          CAPTURE(spec);
          CAPTURE(p);
          const auto curvature = create<Curvature>(spec);
          const auto a = operator_at(*curvature, point);
          if (a == nullptr) {
            continue;
          }
          ++compared[method.name];
          const auto dense = truth.of(*curvature, labels);
          const auto expected = x.mm(dense.narrow(1, 0, p));
          const auto image = a->apply(x);
          CHECK(a->size() == p);
          CHECK(relative_error(image, expected) < Tolerance::kDense);
          const auto alone = curvature->operator_at({point.objective.with_batch_size(1), point.theta, point.parent});
          CHECK(relative_error(alone->apply(x), expected) < Tolerance::kDense);
          const auto narrow = in_float32(point);
          const auto single =
              curvature->operator_at({narrow.objective.with_batch_size(3), narrow.theta, narrow.parent});
          CHECK(relative_error(single->apply(x), expected) < Tolerance::kFloat);
          if (q > 0) {
            const auto mixed = curvature->mixed_product(point, x);
            CHECK(relative_error(mixed, x.mm(dense.narrow(1, p, q))) < Tolerance::kDense);
          }
        }
      }
    }
    for (const auto& method : methods<Curvature>()) {
      CAPTURE(method.name);
      CHECK(compared[method.name] > 0);
    }
  }
}

TEST_CASE("rows of norms, embeddings and layers are their own in the dual, however many are held") {
  int compared = 0;
  for (const auto& tiny : test::kTinyTransformers) {
    const auto whole = test::TextPoints(tiny).everything();
    if (!has_rows(whole)) {
      continue;
    }
    CAPTURE(tiny.name);
    for (const std::string bytes : {"4e9", "3000", "0"}) {
      CAPTURE(bytes);
      const CurvaturePoint point{whole.objective.with_batch_size(1), whole.theta, whole.parent};
      const auto a = create<Curvature>("gauss-newton:graph-bytes=" + bytes)->operator_at(point);
      const auto& rows = dynamic_cast<const GramOperator&>(*a);
      const auto j = rows.transposed_times(at::eye(rows.rows(), at::kDouble));  // each row
      CHECK(relative_error(rows.gram(at::full({a->size()}, 0.5, at::kDouble)), 0.5 * j.mm(j.t())) < Tolerance::kDense);
      CHECK(relative_error(rows.times(j), j.mm(j.t())) < Tolerance::kDense);
    }
    ++compared;
  }
  CHECK(compared == 2);  // the other two have their head tied to the embedding
}

TEST_CASE("a text's length in the eyes of ekfac is that of its gradient in the dense matrix") {
  int compared = 0;
  for (const auto& tiny : test::kTinyTransformers) {
    const test::TextPoints points(tiny);
    for (const auto& point : points.both()) {
      if (!has_exact_forms(point)) {
        continue;
      }
      CAPTURE(tiny.name);
      const test::TextTruth truth(point);
      const auto p = count_entries(point.theta);
      const auto dense = truth.of(*create<Curvature>("ekfac"), Labels::kSampled).narrow(1, 0, p);
      const auto lengths = ekfac_example_norms(point, [](const at::Tensor& h) { return 1 / (h + 0.1); });
      const auto& data = point.objective.data();
      const auto found = lengths(data.batch(0, data.size()));
      for (std::int64_t i = 0; i < data.size(); ++i) {
        const auto& rows = truth.rows(Labels::kData)[static_cast<std::size_t>(i)];
        const auto g = rows.gradients[0].narrow(0, 0, p) * std::sqrt(static_cast<double>(data.size()));
        const auto solved = at::linalg_solve(dense + 0.1 * at::eye(p, at::kDouble), g);
        CHECK(relative_error(found[i], g.dot(solved).sqrt()) < Tolerance::kDense);
        CHECK(relative_error(lengths(data.batch(i, i + 1))[0], found[i]) < Tolerance::kDense);
      }
      ++compared;
    }
  }
  CHECK(compared >= 4);
}

TEST_SUITE_END();
