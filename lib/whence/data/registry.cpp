#include "whence/data/format.h"

// One line a format: X(id, name, what it is, where it comes from). The file lib/whence/data/ID.cpp ends with
// WHENCE_FORMAT(ID, …); safetensors.cpp being the container, the examples in it are safetensors_examples.cpp's.
#define WHENCE_DATA_FORMATS(X)                                                                                        \
  X(idx, "idx", "arrays of one number type, as MNIST is shipped", "yann.lecun.com/exdb/mnist")                        \
  X(cifar, "cifar", "32 x 32 colour images, binary version", "cs.toronto.edu/~kriz/cifar.html")                       \
  X(csv, "csv", "a table of numbers or texts, comma separated", "RFC 4180")                                           \
  X(tsv, "tsv", "a table of numbers or texts, tab separated, without quoting", "iana.org, tab-separated-values")      \
  X(jsonl, "jsonl", "texts, one JSON object a line", "jsonlines.org")                                                 \
  X(text, "text", "plain text in blocks", "")                                                                         \
  X(safetensors, "safetensors", "tensors `inputs` [N, ...] and `targets` [N] or [N, k]; or texts as `tokens` [N, T]", \
    "the safetensors format specification")

namespace whence {
namespace {

/// The keys of a format stand where other rooms' methods have options. A format itself takes none in its spec.
template <std::unique_ptr<DataFormat> (*make)(std::string_view)>
std::vector<OptionInfo> keys_of(std::string_view options) {
  return make(options)->keys();
}

}  // namespace

#define X(id, name, summary, source) std::unique_ptr<DataFormat> make_##id(std::string_view options);
WHENCE_DATA_FORMATS(X)
#undef X

template <>
Room<DataFormat>& room_of<DataFormat>() {
#define X(id, name, summary, source) {name, summary, source, &make_##id, &keys_of<make_##id>},
  static Room<DataFormat> room{"data format", {WHENCE_DATA_FORMATS(X)}};
#undef X
  return room;
}

}  // namespace whence
