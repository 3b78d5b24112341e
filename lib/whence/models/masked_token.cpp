#include "whence/models/detail/token_loss.h"

namespace whence {
namespace {

class MaskedToken : public detail::TokenLoss {
 public:
  explicit MaskedToken(detail::TokenLossOptions options)
      : TokenLoss("masked-token", TargetKind::kMaskedTokens, options) {}
};

}  // namespace

WHENCE_METHOD(Loss, masked_token, MaskedToken, detail::TokenLossOptions)

}  // namespace whence
