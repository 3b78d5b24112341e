#include "solves_text.h"

#include <fmt/format.h>

#include <algorithm>

namespace whence::cli {

std::string solves_text(const JsonView& stage) {
  const auto solves = stage.at("solves").list();
  const auto approximate = stage.at("approximate-solves").get<std::int64_t>();
  const auto unconverged = stage.at("unconverged-solves").get<std::int64_t>();
  std::string out = fmt::format("{} {}{}", solves.size(), approximate > 0 ? "approximate solve" : "solve",
                                solves.size() == 1 ? "" : "s");
  if (unconverged > 0) {
    out += fmt::format(", {} of them not converged", unconverged);
  }
  const double worst = stage.at("largest-relative-residual").get<double>();
  if (worst < 0) {
    return out + ", residual not measured";
  }
  out += fmt::format(", largest relative residual {:.1e}", worst);
  if (approximate == 0) {
    return out;
  }
  const auto of = stage.value("residual-of", std::string());
  const auto measured = std::count_if(solves.begin(), solves.end(), [&](const auto& solve) {
    return solve.value("residual-of", std::string()) == of && solve["relative-residual"].template get<double>() >= 0;
  });
  out += of.empty() ? "" : " of " + of;
  return measured < static_cast<std::ptrdiff_t>(solves.size()) ? out + fmt::format(" ({} measured)", measured) : out;
}

}  // namespace whence::cli
