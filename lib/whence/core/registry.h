#pragma once
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "whence/core/options.h"

namespace whence {

/// One named way to make a Base.
template <class Base>
struct Method {
  std::string_view name;
  std::string_view summary;
  std::string_view source;  ///< The paper the method comes from.
  std::unique_ptr<Base> (*make)(std::string_view options);
  std::vector<OptionInfo> (*options)(std::string_view options);  ///< Every option, with the values given or default.
};

/// The methods of a room. Each room defines its own in registry.cpp, by hand and in one table: a registrar object would
/// be dropped by the linker when the library is static.
template <class Base>
std::span<const Method<Base>> methods();

/// What a room's methods are called in messages: "solver", "loss".
template <class Base>
std::string_view room_noun();

/// The method that `spec` ("cg" or "cg:max-iterations=50") names, and the options behind the colon. Throws
/// InvalidArgument with the nearest known name.
template <class Base>
std::pair<const Method<Base>*, std::string_view> find_method(std::string_view spec) {
  const auto colon = spec.find(':');
  const auto name = spec.substr(0, colon);
  std::vector<std::string> known;
  for (const auto& method : methods<Base>()) {
    if (method.name == name) {
      return {&method, colon == spec.npos ? std::string_view{} : spec.substr(colon + 1)};
    }
    known.emplace_back(method.name);
  }
  throw InvalidArgument(unknown_name(room_noun<Base>(), name, known));
}

/// Makes the method that `spec` names: "cg" or "cg:max-iterations=50,relative-tolerance=1e-8".
template <class Base>
std::unique_ptr<Base> create(std::string_view spec) {
  const auto [method, options] = find_method<Base>(spec);
  return method->make(options);
}

/// `spec` with every option written out: what run.json records.
template <class Base>
std::string resolved_spec(std::string_view spec) {
  const auto [method, options] = find_method<Base>(spec);
  std::string text(method->name);
  char separator = ':';
  for (const auto& option : method->options(options)) {
    text += separator + option.name + '=' + option.value;
    separator = ',';
  }
  return text;
}

namespace detail {
/// A method's name as specs spell it, from its identifier: "cross-entropy" from "cross_entropy".
std::string method_name(std::string_view identifier);
}  // namespace detail

}  // namespace whence

/// Ends the file of a method: defines the two functions that the room's registry names. Type is constructed from
/// Options.
#define WHENCE_METHOD(Base, name, Type, Options)                                        \
  std::unique_ptr<Base> make_##name(std::string_view options) {                         \
    return std::make_unique<Type>(parse<Options>(options, detail::method_name(#name))); \
  }                                                                                     \
  std::vector<OptionInfo> options_##name(std::string_view options) {                    \
    return describe(parse<Options>(options, detail::method_name(#name)));               \
  }

/// The registry.cpp of a room: LIST(X) holds X(identifier, name, summary, source), one line a method; methods appear in
/// that order.
#define WHENCE_DECLARE_METHOD(Base, id)                      \
  std::unique_ptr<Base> make_##id(std::string_view options); \
  std::vector<OptionInfo> options_##id(std::string_view options);
