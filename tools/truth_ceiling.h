#pragma once
#include "truth.h"
#include "whence/evaluate/lds.h"

namespace whence::cli {

/// A truth of trainings that agreement is measured with, beside what the same trainings with another seed agree with
/// it: the ceiling of every method.
class CeilingedTruth : public Truth {
 public:
  Figure figure(const Json& row) const override;
  Columns columns(const Json& row) const override;
  std::vector<std::string> ceiling(const Json& result) const override;
  bool ceiling_is_chance(const Json& result) const override;
  std::string legend(const Json& result) const override;

 protected:
  /// The agreement's name in evaluation.json, what it is, and from where on it is a good one.
  CeilingedTruth(std::string name, PairStatistic statistic, double good)
      : name_(std::move(name)), statistic_(std::move(statistic)), good_(good) {}
  /// `other`: the measurements with another seed, undefined where there are none.
  Json ceiling_of(const at::Tensor& actual, const at::Tensor& other, const Random& random) const;
  void add_agreement(Json& row, const at::Tensor& predicted, const at::Tensor& actual, const at::Tensor& other,
                     const Random& random) const;

 private:
  std::string name_;
  PairStatistic statistic_;
  double good_;
};

}  // namespace whence::cli
