#include "truth_ceiling.h"

#include <ATen/ATen.h>

namespace whence::cli {

Json CeilingedTruth::ceiling_of(const at::Tensor& actual, const at::Tensor& other, const Random& random) const {
  if (!other.defined()) {
    return nullptr;
  }
  const auto agreement = ceilinged_agreement(other, actual, {}, statistic_, random);
  return {{name_, json_number(agreement.value)}, {name_ + "-interval-95", json_ends(agreement.interval)}};
}

void CeilingedTruth::add_agreement(Json& row, const at::Tensor& predicted, const at::Tensor& actual,
                                   const at::Tensor& other, const Random& random) const {
  const auto agreement = ceilinged_agreement(predicted, actual, other, statistic_, random);
  row[name_] = json_number(agreement.value);
  row[name_ + "-interval-95"] = json_ends(agreement.interval);
  row["share-of-ceiling"] = json_number(agreement.share);
  row["share-interval-95"] = json_ends(agreement.share_interval);
}

Truth::Figure CeilingedTruth::figure(const Json& row) const { return figure_in(row, name_, name_, good_); }

Truth::Columns CeilingedTruth::columns(const Json& row) const {
  return {{name_, interval_cell(row[name_], row[name_ + "-interval-95"])},
          {"of the ceiling", interval_cell(row["share-of-ceiling"], row["share-interval-95"], "{:.2f}")}};
}

std::vector<std::string> CeilingedTruth::ceiling(const Json& result) const {
  const auto& reached = result["ceiling"];
  if (!reached.is_object()) {
    return {};
  }
  return {"ceiling: another seed", interval_cell(reached[name_], reached[name_ + "-interval-95"]), "1"};
}

bool CeilingedTruth::ceiling_is_chance(const Json& result) const {
  const auto& reached = result["ceiling"];
  return reached.is_object() && !(figure(reached).interval.low > 0);
}

std::string CeilingedTruth::legend(const Json& result) const {
  return ceiling_is_chance(result) ? "another seed is not apart from chance here: no share of such a ceiling is told"
                                   : "";
}

}  // namespace whence::cli
