// Examples that a query is known to come from, by a column that has the same of both.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "say.h"
#include "truth.h"
#include "whence/data/example_column.h"
#include "whence/evaluate/lds.h"
#include "whence/evaluate/suspects.h"

namespace whence {
namespace cli {
namespace {

class KnownSources : public Truth {
 public:
  explicit KnownSources(NoOptions) {}
  std::vector<std::string> flags() const override { return {"source-column"}; }

  void check_flags(const CommandLine& line) const override { line.required("source-column"); }
  bool trains() const override { return false; }

  std::optional<Json> compare(Comparison& at) const override {
    const auto column = at.line().text("source-column");
    const auto file = read_pipeline_file(at.pipeline().path());
    const auto folder = at.pipeline().path().parent_path();
    const auto split = at.split();
    const auto of_examples = read_example_column(file.stages[at.stage_index()].train, folder, column, at.data());
    const auto of_queries = read_example_column(file.queries.at(split), folder, column, at.queries());
    std::vector<at::Tensor> sources;
    std::vector<std::int64_t> kept;
    for (std::size_t q = 0; q < of_queries.size(); ++q) {
      auto is = at::zeros({at.data().size()}, at::kBool);
      for (std::size_t i = 0; i < of_examples.size(); ++i) {
        if (of_examples[i] == of_queries[q]) {
          is[static_cast<std::int64_t>(i)] = true;
        }
      }
      if (is.any().item<bool>()) {
        sources.push_back(is);
        kept.push_back(static_cast<std::int64_t>(q));
      }
    }
    if (kept.empty()) {
      throw InvalidArgument(fmt::format("--source-column {}: no example of {} has what it says of a query, as {:?}",
                                        column, at.stage().name, of_queries.front()));
    }
    if (at.line().flag("plan")) {
      const auto scoring = at.scoring_plan();
      at.tell_plan({{"against", at.line().text("against")},
                    {"trainings", 0},
                    {"kept-trainings", 0},
                    {"seconds-a-training", nullptr},
                    {"side-by-side", nullptr},
                    {"seconds", 0},
                    {"scoring-seconds", scoring}},
                   fmt::format("no trainings: {} methods, {} queries with sources\ntime    {}", at.methods().size(),
                               kept.size(), scoring_text(scoring)));
      return std::nullopt;
    }
    const std::vector<std::int64_t> ks{1, 5, 10, 50};
    Json out{{"source-column", column}, {"queries-with-sources", kept.size()}};
    for (const auto& method : at.scored()) {
      std::vector<double> ranks;
      std::vector<double> recalls(ks.size(), 0.0);
      for (std::size_t i = 0; i < kept.size(); ++i) {
        const auto of = recall_of(method.scores[kept[i]] * outcome_sign(at.measurement()), sources[i], ks);
        ranks.push_back(of.reciprocal_rank);
        for (std::size_t k = 0; k < ks.size(); ++k) {
          recalls[k] += of.recall[k] / static_cast<double>(kept.size());
        }
      }
      const auto mrr = mean_interval(at::tensor(ranks, at::kDouble), at.random().stream("bootstrap"));
      Json row{{"method", method.method}, {"mrr", mrr.mean}, {"mrr-interval-95", json_ends(mrr.interval)}};
      for (std::size_t k = 0; k < ks.size(); ++k) {
        row[fmt::format("recall@{}", ks[k])] = recalls[k];
      }
      row["seconds"] = method.seconds;
      out["table"].push_back(std::move(row));
    }
    return out;
  }

  Figure figure(const Json& row) const override { return figure_in(row, "mrr", "mean reciprocal rank", 0.5); }
  std::string more() const override { return "queries"; }
  Columns columns(const Json& row) const override {
    Columns out{{"mrr", interval_cell(row["mrr"], row["mrr-interval-95"])}};
    for (const auto& [key, found] : row.items()) {
      if (key.starts_with("recall@")) {
        out.emplace_back(key, number_cell(found));
      }
    }
    return out;
  }
};

}  // namespace
}  // namespace cli

WHENCE_METHOD(cli::Truth, recall, cli::KnownSources, NoOptions)

}  // namespace whence
