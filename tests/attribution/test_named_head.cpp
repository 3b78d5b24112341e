// A model's head may have any name: chains, tunings and scores are those of the same model with a head called head.
#include "attribution/made.h"
#include "support/named_head.h"

using namespace whence;
using test::relative_error;
using Names = std::vector<std::string>;

namespace {

Chain chain_of(const std::string& head, const std::vector<test::ToyStage>& stages) {
  return test::toy_chain(stages, std::make_shared<test::NamedHead>(head));
}

const std::vector<test::ToyStage> kThreeStages{
    {"full", "cross-entropy"}, {"full:proximity=0.3", "cross-entropy"}, {"head", "cross-entropy"}};

}  // namespace

TEST_SUITE_BEGIN("attribution");

TEST_CASE("a head of another name is trained alone, penalised and handed on to nobody as one called head is") {
  const auto chain = chain_of("fc", kThreeStages), plain = chain_of("head", kThreeStages);
  for (std::size_t k = 0; k < chain.size(); ++k) {
    CAPTURE(k);
    CHECK(at::equal(flatten(chain[k].theta), flatten(plain[k].theta)));
    CHECK(chain[k].handed_on().names() == Names{"fc1.weight", "fc1.bias"});
    CHECK(chain[k].objective.value(chain[k].theta, chain[k].parent, nullptr) ==
          plain[k].objective.value(plain[k].theta, plain[k].parent, nullptr));
  }
  CHECK(chain[2].objective.trained().names() == Names{"fc.weight", "fc.bias"});
  CHECK(disconnections(chain).empty());
  const std::vector<test::ToyStage> cut{{"full"}, {"head"}, {"full:proximity=0.5"}};
  const auto told = disconnections(chain_of("fc", cut));
  CHECK(told.size() == 1);
  CHECK(told == disconnections(chain_of("head", cut)));
}

TEST_CASE("every method scores a chain whose head has another name as one whose head is called head") {
  const auto chain = test::traced(chain_of("fc", kThreeStages)), plain = test::traced(chain_of("head", kThreeStages));
  const auto queries = test::toy_data("cross-entropy", 4, 3, Random(99));
  for (const auto& method : methods<Attributor>()) {
    CAPTURE(method.name);
    const auto last = chain.size() - 1;
    for (std::size_t k = 0; k < chain.size(); ++k) {
      if (k == last && create<Attributor>(method.name)->draws_by_names()) {
        continue;
      }
      CAPTURE(k);
      const auto scores = test::scores_of(chain, k, queries, method.name);
      CHECK(relative_error(scores, test::scores_of(plain, k, queries, method.name)) < test::Tolerance::kDense);
      CHECK(scores.abs().max().item<double>() > 0);
    }
  }
  const auto products = test::prepared(chain, "grad-dot");
  CHECK(products->parameters(0) == Names{"fc1.weight", "fc1.bias"});
  CHECK(products->parameters(2) == Names{"fc.weight", "fc.bias"});
}

TEST_SUITE_END();
