#include "whence/stages/stage.h"

#include <fmt/format.h>

namespace whence {

std::vector<std::string> disconnections(const Chain& chain) {
  std::vector<std::string> out;
  for (std::size_t k = 0; k < chain.size(); ++k) {
    const auto& stage = chain[k];
    if (k + 1 < chain.size() && stage.objective.model().head().body(stage.objective.trained()).empty()) {
      out.push_back(fmt::format(
          "stage {}: it trains its own head alone and hands that on to nobody, so every score of its examples is 0",
          stage.name));
    }
    if (k > 0 && !stage.objective.tuning().remembers_parent()) {
      out.push_back(
          fmt::format("stage {}: nothing in its objective depends on stage {}, so at its minimum every score of the "
                      "stages before is 0; give it tuning = \"full:proximity=0.1\" or \"head\"",
                      stage.name, chain[k - 1].name));
    }
  }
  return out;
}

}  // namespace whence
