#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "sniff.h"

namespace whence::cli {

/// A pipeline file to begin with.
struct Draft {
  std::string text;
  std::vector<std::string> assumed;  ///< What the sources did not tell, a phrase for each.
};

/// Of a model, where one of the sources is one, and data; its paths are as seen from `out`, where it is to lie. Throws
/// UsageError for sources that make no pipeline together, DataError for one that holds nothing to train on.
Draft draft_pipeline(std::vector<Source> sources, const std::filesystem::path& out);

}  // namespace whence::cli
