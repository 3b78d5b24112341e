#include "whence/core/rounding.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <limits>

namespace whence {
namespace {

struct Carries {
  c10::ScalarType type;
  std::string_view name, wider;
  double epsilon, dependence, breakdown, difference_step;
};

constexpr double kDouble = std::numeric_limits<double>::epsilon(), kFloat = std::numeric_limits<float>::epsilon();
constexpr Carries kTypes[] = {
    {c10::ScalarType::Double, "float64", "", kDouble, 1e-13, 1e-14, 1e-5},
    {c10::ScalarType::Float, "float32", "float64", kFloat, 1e-6, 3e-6, 1e-3},
    {c10::ScalarType::Half, "float16", "float32", 1.0 / 1024, 8.0 / 1024, 24.0 / 1024, 0.1},
    {c10::ScalarType::BFloat16, "bfloat16", "float32", 1.0 / 128, 8.0 / 128, 24.0 / 128, 0.2},
};

const Carries& carries(c10::ScalarType type) {
  for (const auto& known : kTypes) {
    if (known.type == type) {
      return known;
    }
  }
  return kTypes[0];  // integers are exact
}

}  // namespace

double epsilon(c10::ScalarType type) { return carries(type).epsilon; }
double dependence(c10::ScalarType type) { return carries(type).dependence; }
double breakdown(c10::ScalarType type) { return carries(type).breakdown; }
double difference_step(c10::ScalarType type) { return carries(type).difference_step; }

c10::ScalarType algebra_type(c10::ScalarType type) {
  return type == c10::ScalarType::Double ? type : c10::ScalarType::Float;
}

at::TensorOptions algebra_options(const at::TensorOptions& options) {
  return options.dtype(algebra_type(c10::typeMetaToScalarType(options.dtype()))).requires_grad(false);
}

at::Tensor widened(const at::Tensor& x) { return x.is_floating_point() ? x.to(algebra_type(x.scalar_type())) : x; }

std::vector<at::Tensor> widened(const std::vector<at::Tensor>& x) {
  std::vector<at::Tensor> out;
  for (const auto& tensor : x) {
    out.push_back(widened(tensor));
  }
  return out;
}

at::Tensor exact_softplus(const at::Tensor& x) {
  constexpr double kThreshold = 40;  // beyond which it is x: e^-40 is below float64's spacing
  // in float64, since vectors and what is left behind the last of them are computed by different code: the last digit
  // of a training's loss, and with it the training, would depend on how many others are made beside it
  return at::softplus(x.to(at::kDouble), 1, kThreshold).to(x.scalar_type());
}

std::string_view dtype_name(c10::ScalarType type) { return carries(type).name; }

std::string rounding_remedy(c10::ScalarType type) {
  const auto wider = carries(type).wider;
  return fmt::format("{}raise the damping, or give inputs of like size (a table: standardize = true)",
                     wider.empty() ? "" : fmt::format("use --dtype {}, ", wider));
}

}  // namespace whence
