// Faults of the world around the tool: kills, full disks, changed and hostile files, other processes. Each scenario
// prints what did not hold and how many tries held.
//   whence_faults WHENCE [SCENARIO…] [--all] [--seed N] [--only JOB] [--workers N]
// Without --all a sample of each scenario, by the seed. --only repeats what a line of a failure names.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "faults/scenarios.h"

namespace whence::faults {
namespace {

struct Scenario {
  const char* name;
  bool (*test)(const Settings&);
};

constexpr Scenario kScenarios[] = {
    {"disturbed", disturbed}, {"changed", changed}, {"hostile", hostile}, {"places", places}};

int main_of(std::vector<std::string> words) {
  Settings settings;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const auto value = [&] { return i + 1 < words.size() ? words[++i] : std::string(); };
    if (words[i] == "--all") {
      settings.all = true;
    } else if (words[i] == "--seed") {
      settings.seed = std::strtoull(value().c_str(), nullptr, 10);
    } else if (words[i] == "--only") {
      settings.only = value();
    } else if (words[i] == "--workers") {
      settings.workers = static_cast<unsigned>(std::max(1, std::atoi(value().c_str())));
    } else if (settings.tool.empty()) {
      settings.tool = std::filesystem::absolute(words[i]);
    } else {
      names.push_back(words[i]);
    }
  }
  if (settings.tool.empty() || !std::filesystem::exists(settings.tool)) {
    std::fprintf(stderr, "usage: whence_faults WHENCE [SCENARIO...] [--all] [--seed N] [--only JOB] [--workers N]\n");
    return 2;
  }
  if (!can_trace()) {
    std::printf("skipped: no process may trace another here\n");
    return 77;
  }
  bool held = true;
  for (const auto& scenario : kScenarios) {
    if (names.empty() || std::find(names.begin(), names.end(), scenario.name) != names.end()) {
      held = scenario.test(settings) && held;
    }
  }
  return held ? 0 : 1;
}

}  // namespace

Outcome run_tool(const Settings& settings, const std::string& line, Way way) {
  std::vector<std::string> words{settings.tool.string()};
  std::istringstream in(line);
  for (std::string word; in >> word;) {
    words.push_back(word);
  }
  for (const char* variable : {"OMP_NUM_THREADS=1", "ASAN_OPTIONS=detect_leaks=0"}) {  // which would trace, too
    way.environment.push_back(variable);
  }
  return run(words, way);
}

std::string how_it_failed(const Outcome& outcome, int status) {
  if (outcome.hung) {
    return "hangs";
  }
  auto shown = outcome.err.substr(0, 400);
  if (outcome.status != status) {
    return (outcome.signal != 0 ? "signal " + std::to_string(outcome.signal)
                                : "status " + std::to_string(outcome.status)) +
           ", expected " + std::to_string(status) + ": " + shown;
  }
  std::istringstream in(outcome.err);
  std::size_t lines = 0;
  for (std::string line; std::getline(in, line);) {
    lines += line.starts_with("whence: warning: ") || line.starts_with("whence: note: ") ? 0 : 1;
  }
  return lines == 1 ? "" : std::to_string(lines) + " lines of error: " + shown;
}

}  // namespace whence::faults

int main(int count, char** values) { return whence::faults::main_of({values + 1, values + count}); }
