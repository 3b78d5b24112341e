// A run is killed or interrupted, finds a full or read-only disk, or another process beside it, at each of its system
// calls that change files; or it is killed at any time, and has too little memory. What lies there must be as before or
// as after, and the same command, given again, must end as if nothing had happened.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <map>
#include <random>
#include <set>
#include <stdexcept>

#include "faults/scenarios.h"
#include "faults/scene.h"
#include "faults/trace.h"
#include "faults/tree.h"

namespace whence::faults {
namespace fs = std::filesystem;
namespace {

/// A command with what lies there before it.
struct Command {
  std::string name;
  std::vector<std::string> before;  // commands that make what it needs
  std::string line;
  std::string interrupted_at = "";  // the last of `before` gets SIGINT where it opens a file whose name has this
  std::string result = "";          // a folder that `inspect` must be able to tell of, whatever happened
};

const std::string kScore = " --query-block 2 --curvature gauss-newton --quiet";
const std::string kTrain = "train p.toml --quiet";
const std::string kRank = "rank p.toml --stage all" + kScore + " --out out";
const std::string kIcl =
    "icl --model model --task task.json --verify --detect-noise --curate 4 --by-layer --quiet --out out";

const std::vector<Command> kCommands{
    {"train", {}, kTrain},
    {"train goes on", {kTrain}, kTrain, "pretrain.snapshot-2"},
    {"train the second goes on", {kTrain}, kTrain, "finetune.snapshot-2"},
    {"train --force", {kTrain, "train p.toml --stage finetune --seed 7 --force --quiet"}, kTrain + " --force"},
    {"score", {kTrain}, "score p.toml --stage all" + kScore + " --out out"},
    {"rank", {kTrain}, kRank + " --format csv,npy"},
    {"rank over another result", {kTrain, kRank + " --method grad-dot --format csv"}, kRank, "", "out"},
    {"rank after score", {kTrain, "score p.toml --stage all" + kScore + " --out out"}, kRank, "", "out"},
    {"rank --self", {kTrain}, "rank p.toml --stage all --self --curvature gauss-newton --quiet --out out"},
    {"rank with factors",
     {kTrain},
     "rank p.toml --stage all --query-block 2 --curvature ekfac:factors=factors --solver ekfac --batch-size 8 --quiet "
     "--out out"},
    {"evaluate", {kTrain, kRank}, "evaluate p.toml --stage finetune --scores out --examples 3 --quiet", "", "out"},
    {"evaluate lds",
     {kTrain, kRank},
     "evaluate p.toml --stage finetune --scores out --against lds --subsets 3 --out judged --quiet"},
    {"report", {kTrain, kRank}, "report out --quiet", "", "out"},
    {"icl", {}, kIcl},
    {"icl over another result", {kIcl + " --layers 1"}, kIcl},
    {"icl --tasks", {}, "icl --model model --tasks tasks --quiet --out out"},
    {"init", {}, "init pretrain.csv --out init.toml --quiet"},
    {"spectrum", {kTrain}, "inspect p.toml --spectrum --steps 5 --quiet --plot plot.svg"},
};

/// An undisturbed run of a command, and all that others are held to.
struct Reference {
  Tree before, after;           // `after` without times
  Tree untimed_before;          // the same of `before`
  std::set<std::string> timed;  // files that hold times
  Outcome outcome;
  std::size_t largest = 0;  // bytes of a file that it writes
};

/// Whether it is kept only so that a stopped run can go on.
bool is_between(const fs::path& name) {
  return name.extension() == ".unfinished" || *name.begin() == "factors" ||
         std::any_of(name.begin(), name.end(), [](const fs::path& part) { return part.string().starts_with('.'); });
}

/// Nothing where what a stopped run left is, file by file, what was there before or would be there after.
std::string torn(const Tree& left, const Reference& reference) {
  for (const auto& [name, bytes] : told(left, reference.timed)) {
    const auto is = [&, name = name, bytes = bytes](const Tree& tree) {
      const auto found = tree.find(name);
      return found != tree.end() && found->second == bytes;
    };
    if (!is_between(name) && fs::path(name).filename() != "run.json" && !is(reference.untimed_before) &&
        !is(reference.after)) {
      return name + " is neither as before nor as after";
    }
  }
  return {};
}

/// Files that no run may leave that came to an orderly end.
std::string junk(const Tree& left) {
  for (const auto& [name, bytes] : left) {
    if (name.ends_with(".whence-part") || name.ends_with(".lock") || name.find(".whence-new/") != name.npos) {
      return name + " is left over";
    }
  }
  return {};
}

class Sweep {
 public:
  Sweep(const Command& command, const Settings& settings) : command_(command), settings_(settings) {}

