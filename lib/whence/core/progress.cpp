#include "whence/core/progress.h"

#include <fmt/format.h>

#include <utility>

namespace whence {
namespace {

std::function<void()>& interruption_check() {
  static std::function<void()> check;
  return check;
}

thread_local ProgressScope* innermost = nullptr;

constexpr std::chrono::seconds kSilence(1);

}  // namespace

ProgressScope::ProgressScope(const Progress& progress, ProgressEvent event)
    : progress_(&progress), event_(std::move(event)), outer_(innermost) {
  say(event_);
  innermost = this;
}

ProgressScope::ProgressScope(const std::string& what, std::int64_t total) : outer_(innermost) {
  if (outer_ != nullptr && outer_->progress_ != nullptr) {
    progress_ = outer_->progress_;
    event_ = {fmt::format("{}, {}", outer_->event_.phase, what), 0, total, ""};
    say(event_);
  }
  innermost = this;
}

ProgressScope::~ProgressScope() { innermost = outer_; }

void ProgressScope::at(std::int64_t done, std::string detail) {
  event_.done = done;
  event_.detail = std::move(detail);
  place_.clear();
  say(event_);
}

void ProgressScope::say(const ProgressEvent& event) {
  if (progress_ != nullptr) {
    said_ = std::chrono::steady_clock::now();
    report(*progress_, event);
  }
}

void set_interruption_check(std::function<void()> check) { interruption_check() = std::move(check); }

void check_interruption(std::int64_t done, std::int64_t total) {
  if (const auto& check = interruption_check()) {
    check();
  }
  auto* scope = innermost;
  if (scope == nullptr) {
    return;
  }
  if (total > 0) {
    scope->place_ = fmt::format("{} of {} examples", done, total);
  }
  if (std::chrono::steady_clock::now() - scope->said_ < kSilence) {
    return;
  }
  auto event = scope->event_;
  event.detail += (event.detail.empty() || scope->place_.empty() ? "" : "; ") + scope->place_;
  scope->say(event);
}

}  // namespace whence
