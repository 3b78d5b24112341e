#include "icl_uses.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "json.h"
#include "whence/core/error.h"
#include "whence/core/files.h"

namespace whence::cli {
namespace po = boost::program_options;

void IclUses::add_options(CommandLine& line) {
  line.add()                                                                                                  //
      ("detect-noise", po::bool_switch(), "rank the demonstrations whose labels are suspect: suspects.json")  //
      ("curate", po::value<std::int64_t>(), "keep the so many most helpful: curated.json, curated.txt")       //
      ("reorder", po::value<std::string>(),
       "two-highest-first or descending, by self scores: reordered.json, reordered.txt")                              //
      ("orders", po::value<std::int64_t>()->default_value(4), "orders of the prompt that --reorder averages over")    //
      ("select", po::value<std::int64_t>(), "choose so many of --pool for the queries: selected.json, selected.txt")  //
      ("pool", po::value<std::string>(),
       "demonstrations to select from: a task (.json), or one {\"input\", \"output\"} a line (.jsonl)");
}

IclUses::IclUses(const CommandLine& line, const IclSettings& settings, MakeReader reader, Progress progress)
    : line_(line), settings_(settings), reader_(std::move(reader)), progress_(std::move(progress)) {
  if (line.has("select") != line.has("pool")) {
    throw UsageError("--select K and --pool FILE go together");
  }
  if (line.get<std::int64_t>("orders") < 1) {
    throw UsageError(fmt::format("--orders = {}, expected >= 1", line.get<std::int64_t>("orders")));
  }
  if (line.has("reorder")) {
    parse_reordering(line.text("reorder"));
  }
}

void IclUses::apply(const IclResult& result, PromptReader& read, ResultWriter* out, Json& json) const {
  const auto& task = result.task;
  const auto& scores = result.scores;
  const auto needs = [&](const at::Tensor& found, const char* flag, const char* what) {
    if (!found.defined()) {
      throw InvalidArgument(fmt::format("--{}: method {} has no {} scores", flag, settings_.method_name(), what));
    }
  };
  const auto write = [&](const PromptTask& of, const Order& order, const char* name) {
    if (out != nullptr) {
      write_prompt(of, order, *out, name);
    }
  };
  if (out != nullptr && result.advice && !result.advice->drop.empty()) {
    Order kept;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(task.demonstrations.size()); ++i) {
      const auto& drop = result.advice->drop;
      if (std::none_of(drop.begin(), drop.end(), [&](const auto& taken) { return taken.demonstration == i; })) {
        kept.push_back(i);
      }
    }
    write(task, kept, "kept");
  }
  if (line_.flag("detect-noise")) {
    needs(scores.self, "detect-noise", "self");
    auto& list = json["suspects"] = Json::array();
    for (const auto i : suspects(scores.self)) {
      const auto& demonstration = task.demonstrations[static_cast<std::size_t>(i)];
      list.push_back({{"demonstration", i},
                      {"self", scores.self[i].item<double>()},
                      {"input", demonstration.input},
                      {"output", *demonstration.output}});
    }
    if (out != nullptr) {
      write_text(out->place("suspects.json"), json_text(list, 1) + "\n");
    }
  }
  if (line_.has("curate")) {
    needs(scores.test, "curate", "test");
    const auto known = scores.test.isnan().any(1).logical_not().nonzero().squeeze(1);
    if (known.numel() == 0) {
      throw InvalidArgument(fmt::format("task {}: no query has scores, so there is nothing to curate by", task.name));
    }
    const auto kept = curate(scores.test.index_select(0, known), line_.get<std::int64_t>("curate"));
    json["curated"] = kept;
    write(task, kept, "curated");
  }
  if (line_.has("reorder")) {
    const auto arranged = rearranged(result, read);
    json["reordered"] = {{"order", arranged.order}, {"reason", arranged.reason}};
    write(task, arranged.order, "reordered");
  }
  if (line_.has("select")) {
    auto pool = task;
    pool.demonstrations = read_pool(line_.text("pool"));
    const auto selection = select_from(pool, result);
    json["selected"] = {{"chosen", selection.chosen}, {"losses", selection.losses}};
    write(pool, selection.chosen, "selected");
  }
}

