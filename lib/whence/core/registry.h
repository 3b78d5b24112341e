#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "whence/core/options.h"

namespace whence {

/// One named way to make a Base.
template <class Base>
struct Method {
  std::string name;
  std::string summary;
  std::string source;  ///< The paper the method comes from.
  std::function<std::unique_ptr<Base>(std::string_view options)> make;
  /// Every option, with the values given or default.
  std::function<std::vector<OptionInfo>(std::string_view options)> options;
};

/// The methods of one kind, and what one is called in messages: "solver", "loss".
template <class Base>
struct Room {
  std::string_view noun;
  std::deque<Method<Base>> methods;  ///< References to them hold when one is added.
};

/// Each room defines its own in registry.cpp, by hand and in one table (core/room.h): a registrar object would be
/// dropped by the linker when the library is static. To others it is methods(), and add_method().
template <class Base>
Room<Base>& room_of();

namespace detail {
/// Throws InvalidArgument unless `name` can stand in a spec and is none of `taken`.
void check_new_name(std::string_view noun, std::string_view name, const std::vector<std::string>& taken);
}  // namespace detail

/// The methods of a room: the library's, then those that add_method() added.
template <class Base>
const std::deque<Method<Base>>& methods() {
  return room_of<Base>().methods;
}

/// Their names.
template <class Base>
std::vector<std::string> method_names() {
  std::vector<std::string> out;
  for (const auto& method : methods<Base>()) {
    out.push_back(method.name);
  }
  return out;
}

/// The method that `spec` ("cg" or "cg:max-iterations=50") names, and the options behind the colon. Throws
/// InvalidArgument with the nearest known name.
template <class Base>
std::pair<const Method<Base>*, std::string_view> find_method(std::string_view spec) {
  const auto colon = spec.find(':');
  const auto name = spec.substr(0, colon);
  for (const auto& method : methods<Base>()) {
    if (method.name == name) {
      return {&method, colon == spec.npos ? std::string_view{} : spec.substr(colon + 1)};
    }
  }
  throw InvalidArgument(unknown_name(room_of<Base>().noun, name, method_names<Base>()));
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
  auto text = method->name;
  char separator = ':';
  for (const auto& option : method->options(options)) {
    text += separator + option.name + '=' + option.value;
    separator = ',';
  }
  return text;
}

/// Adds a method to its room: create(), pipeline files and messages know it from then on. Throws InvalidArgument where
/// the room has one of that name, or it is no name ("my-solver": small letters, digits and hyphens). Before other
/// threads use the room.
template <class Base>
void add_method(Method<Base> method) {
  auto& room = room_of<Base>();
  detail::check_new_name(room.noun, method.name, method_names<Base>());
  room.methods.push_back(std::move(method));
}

/// The same of Type, which is constructed from Options (NoOptions for none):
///
///   add_method<Solver, Richardson, RichardsonOptions>("richardson", "steps along the residual", "Richardson 1910");
///   create<Solver>("richardson:steps=50");
template <class Base, class Type, class Options>
void add_method(const std::string& name, std::string summary, std::string source = "") {
  add_method<Base>({name, std::move(summary), std::move(source),
                    [name](std::string_view options) { return std::make_unique<Type>(parse<Options>(options, name)); },
                    [name](std::string_view options) { return describe(parse<Options>(options, name)); }});
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

/// Declares what WHENCE_METHOD defines.
#define WHENCE_DECLARE_METHOD(Base, id)                      \
  std::unique_ptr<Base> make_##id(std::string_view options); \
  std::vector<OptionInfo> options_##id(std::string_view options);

/// Stands behind Base in its header, in namespace whence: registry.cpp makes its room (core/room.h).
#define WHENCE_DECLARE_ROOM(Base) \
  template <>                     \
  Room<Base>& room_of<Base>();
