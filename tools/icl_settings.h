#pragma once
#include <memory>
#include <string>
#include <vector>

#include "cli.h"
#include "json.h"
#include "whence/icl/prompt_reader.h"
#include "whence/icl/ridge_view.h"

namespace whence::cli {

/// 0 .. blocks.
std::vector<std::int64_t> every_layer(std::int64_t blocks);

/// How `whence icl` reads a prompt and scores it: the flags, and what stands where there is none. The defaults are what
/// was measured to find wrong labels best (tests/bench/icl/README.md); `--preset detail` is the paper's.
class IclSettings {
 public:
  static void add_options(CommandLine& line);
  /// Throws for flags that do not go together and words that are not known.
  explicit IclSettings(const CommandLine& line);

  const IclMethod& method() const { return *method_; }
  const std::string& method_name() const { return method_name_; }  ///< "ridge" where the flag says auto.
  /// Whose self scores count: under `auto` without a flag that says otherwise not those of method().
  const IclMethod& self_method(const PromptTask& task) const;
  /// Of methods with a regression: theirs, and that of each layer's self scores.
  const RidgeOptions& ridge() const { return ridge_; }
  const RidgeOptions& self_ridge() const { return self_ridge_; }
  const ReadingOptions& reading() const { return reading_; }  ///< But for the layers.
  const std::vector<ReadingPosition>& positions() const { return positions_; }
  /// Of a model with so many blocks; empty: a validation set is to choose.
  std::vector<std::int64_t> layers(std::int64_t blocks) const;
  /// Where nothing is said.
  std::vector<std::int64_t> usual_layers(std::int64_t blocks) const;
  /// Of run.json and icl.json: every option with its value, and under "defaults" those that were not given.
  Json json() const;

 private:
  bool detail() const { return preset_ == "detail"; }
  void read_ridge(std::string_view given);

  const CommandLine& line_;
  std::string preset_, method_name_;
  RidgeOptions ridge_, self_ridge_;
  std::unique_ptr<IclMethod> method_;
  // where nothing is said of the regression, what was measured to be best for self scores; else null
  std::unique_ptr<IclMethod> suspecting_, surprised_;
  ReadingOptions reading_;
  std::vector<ReadingPosition> positions_;  // to choose from
};

}  // namespace whence::cli
