#include "icl_doubts.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <map>

#include "whence/core/error.h"
#include "whence/evaluate/statistics.h"

namespace whence::cli {
namespace {

/// The first of several, and how many more.
struct Cases {
  std::string first;
  std::size_t count = 0;
  void add(const std::string& text) { first = count++ == 0 ? text : first; }
  void tell(std::vector<std::string>& out, const std::string& meaning) const {
    if (count > 0) {
      out.push_back(first + (count > 1 ? fmt::format(" (and {} more like this)", count - 1) : "") + meaning);
    }
  }
};

double rank_correlation(const at::Tensor& a, const at::Tensor& b) {
  const auto x = a.contiguous(), y = b.contiguous();
  const auto n = static_cast<std::size_t>(x.numel());
  return spearman({x.const_data_ptr<double>(), n}, {y.const_data_ptr<double>(), n});
}

}  // namespace

std::vector<std::string> doubts_of(const PromptTask& task) {
  std::map<std::string, std::size_t> seen;
  Cases same, contradicting, asked;
  for (std::size_t i = 0; i < task.demonstrations.size(); ++i) {
    const auto& demonstration = task.demonstrations[i];
    const auto [found, fresh] = seen.emplace(demonstration.input, i);
    if (fresh) {
      continue;
    }
    const auto& before = task.demonstrations[found->second];
    if (before.output == demonstration.output) {
      same.add(fmt::format("demonstrations {} and {} are the same", found->second, i));
    } else {
      contradicting.add(fmt::format("demonstrations {} and {} have the same input but the outputs \"{}\" and \"{}\"",
                                    found->second, i, *before.output, *demonstration.output));
    }
  }
  for (std::size_t j = 0; j < task.queries.size(); ++j) {
    if (const auto found = seen.find(task.queries[j].input); found != seen.end()) {
      asked.add(fmt::format("query {} has the input of demonstration {}", j, found->second));
    }
  }
  std::vector<std::string> out;
  same.tell(out, ": such share what either does");
  contradicting.tell(out, ": one of them is wrong");
  asked.tell(out, ": the prompt holds its answer, so its scores say little of other inputs");
  if (task.demonstrations.size() == 1) {
    out.emplace_back(
        "1 demonstration: scores compare demonstrations with each other; --verify asks the model without it");
  }
  return out;
}

std::vector<std::string> doubts_of(const PromptTask& task, const PromptReading& reading) {
  std::vector<std::string> out;
  if (reading.outputs.size() == 1 && task.demonstrations.size() > 1) {
    out.push_back(fmt::format("every demonstration's output is \"{}\": no score can tell them apart by what they teach",
                              reading.outputs[0]));
  }
  if (reading.task.targets.defined()) {
    return out;
  }
  for (std::size_t j = 0; j < task.queries.size(); ++j) {
    if (reading.task.query_labels[static_cast<std::int64_t>(j)].item<std::int64_t>() < 0) {
      out.push_back(fmt::format("query {} has no scores: its {}", j,
                                unknown_name("output", reading.explained[j], reading.outputs)));
    }
  }
  return out;
}

std::vector<std::string> doubts_of(const IclTask& task, const IclScores& scores, const RidgeOptions& options,
                                   bool self) {
  constexpr double kSameOrder = 0.2;
  std::vector<std::string> out;
  if (!options.regulariser || task.demonstrations() < 3) {
    return out;
  }
  auto plain = options;
  plain.regulariser = false;
  const auto truth = ridge_scores(task, plain);
  if (const double found = rank_correlation(scores.self, truth.self); self && found < kSameOrder) {
    out.push_back(fmt::format(
        "self: the regulariser's term outweighs the residual (rank correlation with the scores without it "
        "{:.2f}), so wrong labels come last; type --self-lambda 1e-9, or leave regulariser=true or --preset detail out",
        found));
  }
  if (const double found = rank_correlation(scores.test.nanmean(0), truth.test.nanmean(0)); found < kSameOrder) {
    out.push_back(
        fmt::format("test: the regulariser's term outweighs the residual (rank correlation with the scores without it "
                    "{:.2f}), so helpful and harmful change places; leave regulariser=true or --preset detail out",
                    found));
  }
  return out;
}

}  // namespace whence::cli
