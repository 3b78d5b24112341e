// Each command where it may not write, where folders are missing, and in too little memory: one line, and nothing left.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <stdexcept>

#include "faults/scenarios.h"
#include "faults/scene.h"
#include "faults/tree.h"

namespace whence::faults {
namespace fs = std::filesystem;
namespace {

const std::vector<std::string> kBefore{"train p.toml --quiet",
                                       "rank p.toml --stage finetune --method grad-dot --quiet --out out"};
const std::vector<std::string> kLines{
    "train p.toml --force --quiet",
    "rank p.toml --stage finetune --method grad-dot --quiet --out other",
    "rank p.toml --stage finetune --curvature ekfac:factors=factors --solver ekfac --quiet --out other",
    "score p.toml --stage all --curvature gauss-newton --quiet --out out",
    "rank p.toml --stage all --self --curvature gauss-newton --quiet --out other",
    "evaluate p.toml --stage finetune --scores out --examples 2 --quiet",
    "report out --quiet",
    "icl --model model --task task.json --quiet --out other",
    "icl --model model --tasks tasks --quiet --out other",
    "init pretrain.csv --out init.toml --quiet",
    "inspect p.toml --spectrum --steps 5 --quiet --plot plot.svg"};

/// Lines that name what is not there.
const std::vector<std::string> kMissing{
    "train nowhere.toml",
    "rank nowhere/p.toml",
    "rank p.toml --stage nowhere",
    "rank p.toml --from nowhere/run.json",
    "evaluate p.toml --stage finetune --scores nowhere",
    "report nowhere",
    "report out --out nowhere/page.html",
    "icl --model nowhere --task task.json",
    "icl --model model --task nowhere.json",
    "icl --model model --tasks nowhere --out other",
    "icl --model model --task task.json --select 1 --pool nowhere.jsonl",
    "init nowhere.csv",
    "init pretrain.csv --out nowhere/init.toml",
    "inspect nowhere",
    "inspect p.toml --spectrum --steps 5 --quiet --plot nowhere/plot.svg",
    "rank p.toml --stage finetune --method grad-dot --quiet --out p.toml",
    "rank p.toml --stage finetune --method grad-dot --quiet --out p.toml/out",
    "report out --out model",
    "evaluate p.toml --stage finetune --scores out --examples 2 --quiet --out queries.csv"};

class Places {
 public:
  explicit Places(const Settings& settings) : settings_(settings) {
    const auto folder = worker_folder(0);
    make(scene(), folder);
    for (const auto& line : kBefore) {
      if (const auto made = run_tool(settings, line, {.folder = folder}); made.status != 0) {
        throw std::runtime_error("whence " + line + ": " + made.err);
      }
    }
    tree_ = tree_of(folder);
    least_ = least_memory(folder, "--version");
  }

  std::vector<Job> jobs() const {
    std::vector<Job> out;
    for (const auto& line : kLines) {
      out.push_back(
          {"places/closed/" + line, "closed", [=, this](const fs::path& folder) { return closed(folder, line); }});
      constexpr int kSteps = 10;
      for (int k = 1; k <= kSteps && least_ > 0; ++k) {
        const auto memory = least_ + (std::size_t{1} << 20) * static_cast<std::size_t>(k * k);  // densest at the least
        out.push_back({"places/" + std::to_string(memory >> 20) + " MB/" + line, "memory",
                       [=, this](const fs::path& folder) { return short_of_memory(folder, line, memory); }});
      }
    }
    for (const auto& line : kMissing) {
      out.push_back(
          {"places/missing/" + line, "missing", [=, this](const fs::path& folder) { return missing(folder, line); }});
    }
    return out;
  }

 private:
  /// The least address space in which a command does what it does; 0 where that is more than a sanitizer leaves.
  std::size_t least_memory(const fs::path& folder, const std::string& line) const {
    std::size_t least = std::size_t{1} << 20, enough = std::size_t{1} << 36;
    const auto works = [&](std::size_t memory) {
      return run_tool(settings_, line, {.folder = folder, .memory = memory}).status == 0;
    };
    if (!works(enough)) {
      return 0;
    }
    while (enough - least > (std::size_t{1} << 20)) {
      const auto middle = (least + enough) / 2;
      (works(middle) ? enough : least) = middle;
    }
    return enough;
  }

  std::string closed(const fs::path& folder, const std::string& line) const {
    make(tree_, folder);
    const auto all = [&](fs::perms permissions) {
      for (const auto& entry : fs::recursive_directory_iterator(folder)) {
        if (entry.is_directory()) {
          fs::permissions(entry.path(), permissions);
        }
      }
      fs::permissions(folder, permissions);
    };
    all(fs::perms(0555));
    const auto outcome = run_tool(settings_, line, {.folder = folder, .unprivileged = true});
    all(fs::perms(0755));
    const auto wrong = how_it_failed(outcome, 1);
    return wrong.empty() ? difference(tree_of(folder), tree_) : wrong;
  }

  std::string missing(const fs::path& folder, const std::string& line) const {
    make(tree_, folder);
    const auto wrong = how_it_failed(run_tool(settings_, line, {.folder = folder}), 1);
    return wrong.empty() ? difference(tree_of(folder), tree_) : wrong;
  }

  std::string short_of_memory(const fs::path& folder, const std::string& line, std::size_t memory) const {
    make(tree_, folder);
    const auto outcome = run_tool(settings_, line, {.folder = folder, .memory = memory});
    auto wrong = outcome.status == 0 ? "" : how_it_failed(outcome, 1);
    for (const auto& [name, bytes] : tree_of(folder)) {
      if (name.ends_with(".whence-part") || name.ends_with(".lock")) {
        wrong += name + " is left over";
      }
    }
    return wrong;
  }

  const Settings& settings_;
  Tree tree_;
  std::size_t least_ = 0;  // bytes of address space
};

}  // namespace

bool places(const Settings& settings) {
  constexpr std::size_t kSample = 10;
  return run_scenario<Places>("places", kSample, settings);
}

}  // namespace whence::faults
