#pragma once
// The exported models of make_fixtures.py.
#include <filesystem>
#include <memory>
#include <string>

#include "whence/models/model.h"

namespace whence::test {

inline const std::filesystem::path kExports = std::filesystem::path(WHENCE_TESTS) / "models/exported";

/// As `exported = "NAME.pt2"` opens it, with further options (",head=fc").
inline std::unique_ptr<Model> open_export(const std::string& name, const std::string& more = "",
                                          const std::filesystem::path& folder = kExports) {
  return create<Model>("exported:file=" + (folder / (name + ".pt2")).string() + more);
}

}  // namespace whence::test
