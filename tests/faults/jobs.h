#pragma once
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace whence::faults {

/// What the program was told.
struct Settings {
  std::filesystem::path tool;
  bool all = false;        // every fault, in place of a sample
  std::uint64_t seed = 0;  // of the sample
  std::string only;        // jobs whose name has this part
  unsigned workers = 2;
};

/// One thing to try. `test` gets an empty folder and returns what did not hold; nothing where all did.
struct Job {
  std::string name, kind;
  std::function<std::string(const std::filesystem::path& folder)> test;
};

/// Runs the jobs side by side, each worker in a process of its own; prints those that did not hold and "NAME: tried N,
/// held N" with the same of each kind. Of more than `most` jobs a sample, unless all are asked for. Returns whether all
/// held.
bool run_jobs(const std::string& name, std::vector<Job> jobs, std::size_t most, const Settings& settings);

/// The same of the jobs that a Scenario makes. Where it cannot be set up that is said, and it does not hold.
template <class Scenario>
bool run_scenario(const std::string& name, std::size_t most, const Settings& settings) {
  try {
    const Scenario scenario(settings);
    return run_jobs(name, scenario.jobs(), most, settings);
  } catch (const std::runtime_error& error) {
    std::printf("%s: %s\n", name.c_str(), error.what());
    return false;
  }
}

/// Where worker number `k` runs its jobs.
std::filesystem::path worker_folder(unsigned k);

/// A folder of this program's own, in memory where the system has such a place; gone at its end.
std::filesystem::path work_folder();

}  // namespace whence::faults
