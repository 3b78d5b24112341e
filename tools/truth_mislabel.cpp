// Labels that were changed, and the stage trained on them: do a method's scores find them?
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "say.h"
#include "truth.h"
#include "whence/core/seconds.h"
#include "whence/evaluate/lds.h"
#include "whence/evaluate/suspects.h"
#include "whence/evaluate/verdict.h"

namespace whence {
namespace cli {
namespace {

class Mislabelled : public Truth {
 public:
  explicit Mislabelled(NoOptions) {}
  std::vector<std::string> flags() const override { return {"fraction", "optimizer", "train-from"}; }

  void check_method(const ListedMethod& method) const override {
    if (method.unrolled) {
      throw InvalidArgument("mislabelled examples are looked for by self-influence, a query of every example");
    }
  }

  std::optional<Json> compare(Comparison& at) const override {
    const auto fraction = at.line().given("fraction") ? at.line().get<double>("fraction") : 0.1;
    const Chain before(at.chain().begin(), at.chain().begin() + static_cast<std::ptrdiff_t>(at.stage_index()));
    const auto begun = at.trainings().begin(at.stage_index(), before);
    auto noisy = mislabel(begun, fraction, at.random().stream("labels"));
    if (at.line().flag("plan")) {
      const auto one = at.trainings().time(1, 20);
      const bool ends = !std::isnan(one.at_most);
      at.tell_plan(
          {{"against", at.line().text("against")},
           {"trainings", 1},
           {"kept-trainings", 0},
           {"seconds-a-training", one.seconds},
           {"side-by-side", 1},
           {"seconds", ends ? Json(one.at_most) : Json(nullptr)},
           {"scoring-seconds", nullptr}},
          fmt::format("1 training of {}: {}about {}; the methods' scores are not counted", printable(begun.name),
                      ends ? "" : "more than ", duration_words(ends ? one.at_most : one.seconds)));
      return std::nullopt;
    }
    at.trainings().check_reference(at.progress());
    const auto start = Clock::now();
    TrainingSummary summary;
    {
      const Progress named = [&](ProgressEvent event) {
        event.phase += " " + noisy.stage.name + " with wrong labels";
        report(at.progress(), event);
      };
      summary = at.trainings().train(noisy.stage, named);
    }
    const double training_seconds = seconds_since(start);
    auto chain = before;
    chain.push_back(noisy.stage);
    const bool last = at.stage_index() + 1 == at.chain().size();
    const auto flipped = to_numbers(noisy.flipped);
    const std::vector<double> shares{0.05, 0.1, 0.2, 0.3, 0.5};
    Json out{{"fraction", fraction},
             {"mislabelled", noisy.flipped.sum().item<std::int64_t>()},
             {"examples", at.data().size()},
             {"seconds-a-training", training_seconds},
             {"largest-gradient-norm", summary.gradient_norm},
             {"unconverged-trainings", summary.converged ? 0 : 1}};
    out.update(at.trainings().told());
    const auto add = [&](const std::string& name, const std::string& by, const at::Tensor& suspicion, double seconds) {
      const PairStatistic statistic = [](std::span<const double> x, std::span<const double> y) {
        std::vector<bool> positive;
        std::transform(y.begin(), y.end(), std::back_inserter(positive), [](double v) { return v > 0; });
        return auroc(x, positive);
      };
      const auto x = to_numbers(suspicion);
      auto draws = at.random().stream("bootstrap");
      Json row{{"method", name},
               {"by", by},
               {"auroc", json_number(statistic(x, flipped))},
               {"auroc-interval-95", json_ends(bootstrap(x, flipped, statistic, draws, 200))},
               {"found", Json::array()},
               {"seconds", seconds}};
      for (const double share : shares) {
        row["found"].push_back({{"inspected", share}, {"found", found_among_first(suspicion, noisy.flipped, share)}});
      }
      out["table"].push_back(std::move(row));
    };
    for (const auto& method : at.methods()) {
      report(at.progress(), {"score by " + method.name, 0, 0, ""});
      const auto began = Clock::now();
      at::Tensor suspicion;
      std::string by = "self";
      if (method.attributor) {
        try {
          suspicion = -at.self_scores(method, chain);
        } catch (const InvalidArgument&) {  // a method to which every example is the same to itself
        }
      }
      if (!suspicion.defined() && last) {
        by = "queries";
        suspicion = at.scores(method, chain).mean(0) * -outcome_sign(at.measurement());
      }
      end_progress();
      if (suspicion.defined()) {
        add(method.name, by, suspicion, seconds_since(began));
      }
    }
    const auto began = Clock::now();
    const auto losses = measure_all(Measurement::kLoss, noisy.stage, noisy.stage.objective.data());
    add("loss", "self", losses, seconds_since(began));
    return out;
  }

  Figure figure(const Json& row) const override { return figure_in(row, "auroc", "AUROC", 0.9); }
  std::string more() const override { return "examples or a larger --fraction"; }
  Columns columns(const Json& row) const override {
    Columns out{{"by", row["by"].get<std::string>()}, {"auroc", interval_cell(row["auroc"], row["auroc-interval-95"])}};
    for (const auto& at : row["found"]) {
      out.emplace_back(fmt::format("in {:g} %", 100 * at["inspected"].get<double>()),
                       number_cell(at["found"], "{:.2f}"));
    }
    return out;
  }
  std::string legend(const Json& result) const override {
    return fmt::format("the share of {} changed labels that is found in the first part of {} examples",
                       result["mislabelled"].get<std::int64_t>(), result["examples"].get<std::int64_t>());
  }
};

}  // namespace
}  // namespace cli

WHENCE_METHOD(cli::Truth, mislabel, cli::Mislabelled, NoOptions)

}  // namespace whence
