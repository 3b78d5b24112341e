// Vectors before every text's embedded tokens, which go through the model as tokens do. B. Lester, R. Al-Rfou and N.
// Constant, "The Power of Scale for Parameter-Efficient Prompt Tuning", EMNLP 2021, in the form that PEFT computes:
// texts begin at position `length`, and a head of classes that reads the first token reads the prompt's first.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/tuning/detail/prefixes.h"

namespace whence {
namespace {

struct PromptOptions {
  std::int64_t length = 10;
  std::string start = "random";
  double deviation = 1;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("length", self.length, kAtLeastZero, "vectors before every text; 0: none");
    field("start", self.start, OneOf{"random|vocabulary"}, "normal numbers, or the embeddings of random tokens");
    field("deviation", self.deviation, kAtLeastZero, "standard deviation of the normal numbers");
  }
};

class PromptTuning : public detail::BeforeTexts {
 public:
  explicit PromptTuning(PromptOptions options) : options_(std::move(options)) {}
  std::string description() const override { return options_text(options_); }
  /// Its embeddings.
  bool starts_from_parent() const override { return options_.start == "vocabulary"; }

 protected:
  std::string_view name() const override { return "prompt"; }

  ParameterSet added(const TuningStart& start, const Tape& pass, const Random& random) const override {
    const auto tokens = std::find_if(pass.entries.begin(), pass.entries.end(), [](const TapeEntry& entry) {
      return entry.kind == TapeEntry::Kind::kEmbedding && layer_module(entry.weight) != entry.weight;
    });
    if (tokens == pass.entries.end() || pass.attention.empty()) {
      throw InvalidArgument("prompt: no embedding of tokens in the model, expected a transformer");
    }
    const std::string module(layer_module(tokens->weight));
    if (options_.length == 0) {
      return {};
    }
    const auto& vocabulary = start.parent.at(tokens->weight);
    if (options_.start == "vocabulary") {
      const auto drawn = random.stream("tokens").uniform({options_.length}, 0, static_cast<double>(vocabulary.size(0)));
      const auto rows = drawn.floor().to(at::kLong).to(vocabulary.device());
      return {{prompt_name(module), vocabulary.detach().index_select(0, rows).to(at::kCPU, at::kDouble)}};
    }
    return {{prompt_name(module),
             options_.deviation * random.stream("vectors").normal({options_.length, vocabulary.size(1)})}};
  }

 private:
  PromptOptions options_;
};

}  // namespace

WHENCE_METHOD(Tuning, prompt, PromptTuning, PromptOptions)

}  // namespace whence
