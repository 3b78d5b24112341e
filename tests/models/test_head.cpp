// Body and head, by name.
#include "support/named_head.h"
#include "support/near.h"
#include "support/scratch.h"
#include "whence/data/safetensors.h"
#include "whence/models/checkpoint.h"

using namespace whence;

namespace {

ParameterSet matrices(const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& shapes) {
  ParameterSet out;
  for (const auto& [name, shape] : shapes) {
    out.add(name, at::ones(shape));
  }
  return out;
}

}  // namespace

TEST_SUITE("models") {
  TEST_CASE("a head is what stands behind its name and a dot, and the body is the rest") {
    const auto theta = matrices({{"fc1.weight", {4, 2}}, {"fc.weight", {3, 4}}, {"fc.out.bias", {3}}, {"head.w", {1}}});
    const Head fc("fc");
    CHECK(fc.of(theta).names() == std::vector<std::string>{"fc.weight", "fc.out.bias"});
    CHECK(fc.body(theta).names() == std::vector<std::string>{"fc1.weight", "head.w"});
    CHECK(fc.of(theta).join(fc.body(theta)).size() == theta.size());
    CHECK(fc.holds("fc.weight"));
    CHECK_FALSE(fc.holds("fc1.weight"));
    CHECK_FALSE(fc.holds("body.fc.weight"));
    CHECK(fc.qualified("out.bias") == "fc.out.bias");
    CHECK(fc.unqualified("fc.out.bias") == "out.bias");
    CHECK(fc.unqualified("fc1.weight") == "fc1.weight");
    CHECK(Head().of(theta).names() == std::vector<std::string>{"head.w"});
    const Head none("");
    CHECK(none.of(theta).empty());
    CHECK(none.body(theta).names() == theta.names());
  }

  TEST_CASE("a checkpoint's outputs are those of the head that the model names") {
    const test::Scratch scratch;
    const auto path = scratch / "trained.safetensors";
    write_safetensors(path, matrices({{"fc1.weight", {4, 2}}, {"fc.weight", {3, 4}}, {"head.weight", {5, 4}}}),
                      {{"tuning", "full"}});
    CHECK(checkpoint_classes(path, test::NamedHead("fc")).outputs == 3);
    CHECK(checkpoint_classes(path, test::NamedHead("head")).outputs == 5);
    CHECK(checkpoint_classes(path, test::NamedHead("last")).outputs == 0);  // two layers end, and none has that name
  }
}
