#include "whence/models/detail/token_loss.h"

namespace whence {
namespace {

class NextToken : public detail::TokenLoss {
 public:
  explicit NextToken(detail::TokenLossOptions options) : TokenLoss("next-token", TargetKind::kNextTokens, options) {}
};

}  // namespace

WHENCE_METHOD(Loss, next_token, NextToken, detail::TokenLossOptions)

}  // namespace whence
