#include "whence/core/registry.h"

#include "whence/models/loss.h"
#include "whence/models/model.h"

// One line a method: X(identifier, name, what it is, where it comes from). The file lib/whence/models/IDENTIFIER.cpp
// ends with WHENCE_METHOD(Base, IDENTIFIER, …).
#define WHENCE_MODELS(X)                                                                                        \
  X(linear, "linear", "one linear layer over the flattened input, starting at zero", "")                        \
  X(mlp, "mlp", "dense layers over the flattened input", "Rumelhart, Hinton and Williams 1986")                 \
  X(convnet, "convnet", "blocks of convolution, activation and 2 x 2 pooling over images", "LeCun et al. 1998") \
  X(transformer, "transformer", "a transformer over tokens, as a Hugging Face directory describes it",          \
    "Vaswani et al. 2017")

#define WHENCE_LOSSES(X)                                                                                       \
  X(cross_entropy, "cross-entropy", "-log softmax(output)[class]", "")                                         \
  X(squared_error, "squared-error", "half the squared distance to the target; a class is its one-hot row", "") \
  X(next_token, "next-token", "-log softmax(output)[next token], summed over a text's predicted tokens", "")   \
  X(masked_token, "masked-token", "the same of the tokens that were hidden", "Devlin et al. 2019")

namespace whence {

#define X(id, name, summary, source) WHENCE_DECLARE_METHOD(Model, id)
WHENCE_MODELS(X)
#undef X
#define X(id, name, summary, source) WHENCE_DECLARE_METHOD(Loss, id)
WHENCE_LOSSES(X)
#undef X

#define X(id, name, summary, source) {name, summary, source, &make_##id, &options_##id},

template <>
std::span<const Method<Model>> methods<Model>() {
  static constexpr Method<Model> table[] = {WHENCE_MODELS(X)};
  return table;
}

template <>
std::string_view room_noun<Model>() {
  return "model";
}

template <>
std::span<const Method<Loss>> methods<Loss>() {
  static constexpr Method<Loss> table[] = {WHENCE_LOSSES(X)};
  return table;
}

template <>
std::string_view room_noun<Loss>() {
  return "loss";
}

#undef X

}  // namespace whence
