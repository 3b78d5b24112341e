// Each input of a result is changed, and each command that reads the result is given again: it tells of the change, in
// a line that it does not print otherwise, or what it leaves is what it would make of the changed inputs from nothing.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>

#include "faults/scenarios.h"
#include "faults/scene.h"
#include "faults/tree.h"

namespace whence::faults {
namespace fs = std::filesystem;
namespace {

using Strings = std::vector<std::string>;

const std::string kOptions =
    " p.toml --stage all --queries test --quiet --out out --curvature ekfac:factors=factors --solver ekfac";
const std::string kTrain = "train p.toml --quiet", kRank = "rank" + kOptions, kScore = "score" + kOptions,
                  kSegment =
                      "score p.toml --stage all --queries test --quiet --out segment --response segment "
                      "--curvature gauss-newton",
                  kEvaluate = "evaluate p.toml --stage finetune --scores out --examples 2 --quiet",
                  kReport = "report out --quiet";

struct Reader {
  std::string name, line;
  Strings fresh;    // commands that make, from nothing, what it leaves
  Strings outputs;  // of which these are compared; where there are none, every change must be told
  Strings ignores;  // what it does not read, or makes again: parts of a file, and a change
};
const std::vector<Reader> kReaders{
    {"train",
     kTrain,
     {kTrain},
     {"run/pretrain.safetensors", "run/finetune.safetensors"},
     {"out/", "segment/", "factors/", ".snapshot-", "csv, removed", "run/finetune.safetensors, a bit"}},
    {"rank", kRank, {kRank}, {"out/scores.safetensors", "out/ranking.jsonl"}, {"segment/"}},
    {"score", kScore, {kScore}, {"out/scores.safetensors"}, {"segment/"}},
    {"score by segments", kSegment, {kSegment}, {"segment/scores.safetensors"}, {"out/", "factors/"}},
    {"evaluate", kEvaluate, {kRank, kEvaluate}, {"out/evaluation.json"}, {"segment/", "factors/", ".snapshot-"}},
    {"report",
     kReport,
     {},
     {},
     {"segment/", "factors/", ".snapshot-", "out/bank/", "out/scores.safetensors", "out/evaluation.svg",
      "out/report.html, removed", "out/evaluation.json, removed"}},  // as before one was made
    {"inspect",
     "inspect out",
     {},
     {},
     {"segment/", "factors/", "run/", "out/bank/", ".csv", ".toml"}}};  // says what the folder holds

struct Change {
  std::string name;
  std::string file;
  std::function<std::string(const std::string& bytes)> edit;
  Strings words;           // one of them stands in what is told
  bool of_result = false;  // which runs from nothing do not find
};

/// Whether commands that read checkpoints make it.
bool is_result(const std::string& name) {
  const auto folder = name.substr(0, name.find('/'));
  return folder == "out" || folder == "segment" || folder == "factors";
}

std::string flip(std::string bytes, double place) {
  const auto at = static_cast<std::size_t>(static_cast<double>(bytes.size() - 1) * place);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  return bytes;
}

auto flipped(double place) {
  return [place](const std::string& bytes) { return flip(bytes, place); };
}

auto replaced(const std::string& from, const std::string& to) {
  return [=](std::string bytes) {
    const auto at = bytes.rfind(from);
    if (at == bytes.npos) {
      throw std::runtime_error("no " + from + " to replace");
    }
    return bytes.replace(at, from.size(), to);
  };
}

const std::string kRemoved = "removed";

std::string gone(const std::string&) { return {}; }  // the file is removed

/// Another number in the first row, as long as the old one.
std::string other_number(std::string bytes) {
  const auto at = bytes.find('.', bytes.find('\n'));
  bytes[at + 1] = bytes[at + 1] == '5' ? '6' : '5';
  return bytes;
}

/// The other label in the first row.
std::string other_label(std::string bytes) {
  const auto row = bytes.find('\n') + 1, at = bytes.rfind(',', bytes.find('\n', row)) + 1;
  return bytes.replace(at, bytes.find('\n', at) - at, bytes.compare(at, 3, "yes") == 0 ? "no" : "yes");
}

std::vector<Change> changes_of(const Tree& base) {
  std::vector<Change> out;
  for (const std::string data : {"pretrain.csv", "finetune.csv", "queries.csv"}) {
    out.push_back({"a number", data, other_number, {data}});
    out.push_back({"a label", data, other_label, {data}});
    out.push_back({kRemoved, data, gone, {data}});
  }
  out.push_back(
      {"weight decay", "p.toml", replaced("weight-decay = 1e-2", "weight-decay = 2e-2"), {"p.toml", "weight-decay"}});
  out.push_back({"optimizer", "p.toml", replaced("epochs=4", "epochs=5"), {"p.toml", "optimizer"}});
  out.push_back({"tuning", "p.toml", replaced("proximity=0.1", "proximity=0.2"), {"p.toml", "tuning"}});
  out.push_back({"seed", "p.toml", replaced("seed = 3", "seed = 4"), {"p.toml", "seed"}});
  out.push_back(
      {"queries", "p.toml", replaced("file = \"queries.csv\"", "file = \"queries.csv\", limit = 3"), {"p.toml"}});
  out.push_back({"snapshots", "p.toml", replaced("snapshots = 2", "snapshots = 3"), {"p.toml", "snapshot"}});
  for (const auto& [name, bytes] : base) {
    const bool of_result = is_result(name);
    if (bytes == "/" || !(of_result || name.starts_with("run/"))) {
      continue;
    }
    const auto plain = fs::path(name).filename().string();
    const Strings words{plain, "out/run.json", "stage " + fs::path(name).stem().string() + " has other weights"};
    for (const double place : {0.1, 0.5, 1.0}) {
      out.push_back({"a bit at " + std::to_string(place).substr(0, 3), name, flipped(place), words, of_result});
    }
    out.push_back(
        {"cut", name, [](const std::string& all) { return all.substr(0, all.size() / 2); }, words, of_result});
    out.push_back({kRemoved, name, gone, {plain, "run/", "out"}, of_result});
  }
  return out;
}

/// The lines of `text` that `usual` lacks.
std::string new_lines(const std::string& text, const std::string& usual) {
  std::istringstream in(text);
  std::string out;
  for (std::string line; std::getline(in, line);) {
    out += usual.find(line + "\n") == usual.npos ? line + "\n" : "";
  }
  return out;
}

bool any_in(const Strings& words, const std::string& text) {
  return std::any_of(words.begin(), words.end(), [&](const std::string& word) { return text.find(word) != text.npos; });
}

class Matrix {
 public:
  explicit Matrix(const Settings& settings) : settings_(settings) {}

