#pragma once
#include <filesystem>
#include <map>
#include <set>
#include <string>

namespace whence::faults {

/// What lies below a folder: names to bytes, of a folder "/", of a link "-> TARGET".
using Tree = std::map<std::string, std::string>;

std::string bytes_of(const std::filesystem::path& file);
void write(const std::filesystem::path& file, const std::string& bytes);

Tree tree_of(const std::filesystem::path& folder);
/// Removes what is there, then makes it.
void make(const Tree& tree, const std::filesystem::path& folder);

/// What two runs of one command must have in common: the bytes, but in JSON no times. `timed` are files that hold times
/// otherwise: of them only that they are there, and no digest in run.json.
Tree told(const Tree& tree, const std::set<std::string>& timed);
/// The files in which two runs differ although nothing happened to them.
std::set<std::string> differing(const Tree& a, const Tree& b);

/// The first differences in words; empty where there are none.
std::string difference(const Tree& found, const Tree& expected);

}  // namespace whence::faults
