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

/// The classes that a model's outputs are, in order, for the file to list.
struct ListedClasses {
  std::vector<std::string> names;  ///< None: they are not listed.
  std::string why;                 ///< What is known of that, for a comment behind them.
};

/// Of a model, where one of the sources is one, and data; its paths are as seen from `out`, where it is to lie. Throws
/// UsageError for sources that make no pipeline together, DataError for one that holds nothing to train on.
Draft draft_pipeline(std::vector<Source> sources, const std::filesystem::path& out, const ListedClasses& classes = {});

}  // namespace whence::cli
