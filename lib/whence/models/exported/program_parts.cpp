// What a program's nodes write into, and the program cut in two by what its inputs have a part in.
#include <algorithm>
#include <numeric>

#include "whence/models/exported/detail/program.h"

namespace whence::detail {
namespace {

/// The alias sets of a schema's argument or return, those of a list's elements too.
void add_sets(const c10::AliasInfo& info, std::set<c10::Symbol>& out) {
  out.insert(info.beforeSets().begin(), info.beforeSets().end());
  for (const auto& part : info.containedTypes()) {
    add_sets(part, out);
  }
}
std::set<c10::Symbol> alias_sets(const c10::Argument& argument) {
  std::set<c10::Symbol> out;
  if (argument.alias_info() != nullptr) {
    add_sets(*argument.alias_info(), out);
  }
  return out;
}

}  // namespace

void Program::find_writes() {
  std::vector<int> root(static_cast<std::size_t>(slots_));  // whose memory a slot's tensor may be
  for (int slot = 0; slot < slots_; ++slot) {
    root[static_cast<std::size_t>(slot)] = slot;
  }
  std::map<int, std::vector<std::size_t>> makers, readers;  // of each root, nodes so far
  for (std::size_t n = 0; n < nodes_.size(); ++n) {
    const auto& node = nodes_[n];
    std::set<int> written, passed_on;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      for (const auto slot : node.inputs[i].reads()) {
        const auto of = root[static_cast<std::size_t>(slot)];
        if (node.schema == nullptr) {
          passed_on.insert(of);  // a branch may give back what it was given
          continue;
        }
        const auto& argument = node.schema->arguments()[i];
        const auto sets = alias_sets(argument);
        if (argument.alias_info() != nullptr && argument.alias_info()->isWrite()) {
          written.insert(of);
        }
        bool returned = node.operation().ends_with("dropout");  // which gives back its input where it does nothing
        for (const auto& value : node.schema->returns()) {
          const auto other = alias_sets(value);
          returned = returned || std::any_of(sets.begin(), sets.end(), [&](auto s) { return other.count(s) > 0; });
        }
        if (returned) {
          passed_on.insert(of);
        }
      }
    }
    for (const auto of : written) {
      touches_.push_back({n, of, true});
      if (of < std::ssize(inputs_)) {
        written_inputs_.emplace(of, &nodes_[n]);
      }
      for (const auto maker : makers[of]) {
        nodes_[maker].output_written = true;
      }
      for (const auto reader : readers[of]) {
        nodes_[reader].input_written = true;
      }
      makers[of].clear();  // which are all marked
      readers[of].clear();
    }
    for (const auto& input : node.inputs) {
      for (const auto slot : input.reads()) {
        readers[root[static_cast<std::size_t>(slot)]].push_back(n);
        touches_.push_back({n, root[static_cast<std::size_t>(slot)], false});
      }
    }
    for (const auto of : passed_on) {
      may_be_one_.emplace_back(*passed_on.begin(), of);
    }
    for (const auto slot : node.outputs) {
      if (!passed_on.empty()) {
        root[static_cast<std::size_t>(slot)] = *passed_on.begin();
      }
      makers[root[static_cast<std::size_t>(slot)]].push_back(n);
      touches_.push_back({n, root[static_cast<std::size_t>(slot)], false});
    }
  }
}

Program::Parts Program::parts(const std::set<int>& moving_inputs) const {
  std::vector<int> joined(static_cast<std::size_t>(slots_));
  std::iota(joined.begin(), joined.end(), 0);
  const auto memory = [&](int slot) {
    while (joined[static_cast<std::size_t>(slot)] != slot) {
      slot = joined[static_cast<std::size_t>(slot)];
    }
    return slot;
  };
  for (const auto& [a, b] : may_be_one_) {
    joined[static_cast<std::size_t>(memory(b))] = memory(a);
  }
  std::vector<bool> moving(nodes_.size());
  constexpr int kMostRounds = 16;  // then none is found to be fixed
  bool grew = true;
  for (int round = 0; grew && round < kMostRounds; ++round) {
    grew = false;
    const auto move = [&](std::size_t n) {
      grew = grew || !moving[n];
      moving[n] = true;
    };
    auto moved = moving_inputs;
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      for (const auto& input : nodes_[n].inputs) {
        for (const auto slot : input.reads()) {
          if (moved.count(slot) > 0) {
            move(n);
          }
        }
      }
      if (moving[n]) {
        moved.insert(nodes_[n].outputs.begin(), nodes_[n].outputs.end());
      }
    }
    std::set<int> seen, written;       // memory that a moving node has used so far, and what is written into too late
    for (const auto slot : inputs_) {  // which are there before
      seen.insert(memory(slot));
    }
    for (const auto& touch : touches_) {
      const auto of = memory(touch.memory);
      if (touch.writes && (moving[touch.node] || seen.count(of) > 0)) {
        written.insert(of);
      }
      if (moving[touch.node]) {
        seen.insert(of);
      }
    }
    for (const auto& touch : touches_) {
      if (written.count(memory(touch.memory)) > 0) {
        move(touch.node);
      }
    }
  }
  if (grew) {
    moving.assign(moving.size(), true);
  }
  Parts out{*this, *this};
  std::vector<int> made;
  std::set<int> wanted;
  for (const auto& output : outputs_) {
    const auto reads = output.reads();
    wanted.insert(reads.begin(), reads.end());
  }
  out.fixed.nodes_.clear();
  out.moving.nodes_.clear();
  for (std::size_t n = 0; n < nodes_.size(); ++n) {
    auto& nodes = (moving[n] ? out.moving : out.fixed).nodes_;
    nodes.push_back(nodes_[n]);
    nodes.back().done.clear();
    for (const auto& input : nodes_[n].inputs) {
      const auto reads = input.reads();
      wanted.insert(reads.begin(), moving[n] ? reads.end() : reads.begin());
    }
    if (!moving[n]) {
      made.insert(made.end(), nodes_[n].outputs.begin(), nodes_[n].outputs.end());
    }
  }
  out.fixed.outputs_.clear();
  for (const auto slot : made) {
    if (wanted.count(slot) > 0) {
      out.fixed.outputs_.push_back(Operand::of_slot(slot));
      out.moving.inputs_.push_back(slot);
    }
  }
  out.fixed.find_last_uses();
  out.moving.find_last_uses();
  return out;
}

}  // namespace whence::detail
