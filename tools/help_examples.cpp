#include "help_examples.h"

#include <array>
#include <utility>

namespace whence::cli {
namespace {

using Examples = std::array<HelpExample, 2>;

constexpr std::array<std::pair<std::string_view, Examples>, 11> kExamples{{
    {"init",
     {{{"whence init census.csv", "writes census.toml: a model for the table, trained by `whence train census.toml`"},
       {"whence init smollm2-135m train.tsv test.tsv --out sst2.toml",
        "a model folder, its training data and queries"}}}},
    {"train",
     {{{"whence train pipeline.toml", "every stage that has no checkpoint yet"},
       {"whence train pipeline.toml --stage finetune --force", "one stage, again"}}}},
    {"rank",
     {{{"whence rank pipeline.toml --limit-queries 5 --out result", "which examples made it say this of 5 queries?"},
       {"whence rank pipeline.toml --self --top 20 --out suspects", "which rows are mislabelled?"}}}},
    {"score",
     {{{"whence score pipeline.toml --stage all --out scores", "every example of every stage against every query"},
       {"whence score pipeline.toml --out scores --format csv", "the same for a spreadsheet or pandas"}}}},
    {"icl",
     {{{"whence icl --model smollm2-135m --task task.json", "which demonstrations help, and which hurt?"},
       {"whence icl --model smollm2-135m --task task.json --out prompt && whence report prompt",
        "kept, and as a page"}}}},
    {"kernel",
     {{{"whence kernel pipeline.toml --stage finetune --out kernel", "the eNTK, the tests of the regime, a verdict"},
       {"whence kernel pipeline.toml --stage finetune --kernel a-signgd --out adam", "of a fine-tune by Adam"}}}},
    {"evaluate",
     {{{"whence evaluate pipeline.toml --stage finetune --scores result", "leaves 20 examples out and trains again"},
       {"whence evaluate pipeline.toml --methods influence,ekfac,trak --against lds --out judged",
        "which method foretells training on random halves?"}}}},
    {"report",
     {{{"whence report result", "writes result/report.html"},
       {"whence report prompt finetune pretrain --out page.html", "one page of several results of the same queries"}}}},
    {"merge",
     {{{"whence merge pipeline.toml --stage tune --out tuned", "an adapter folded into its base, for transformers"},
       {"whence merge tables.toml --stage finetune --out tuned.safetensors", "of a built-in model"}}}},
    {"inspect",
     {{{"whence inspect run/finetune.safetensors", "what a checkpoint holds"},
       {"whence inspect pipeline.toml --spectrum --plot spectrum.svg", "is the curvature positive, and how spread?"}}}},
    {"methods", {{{"whence methods", "the reference manual"}, {"whence methods solvers", "one room of it"}}}},
}};

}  // namespace

std::span<const HelpExample> help_examples(std::string_view command) {
  for (const auto& [name, examples] : kExamples) {
    if (name == command) {
      return examples;
    }
  }
  return {};
}

}  // namespace whence::cli
