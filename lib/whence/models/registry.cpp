#include "whence/core/room.h"
#include "whence/models/loss.h"
#include "whence/models/model.h"

// One line a method: X(identifier, name, what it is, where it comes from). The file lib/whence/models/IDENTIFIER.cpp
// ends with WHENCE_METHOD(Base, IDENTIFIER, …).
#define WHENCE_MODELS(X)                                                                                        \
  X(linear, "linear", "one linear layer over the flattened input, starting at zero", "")                        \
  X(mlp, "mlp", "dense layers over the flattened input", "Rumelhart, Hinton and Williams 1986")                 \
  X(convnet, "convnet", "blocks of convolution, activation and 2 x 2 pooling over images", "LeCun et al. 1998") \
  X(transformer, "transformer", "a transformer over tokens, as a Hugging Face directory describes it",          \
    "Vaswani et al. 2017")                                                                                      \
  X(vit, "vit", "a transformer over patches of images, as a Hugging Face directory describes it",               \
    "Dosovitskiy et al. 2021")                                                                                  \
  X(exported, "exported", "any model that torch.export.save wrote", "Ansel et al. 2024")

#define WHENCE_LOSSES(X)                                                                                       \
  X(cross_entropy, "cross-entropy", "-log softmax(output)[class], or of shares of the classes", "")            \
  X(binary_cross_entropy, "binary-cross-entropy",                                                              \
    "-log of the probability of each output's event by itself, summed; a class is its one-hot row", "")        \
  X(squared_error, "squared-error", "half the squared distance to the target; a class is its one-hot row", "") \
  X(next_token, "next-token", "-log softmax(output)[next token], summed over a text's predicted tokens", "")   \
  X(masked_token, "masked-token", "the same of the tokens that were hidden", "Devlin et al. 2019")             \
  X(exported_loss, "exported", "what an exported model gives, which makes its loss of all its inputs", "")

namespace whence {

WHENCE_ROOM(Model, "model", WHENCE_MODELS)
WHENCE_ROOM(Loss, "loss", WHENCE_LOSSES)

}  // namespace whence
