#include "faults/jobs.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <random>
#include <utility>

namespace whence::faults {
namespace fs = std::filesystem;
namespace {

/// Zeros that this process and those that it makes have in common.
template <class T>
T* shared(std::size_t count) {
  return static_cast<T*>(::mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

void work(const std::vector<Job>& jobs, std::atomic<std::size_t>& next, bool* held, const fs::path& folder) {
  for (std::size_t i = 0; (i = next++) < jobs.size();) {
    fs::remove_all(folder);
    fs::create_directories(folder);
    std::string wrong;
    try {
      wrong = jobs[i].test(folder);
    } catch (const std::exception& error) {
      wrong = error.what();
    }
    if (wrong.empty()) {
      held[i] = true;
      continue;
    }
    const auto line = "  " + jobs[i].name + ": " + wrong + "\n";
    if (::write(STDOUT_FILENO, line.data(), line.size()) < 0) {
      std::abort();
    }
  }
  fs::remove_all(folder);
}

}  // namespace

bool run_jobs(const std::string& name, std::vector<Job> jobs, std::size_t most, const Settings& settings) {
  std::erase_if(jobs, [&](const Job& job) { return job.name.find(settings.only) == job.name.npos; });
  if (!settings.all && jobs.size() > most) {  // of every kind as many
    std::shuffle(jobs.begin(), jobs.end(), std::mt19937_64(settings.seed));
    std::map<std::string, std::size_t> before;
    std::vector<std::pair<std::size_t, Job>> turns;
    for (auto& job : jobs) {
      const auto turn = before[job.kind]++;
      turns.emplace_back(turn, std::move(job));
    }
    std::stable_sort(turns.begin(), turns.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    turns.resize(most);
    jobs.clear();
    for (auto& [turn, job] : turns) {
      jobs.push_back(std::move(job));
    }
  }
  if (jobs.empty()) {
    return true;
  }
  std::fflush(stdout);
  const auto begun = std::chrono::steady_clock::now();
  auto* held = shared<bool>(jobs.size());
  auto* next = shared<std::atomic<std::size_t>>(1);
  for (unsigned k = 0; k < settings.workers; ++k) {
    if (::fork() == 0) {
      work(jobs, *next, held, worker_folder(k));
      ::_exit(0);
    }
  }
  for (unsigned k = 0; k < settings.workers; ++k) {
    ::wait(nullptr);
  }
  struct Count {
    std::size_t tried = 0, held = 0;
  };
  std::map<std::string, Count> kinds;
  Count whole;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    for (auto* count : {&whole, &kinds[jobs[i].kind]}) {
      ++count->tried;
      count->held += held[i] ? 1 : 0;
    }
  }
  ::munmap(held, jobs.size() * sizeof(bool));
  ::munmap(next, sizeof *next);
  std::printf("%s: tried %zu, held %zu (%.0f s)", name.c_str(), whole.tried, whole.held,
              std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
  for (const auto& [kind, count] : kinds) {
    std::printf("; %s %zu of %zu", kind.c_str(), count.held, count.tried);
  }
  std::printf("\n");
  std::fflush(stdout);
  return whole.held == whole.tried;
}

fs::path worker_folder(unsigned k) { return work_folder() / ("worker-" + std::to_string(k)); }

fs::path work_folder() {
  static const pid_t owner = ::getpid();
  static const fs::path& made = *new fs::path([] {  // there until the very end
    const fs::path memory = "/dev/shm";
    const auto name = "whence-faults-" + std::to_string(owner);
    constexpr std::uintmax_t kRoom = 1 << 30;
    std::error_code absent;  // or a container's 64 MiB
    const auto room = fs::space(memory, absent).available;
    auto path = (!absent && room >= kRoom ? memory : fs::temp_directory_path()) / name;
    fs::create_directories(path);
    std::atexit([] {
      std::error_code ignored;
      if (::getpid() == owner) {
        fs::remove_all(made, ignored);
      }
    });
    return path;
  }());
  return made;
}

}  // namespace whence::faults
