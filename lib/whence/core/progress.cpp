#include "whence/core/progress.h"

namespace whence {
namespace {

std::function<void()>& interruption_check() {
  static std::function<void()> check;
  return check;
}

}  // namespace

void set_interruption_check(std::function<void()> check) { interruption_check() = std::move(check); }

void check_interruption() {
  if (const auto& check = interruption_check()) {
    check();
  }
}

}  // namespace whence
