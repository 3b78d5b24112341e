#pragma once
#include <functional>
#include <string>
#include <vector>

#include "cli.h"
#include "icl_result.h"
#include "icl_settings.h"
#include "json.h"
#include "whence/icl/uses.h"
#include "whence/store/result_folder.h"

namespace whence::cli {

/// What --detect-noise, --curate, --reorder and --select make of a task's scores.
class IclUses {
 public:
  using MakeReader = std::function<PromptReader(const PromptTask& task, const ReadingOptions& options)>;

  static void add_options(CommandLine& line);
  /// Throws for flags that do not go together or words that are not known.
  IclUses(const CommandLine& line, const IclSettings& settings, MakeReader reader, Progress progress);
  /// Adds to `json`, and places files where `out` is no null pointer. `read` has read the result's task.
  void apply(const IclResult& result, PromptReader& read, ResultWriter* out, Json& json) const;

 private:
  using Order = std::vector<std::int64_t>;
  Arrangement rearranged(const IclResult& result, PromptReader& read) const;
  /// Of the pool, which stands for the task's demonstrations.
  Selection select_from(const PromptTask& pool, const IclResult& result) const;
  /// NAME.json, a task that can be run again, and NAME.txt, the prompt without a query.
  void write_prompt(const PromptTask& task, const Order& order, ResultWriter& out, const std::string& name) const;

  const CommandLine& line_;
  const IclSettings& settings_;
  MakeReader reader_;
  Progress progress_;
};

}  // namespace whence::cli
