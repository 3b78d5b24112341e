#pragma once
#include "whence/core/registry.h"

/// All that the registry.cpp of a room says besides its list. LIST(X) holds X(id, name, what it is, where it comes
/// from), one line a method, in the order in which they are shown; the file that ends with WHENCE_METHOD(Base, id, …)
/// makes it. `noun` is what a method is called in messages. Stands in namespace whence.
#define WHENCE_ROOM(Base, noun, LIST)                           \
  template <>                                                   \
  Room<Base>& room_of<Base>() {                                 \
    using Listed = Base;                                        \
    LIST(WHENCE_DECLARED_METHOD)                                \
    static Room<Base> room{noun, {LIST(WHENCE_LISTED_METHOD)}}; \
    return room;                                                \
  }

#define WHENCE_DECLARED_METHOD(id, name, summary, source) WHENCE_DECLARE_METHOD(Listed, id)
#define WHENCE_LISTED_METHOD(id, name, summary, source) {name, summary, source, &make_##id, &options_##id},
