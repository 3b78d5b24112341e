#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <functional>
#include <optional>
#include <string>

namespace whence::detail {

/// Whether an operator of `aten` may be run for a file that anybody may have written: it computes, reads and writes no
/// file, and checks its indices.
bool is_allowed(const std::string& name);

using OperatorCall = std::function<void(torch::jit::Stack&)>;
/// What is called in place of an operator whose own derivatives are wrong, or not there, to the order that is wanted,
/// that asks for a layout which only the exported run had, or that takes sizes on trust. Null: itself.
OperatorCall rewritten(const c10::OperatorHandle& handle);

/// Arithmetic of sizes: "_operator.add" and the like. Null: none of that name.
std::function<c10::IValue(const std::vector<c10::IValue>&)> size_arithmetic(const std::string& target);

/// What makes an operator impure by itself: "draws random numbers", "is in training mode"; empty: nothing, as far as
/// its fixed arguments say.
struct Node;
std::string impurity(const Node& node);

}  // namespace whence::detail
