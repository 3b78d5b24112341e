#pragma once
#include "whence/core/described.h"
#include "whence/models/loss.h"

namespace whence::detail {

struct TokenLossOptions {
  bool mean = false;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("mean", self.mean, kAny, "divide an example's loss by the number of its predicted tokens");
  }
};

/// -log softmax(output)[token], summed over each example's predicted tokens: next-token and masked-token, which differ
/// in what the data predicts.
class TokenLoss : public Loss, public Described {
 public:
  TokenLoss(const char* name, TargetKind wants, TokenLossOptions options)
      : name_(name), wants_(wants), options_(options) {}

  std::string description() const override { return options_text(options_); }
  TargetKind wants() const override { return wants_; }
  at::Tensor per_example(const at::Tensor& output, const Batch& batch) const override;
  at::Tensor hessian_product(const at::Tensor& output, const Batch& batch, const at::Tensor& u) const override;
  at::Tensor hessian_root(const at::Tensor& output, const Batch& batch) const override;
  at::Tensor sampled_gradient(const at::Tensor& output, const Batch& batch, const at::Tensor& noise) const override;
  std::int64_t noise_width(std::int64_t) const override { return 1; }

 private:
  /// What each prediction's loss counts: [M].
  at::Tensor shares(const at::Tensor& output, const Batch& batch) const;

  const char* name_;
  TargetKind wants_;
  TokenLossOptions options_;
};

}  // namespace whence::detail