  std::vector<Job> jobs() const {
    std::vector<Job> out;
    for (const auto& change : changes_of(base(worker_folder(0)).tree)) {
      for (const auto& reader : kReaders) {
        if (any_in(reader.ignores, change.file + ", " + change.name)) {
          continue;
        }
        const auto& kind = reader.name;
        out.push_back({"changed/" + kind + "/" + change.file + ", " + change.name, kind,
                       [this, change, &reader](const fs::path& folder) { return attempt(folder, change, reader); }});
      }
    }
    return out;
  }

 private:
  /// A result with all that it rests on, and what readers say of it.
  struct Base {
    Tree tree;
    std::map<std::string, Outcome> usual;
  };

  /// Takes some runs the first time.
  const Base& base(const fs::path& folder) const {
    const auto found = bases_.find(folder);
    if (found != bases_.end()) {
      return found->second;
    }
    make(scene(), folder);
    for (const auto* line : {&kTrain, &kSegment, &kRank, &kEvaluate, &kReport}) {
      if (const auto made = run_tool(settings_, *line, {.folder = folder}); made.status != 0) {
        throw std::runtime_error("whence " + *line + ": " + made.err);
      }
    }
    Base out{tree_of(folder), {}};
    for (const auto& reader : kReaders) {
      make(out.tree, folder);
      out.usual[reader.line] = run_tool(settings_, reader.line, {.folder = folder});
    }
    return bases_[folder] = out;
  }

  static void apply(const Change& change, const fs::path& folder) {
    const auto path = folder / change.file;
    if (const auto bytes = change.edit(bytes_of(path)); bytes.empty()) {
      fs::remove(path);
    } else {
      write(path, bytes);
    }
  }

  std::string attempt(const fs::path& folder, const Change& change, const Reader& reader) const {
    const auto& base = this->base(folder);
    make(base.tree, folder);
    apply(change, folder);
    const auto again = run_tool(settings_, reader.line, {.folder = folder});
    if (again.status != 0 && again.status != 1) {
      return how_it_failed(again, 1);
    }
    if (again.status == 1) {
      if (auto wrong = how_it_failed(again, 1); !wrong.empty()) {
        return wrong;
      }
    }
    const auto told = new_lines(again.err, base.usual.at(reader.line).err);
    if (any_in(change.words, told)) {
      return {};
    }
    if (again.status == 1) {
      return "does not name what changed: " + again.err;
    }
    if (reader.fresh.empty()) {
      return "not told";
    }
    const auto wrong = apart_from_fresh(tree_of(folder), folder, change, reader);
    return wrong.empty() ? wrong : "not told, and not as from nothing: " + wrong;
  }

  /// Where results differ from those that the changed inputs give in a folder without any.
  std::string apart_from_fresh(const Tree& found, const fs::path& folder, const Change& change,
                               const Reader& reader) const {
    Tree inputs;
    const bool trains = reader.line == kTrain;
    for (const auto& [name, bytes] : base(folder).tree) {
      if (!is_result(name) && !(trains && name.starts_with("run"))) {
        inputs[name] = bytes;
      }
    }
    make(inputs, folder);
    if (!change.of_result && !(trains && change.file.starts_with("run/"))) {
      apply(change, folder);
    }
    for (const auto& line : reader.fresh) {
      if (const auto made = run_tool(settings_, line, {.folder = folder}); made.status != 0) {
        return "whence " + line + " from nothing: " + made.err;
      }
    }
    const auto ours = told(found, {}), theirs = told(tree_of(folder), {});
    std::string out;
    for (const auto& name : reader.outputs) {
      const auto at = [&](const Tree& tree) { return tree.contains(name) ? tree.at(name) : "nothing"; };
      out += difference({{name, at(ours)}}, {{name, at(theirs)}});
    }
    return out;
  }

  const Settings& settings_;
  mutable std::map<fs::path, Base> bases_;  // for each folder, whose path stands in results
};

}  // namespace

bool changed(const Settings& settings) {
  constexpr std::size_t kSample = 10;
  return run_scenario<Matrix>("changed", kSample, settings);
}

}  // namespace whence::faults
