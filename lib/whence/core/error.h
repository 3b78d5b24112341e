#pragma once
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace whence {

/// Base of every exception this library throws. what() names the thing, its value, what was expected and where it came
/// from.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The caller passed something out of contract: an option, a shape, an unknown name.
class InvalidArgument : public Error {
 public:
  using Error::Error;
};

/// A file or stream did not hold what its format promises, or could not be read or written.
class DataError : public Error {
 public:
  using Error::Error;
};

/// Arithmetic left the finite numbers, or a solve has no usable answer. Slow convergence is not this: see
/// SolverSummary.
class NumericalError : public Error {
 public:
  using Error::Error;
};

/// Thrown by a progress callback to stop long work at a safe point. Not an Error: nothing is wrong.
class Interrupted : public std::runtime_error {
 public:
  Interrupted() : std::runtime_error("interrupted") {}
};

/// `unknown KIND "name"; did you mean "x"? known: a, b, c`: the message for a name that nothing has. The nearest known
/// name is offered when it is within a third of the name's length in edits. Where there are none, that is said.
std::string unknown_name(std::string_view kind, std::string_view name, const std::vector<std::string>& known);

}  // namespace whence
