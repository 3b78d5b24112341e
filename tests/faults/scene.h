#pragma once
#include <map>
#include <string>
#include <vector>

#include "faults/tree.h"

namespace whence::faults {

/// A table of two columns and a label that they decide.
std::string table(int rows, unsigned seed);

/// Data, a chain of two stages with minibatches and snapshots (p.toml), queries; a demonstration task, a folder of two,
/// and a language model of a few kilobytes that reads them. Everything takes a fraction of a second.
Tree scene();

/// A safetensors file of such tensors, filled with small numbers.
std::string safetensors(const std::map<std::string, std::vector<int>>& shapes);

}  // namespace whence::faults
