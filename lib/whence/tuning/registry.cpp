#include "whence/tuning/tuning.h"

// One line a tuning: X(id, name, what it is, where it comes from). The file lib/whence/tuning/ID.cpp ends with
// WHENCE_METHOD(Tuning, ID, …).
#define WHENCE_TUNINGS(X)                                                                                    \
  X(full, "full", "train every parameter, with a pull of the body towards the parent's", "Chen et al. 2020") \
  X(head, "head", "train the head alone on the parent's body", "Chen et al. 2020")

namespace whence {

#define X(id, name, summary, source) WHENCE_DECLARE_METHOD(Tuning, id)
WHENCE_TUNINGS(X)
#undef X

template <>
std::span<const Method<Tuning>> methods<Tuning>() {
#define X(id, name, summary, source) {name, summary, source, &make_##id, &options_##id},
  static constexpr Method<Tuning> table[] = {WHENCE_TUNINGS(X)};
#undef X
  return table;
}

template <>
std::string_view room_noun<Tuning>() {
  return "tuning";
}

}  // namespace whence