  std::vector<Job> jobs() const {
    std::vector<Job> out;
    const auto add = [&](const std::string& kind, const std::string& where, const Way& way) {
      out.push_back({command_.name + "/" + kind + "/" + where, kind,
                     [this, way](const fs::path& folder) { return attempt(folder, way); }});
    };
    const auto& reference = this->reference(worker_folder(0));
    const auto& calls = reference.outcome.calls;
    std::mt19937_64 random(settings_.seed);
    for (std::size_t at = 0; at < calls.size(); ++at) {
      const auto where =
          std::to_string(at) + " (" + calls[at].name + " " + fs::path(calls[at].path).filename().string() + ")";
      const auto with = [&](const std::string& kind, std::vector<Fault> faults) {
        add(kind, where, {.faults = std::move(faults)});
      };
      const auto later = at + 1 + random() % 8;
      with("kill", {{Kind::kKill, at}});
      if (calls[at].bytes > 0) {
        with("half", {{Kind::kHalf, at}});
      }
      with("fail", {{Kind::kFail, at, EIO}});
      if (calls[at].takes_space) {
        with("full", {{Kind::kFull, at}});
        with("full, killed", {{Kind::kFail, at, ENOSPC}, {Kind::kKill, later}});
      }
      with("read-only", {{Kind::kReadOnly, at}});
      with("interrupt", {{Kind::kInterrupt, at}});
      with("interrupt, killed", {{Kind::kInterrupt, at}, {Kind::kKill, later}});
      add("beside", where, {.meanwhile_at = at});
    }
    for (std::size_t bytes = 1; bytes < reference.largest; bytes = bytes * 3 / 2 + 1) {
      add("file size", std::to_string(bytes), {.file_size = bytes});
    }
    constexpr std::size_t kDamaged = 30;
    for (std::size_t k = 1; k <= kDamaged; ++k) {
      const auto at = calls.size() * k / (kDamaged + 1);
      const auto seed = random();
      out.push_back({command_.name + "/damaged/" + std::to_string(at) + "-" + std::to_string(k), "damaged",
                     [this, at, seed](const fs::path& folder) { return go_on_from_damaged(folder, at, seed); }});
    }
    constexpr int kTimes = 60;
    for (int k = 1; k <= kTimes; ++k) {
      const auto seconds = reference.outcome.seconds * static_cast<double>(random() % 1000 + 1) / 1000;
      add("any time", std::to_string(seconds), {.kill_after = seconds});
    }
    return out;
  }

 private:
  /// Takes a few runs the first time.
  const Reference& reference(const fs::path& folder) const {
    const auto found = references_.find(folder);
    if (found != references_.end()) {
      return found->second;
    }
    Reference out;
    make(scene(), folder);
    for (std::size_t i = 0; i < command_.before.size(); ++i) {
      const bool stopped = !command_.interrupted_at.empty() && i + 1 == command_.before.size();
      prepare(folder, command_.before[i], stopped ? command_.interrupted_at : "");
    }
    out.before = tree_of(folder);
    out.outcome = run_here(folder);
    if (out.outcome.status != 0) {
      throw std::runtime_error("whence " + command_.line + ": " + out.outcome.err);
    }
    const auto after = tree_of(folder);
    make(out.before, folder);
    run_here(folder);
    out.timed = differing(after, tree_of(folder));
    out.after = told(after, out.timed);
    out.untimed_before = told(out.before, out.timed);
    for (const auto& name : differing(after, out.before)) {
      out.largest = std::max(out.largest, after.at(name).size());
    }
    if (const auto wrong = difference(told(tree_of(folder), out.timed), out.after); !wrong.empty()) {
      throw std::runtime_error("whence " + command_.line + ": two runs differ: " + wrong);
    }
    return references_[folder] = out;
  }

  Outcome run_here(const fs::path& folder, Way way = {}) const {
    way.folder = folder;
    return run_tool(settings_, command_.line, way);
  }

  void prepare(const fs::path& folder, const std::string& line, const std::string& interrupted_at) const {
    std::vector<Fault> faults;
    if (!interrupted_at.empty()) {  // by its name: how many calls come before rests on how often training saves itself
      faults.push_back({.kind = Kind::kInterrupt, .file = "." + interrupted_at});
    }
    const auto outcome = run_tool(settings_, line, {.folder = folder, .faults = faults});
    if (outcome.status != (faults.empty() ? 0 : 130)) {
      throw std::runtime_error("whence " + line + ": " + std::to_string(outcome.status) + ": " + outcome.err);
    }
  }

