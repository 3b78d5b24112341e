#include <cmath>

#include "support/near.h"
#include "whence/core/error.h"
#include "whence/models/checkpoint.h"

using namespace whence;

namespace {

ParameterSet expected() {
  ParameterSet out;
  out.add("body.0.weight", at::zeros({2, 3}, at::kDouble));
  out.add("head.bias", at::zeros({2}, at::kDouble));
  return out;
}

ParameterSet found(const std::string& first, at::Tensor a, const std::string& second, at::Tensor b) {
  ParameterSet out;
  out.add(first, std::move(a));
  out.add(second, std::move(b));
  return out;
}

}  // namespace

TEST_SUITE("models") {
  TEST_CASE("a checkpoint is put in order and converted") {
    const auto weight = at::arange(6, at::kFloat).view({2, 3}), bias = at::full({2}, 1.5, at::kBFloat16);
    const auto fitted = fit_checkpoint(expected(), found("head.bias", bias, "body.0.weight", weight), "x");
    CHECK(fitted.names() == expected().names());
    CHECK((fitted.values()[0].scalar_type() == at::kDouble));
    CHECK(at::equal(fitted.values()[0], weight.to(at::kDouble)));
    CHECK(at::equal(fitted.values()[1], bias.to(at::kDouble)));
  }

  TEST_CASE("the fitted tensors are copies: a mapped file is never written to") {
    const auto weight = at::zeros({2, 3}, at::kDouble);
    const auto fitted =
        fit_checkpoint(expected(), found("body.0.weight", weight, "head.bias", at::zeros({2}, at::kDouble)), "x");
    fitted.values()[0].fill_(1);
    CHECK(weight.sum().item<double>() == 0);
  }

  TEST_CASE("what does not fit is named") {
    const auto weight = at::zeros({2, 3}, at::kDouble), bias = at::zeros({2}, at::kDouble);
    const auto fails = [](const ParameterSet& given, const char* message) {
      CHECK_THROWS_WITH_AS(fit_checkpoint(expected(), given, "run/a.safetensors"), message, DataError);
    };
    fails(found("body.0.weight", weight, "head.biass", bias),
          "run/a.safetensors: unknown tensor \"head.biass\"; did you mean \"head.bias\"? known: body.0.weight, "
          "head.bias");
    fails(expected().select("body."),
          "run/a.safetensors: tensor \"head.bias\" is missing; 1 of 2 expected tensors are there");
    fails(found("body.0.weight", at::zeros({3, 2}, at::kDouble), "head.bias", bias),
          "run/a.safetensors: tensor \"body.0.weight\" has shape [3, 2], expected [2, 3]");
    fails(found("body.0.weight", weight, "head.bias", at::zeros({2}, at::kLong)),
          "run/a.safetensors: tensor \"head.bias\" has dtype Long, expected a floating one");
    fails(found("body.0.weight", weight, "head.bias", at::tensor({1.0, NAN}, at::kDouble)),
          "run/a.safetensors: tensor \"head.bias\" is not finite: 1 of 2 entries are NaN or infinite as Double");
  }

  TEST_CASE("a value that only overflows in the wanted dtype is refused") {
    const auto wanted = expected().to(at::kFloat, at::kCPU);
    const auto given =
        found("body.0.weight", at::full({2, 3}, 1e300, at::kDouble), "head.bias", at::zeros({2}, at::kDouble));
    CHECK_THROWS_WITH_AS(fit_checkpoint(wanted, given, "x"),
                         doctest::Contains("6 of 6 entries are NaN or infinite as Float"), DataError);
  }
}
