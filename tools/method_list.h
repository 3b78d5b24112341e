#pragma once
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "whence/attribution/attributor.h"
#include "whence/stages/choice.h"

namespace whence::cli {

/// Whether a spec names a method of the kind.
template <class Base>
bool is_method(const std::string& spec) {
  const auto names = method_names<Base>();
  return std::find(names.begin(), names.end(), spec.substr(0, spec.find(':'))) != names.end();
}

/// One of --methods.
struct ListedMethod {
  std::string name;                                   ///< As it was typed.
  std::shared_ptr<const Attributor> attributor = {};  ///< Null: bm25.
  InverseRequest asked = {};                          ///< Of a method that uses a curvature.
  bool unrolled = false;                              ///< Influence through training itself, of no curvature.
  std::string flags = {};  ///< With these `whence rank` scores by it; empty: as it is, or, of bm25, not at all.
  bool named = true;       ///< Else it is there to compare with.

  Claim claim() const { return attributor ? attributor->claim() : Claim::kOrder; }
};

/// Reads "influence,ekfac,gauss-newton+cg:max-iterations=9,relative-tolerance=1e-3,trak": attribution methods, and
/// parts of influence joined by +: a curvature, a solver, a response (unrolled stands alone); what is left out is
/// chosen as for rank. A comma before NAME=VALUE goes on with the options before it. Behind them come what every method
/// has to beat: random, grad-cos, and on texts bm25 and rep-sim. Throws UsageError or InvalidArgument with what was
/// expected.
std::vector<ListedMethod> method_list(const std::string& text, bool texts);

}  // namespace whence::cli