  /// What is wrong with how a disturbed run ended and what it left; nothing where that is as it must be.
  static std::string stopped(const Outcome& outcome, const Tree& left, const Way& way, const Reference& reference) {
    if (outcome.signal == SIGKILL && !outcome.hung) {
      return torn(left, reference);
    }
    const auto* fault = way.faults.empty() ? nullptr : &way.faults.front();
    const bool untidy =
        fault != nullptr && (fault->kind == Kind::kReadOnly || fault->error == EIO);  // what cannot be removed stays
    if (outcome.status == 0) {                                                        // it could do without that call
      return untidy ? torn(left, reference) : difference(told(left, reference.timed), reference.after);
    }
    const bool interrupted = fault != nullptr && fault->kind == Kind::kInterrupt;
    auto wrong = how_it_failed(outcome, interrupted ? 128 + SIGINT : 1);
    wrong = !wrong.empty() || untidy ? wrong : junk(left);
    return wrong.empty() ? torn(left, reference) : wrong;
  }

  std::string attempt(const fs::path& folder, Way way) const {
    const auto& reference = this->reference(folder);
    make(reference.before, folder);
    std::string wrong;
    if (way.faults.empty() && way.file_size == 0 && way.kill_after == 0) {
      way.meanwhile = [&] {
        const auto other = run_here(folder);
        wrong = other.status == 0 ? "" : how_it_failed(other, 1);
      };
    }
    const auto first = run_here(folder, way);
    if (wrong.empty() && way.meanwhile) {  // whichever of the two was refused
      wrong = first.status == 0 ? "" : how_it_failed(first, 1);
    } else if (wrong.empty()) {
      wrong = stopped(first, tree_of(folder), way, reference);
    }
    if (wrong.empty() && !command_.result.empty()) {
      const auto inspected = run_tool(settings_, "inspect " + command_.result, {.folder = folder});
      const bool told_so = inspected.err.find("a run was stopped while it moved its files in") != std::string::npos;
      wrong = inspected.status == 0 || told_so ? "" : "then inspect " + command_.result + ": " + inspected.err;
    }
    if (!wrong.empty()) {
      return wrong;
    }
    const auto again = run_here(folder);
    const bool stays = again.err.find("is there already and stays as it is") != std::string::npos;  // of init
    if (again.status != 0 && !stays) {
      return "again: status " + std::to_string(again.status) + ": " + again.err;
    }
    if (again.err != reference.outcome.err && !stays) {
      return "again, on standard error: " + again.err + " expected: " + reference.outcome.err;
    }
    wrong = difference(told(tree_of(folder), reference.timed), reference.after);
    return wrong.empty() ? wrong : "again: " + wrong;
  }

  /// Killed, and one of the files from which it goes on is changed before it does: the same result, or one line.
  std::string go_on_from_damaged(const fs::path& folder, std::size_t at, std::uint64_t seed) const {
    const auto& reference = this->reference(folder);
    make(reference.before, folder);
    run_here(folder, {.faults = {{Kind::kKill, at}}});
    std::vector<std::string> names;
    for (const auto& [name, bytes] : tree_of(folder)) {
      if (is_between(name) && bytes != "/" && !bytes.empty() && !name.ends_with(".lock") && !name.ends_with("-part")) {
        names.push_back(name);
      }
    }
    if (names.empty()) {
      return {};
    }
    std::mt19937_64 random(seed);
    const auto& name = names[random() % names.size()];
    auto bytes = bytes_of(folder / name);
    const auto place = random() % bytes.size();
    if (random() % 3 == 0) {
      bytes.resize(place);
    } else {
      bytes[place] = static_cast<char>(bytes[place] ^ (1 << random() % 8));
    }
    write(folder / name, bytes);
    const auto again = run_here(folder);
    const auto wrong = again.status == 0 ? difference(told(tree_of(folder), reference.timed), reference.after)
                                         : how_it_failed(again, 1);
    return wrong.empty() ? wrong : name + " at byte " + std::to_string(place) + ": " + wrong;
  }

  const Command& command_;
  const Settings& settings_;
  mutable std::map<fs::path, Reference> references_;  // for each folder, whose path stands in results
};

}  // namespace

bool disturbed(const Settings& settings) {
  bool held = true;
  std::set<std::string> verbs;
  for (const auto& command : kCommands) {
    const bool any = settings.only.find('/') == 0 || settings.only.empty();  // of a kind
    if (!any && settings.only != command.name && !settings.only.starts_with(command.name + "/")) {
      continue;
    }
    try {
      const Sweep sweep(command, settings);
      const bool first = verbs.insert(command.line.substr(0, command.line.find(' '))).second;
      held = run_jobs(command.name, sweep.jobs(), /*sample=*/first ? 2 : 1, settings) && held;
    } catch (const std::runtime_error& error) {
      std::printf("%s: no undisturbed run: %s\n", command.name.c_str(), error.what());
      held = false;
    }
  }
  return held;
}

}  // namespace whence::faults
