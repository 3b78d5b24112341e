// Scores that know nothing: what any method has to beat.
#include "whence/core/random.h"

#include "whence/icl/icl_method.h"

namespace whence {
namespace {

struct RandomScoresOptions {
  std::int64_t seed = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("seed", self.seed, kAtLeastZero, "other seeds, other scores");
  }
};

class RandomScores : public IclMethod {
 public:
  explicit RandomScores(RandomScoresOptions options) : options_(options) {}
  IclNeeds needs() const override { return {}; }

  IclScores score(const IclTask& task) const override {
    check_labels(task);
    const Random random(static_cast<std::uint64_t>(options_.seed));
    return {.test = random.stream("icl test").normal({task.queries(), task.demonstrations()}),
            .self = random.stream("icl self").normal({task.demonstrations()})};
  }

 private:
  RandomScoresOptions options_;
};

}  // namespace

WHENCE_METHOD(IclMethod, random_scores, RandomScores, RandomScoresOptions)

}  // namespace whence