/// By self scores that are means over several orders of the prompt.
Arrangement IclUses::rearranged(const IclResult& result, PromptReader& read) const {
  auto self = sum_of_layers(result.by_layer).self.clone();
  Random random(line_.run_options().seed.value_or(0));
  auto moved = result.reading.task;
  const auto orders = line_.get<std::int64_t>("orders");
  for (std::int64_t k = 1; k < orders; ++k) {
    const auto order = random.permutation(self.size(0));
    const auto* first = order.const_data_ptr<std::int64_t>();
    moved.states = read.states_in_order({first, first + order.numel()});
    self += ridge_scores(moved, settings_.self_ridge()).self;
  }
  return reorder(self / static_cast<double>(orders), parse_reordering(line_.text("reorder")));
}

/// The pool is read in prompts of as many demonstrations as the task has: a state depends on what stands before it.
Selection IclUses::select_from(const PromptTask& pool, const IclResult& result) const {
  const auto size = static_cast<std::int64_t>(pool.demonstrations.size());
  const auto part = static_cast<std::int64_t>(result.task.demonstrations.size());
  TensorList states;
  for (std::int64_t begin = 0; begin < size; begin += part) {
    whence::report(progress_, {.phase = "read the pool", .done = begin, .total = size, .detail = {}});
    auto piece = pool;
    piece.demonstrations.assign(pool.demonstrations.begin() + begin,
                                pool.demonstrations.begin() + std::min(size, begin + part));
    Order order(piece.demonstrations.size());
    std::iota(order.begin(), order.end(), std::int64_t{0});
    states.push_back(reader_(piece, result.options).states_in_order(order));
  }
  std::vector<std::string> outputs;
  for (const auto& demonstration : pool.demonstrations) {
    if (std::find(outputs.begin(), outputs.end(), *demonstration.output) == outputs.end()) {
      outputs.push_back(*demonstration.output);
    }
  }
  const auto number = [&](const std::string& output) -> std::int64_t {
    const auto found = std::find(outputs.begin(), outputs.end(), output);
    return found == outputs.end() ? -1 : found - outputs.begin();
  };
  std::vector<std::int64_t> labels, query_labels;
  for (const auto& demonstration : pool.demonstrations) {
    labels.push_back(number(*demonstration.output));
  }
  for (const auto& explained : result.reading.explained) {
    query_labels.push_back(number(explained));
  }
  IclTask task{.labels = at::tensor(labels, at::kLong),
               .classes = static_cast<std::int64_t>(outputs.size()),
               .query_labels = at::tensor(query_labels, at::kLong),
               .states = at::cat(states, 1),
               .query_states = result.reading.task.query_states};
  if (result.reading.task.targets.defined()) {
    std::tie(task.targets, task.query_targets) =
        reader_(pool, result.options).embedded_targets(result.reading.explained);
  }
  return select_demonstrations(task, line_.get<std::int64_t>("select"), settings_.ridge());
}

void IclUses::write_prompt(const PromptTask& task, const Order& order, ResultWriter& out,
                           const std::string& name) const {
  auto kept = task;
  kept.demonstrations.clear();
  std::string text;
  const auto reader = reader_(task, {});
  for (const auto i : order) {
    kept.demonstrations.push_back(task.demonstrations[static_cast<std::size_t>(i)]);
    text += reader.writer().demonstration(static_cast<std::size_t>(i)) + task.separator;
  }
  write_text(out.place(name + ".json"), json_text(to_json(kept), 1) + "\n");
  write_text(out.place(name + ".txt"), text);
}

}  // namespace whence::cli
