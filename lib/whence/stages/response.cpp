#include "whence/stages/response.h"

#include <fmt/format.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "whence/core/error.h"
#include "whence/core/options.h"

namespace whence {
namespace {

struct SegmentOptions {
  double time = 0;
  std::int64_t steps = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("time", self.time, kAtLeastZero, "sum of the learning rates, over 1 - momentum, of stages without snapshots");
    field("steps", self.steps, kAtLeastZero, "how many they were; 0: infinitely many small ones");
  }
};

constexpr std::array<std::pair<Response, std::string_view>, 3> kResponses{
    {{Response::kStationary, "stationary"},
     {Response::kProximalBregman, "proximal-bregman"},
     {Response::kSegment, "segment"}}};

}  // namespace

std::string_view to_string(Response response) { return kResponses[static_cast<std::size_t>(response)].second; }

void set_response(std::string_view spec, InverseOptions& options) {
  const auto word = spec.substr(0, spec.find(':'));
  const auto rest = word.size() == spec.size() ? std::string_view{} : spec.substr(word.size() + 1);
  std::vector<std::string> known;
  for (const auto& [value, name] : kResponses) {
    known.emplace_back(name);
    if (name != word) {
      continue;
    }
    options.response = value;
    if (value == Response::kSegment) {
      const auto given = parse<SegmentOptions>(rest, "response segment");
      options.time = given.time;
      options.steps = given.steps;
    } else {
      parse<NoOptions>(rest, fmt::format("response {}", name));
    }
    return;
  }
  throw InvalidArgument(unknown_name("response", word, known));
}

}  // namespace whence
