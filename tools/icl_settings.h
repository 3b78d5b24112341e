#pragma once
#include <optional>
#include <string>
#include <vector>

#include "cli.h"
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

  const std::string& method() const { return method_; }  ///< A name, "ridge" where the flag says auto.
  const RidgeOptions& ridge() const { return ridge_; }
  const ReadingOptions& reading() const { return reading_; }  ///< But for the layers.
  const std::vector<ReadingPosition>& positions() const { return positions_; }
  /// Whether self scores are surprisals: those of `surprisal`, and of `auto` where outputs do not repeat.
  bool by_surprisal(const PromptTask& task) const;
  /// What self scores are of, where not surprisals: under `auto` without a flag that says otherwise not ridge().
  const RidgeOptions& self_ridge() const { return self_ridge_; }
  /// Of a model with so many blocks; empty: a validation set is to choose.
  std::vector<std::int64_t> layers(std::int64_t blocks) const;
  /// Where nothing is said.
  std::vector<std::int64_t> usual_layers(std::int64_t blocks) const;
  /// Of run.json and icl.json: every option with its value, and under "defaults" those that were not given.
  nlohmann::ordered_json json() const;

 private:
  bool detail() const { return preset_ == "detail"; }
  void read_ridge(std::string_view given);

  const CommandLine& line_;
  std::string preset_, method_;
  RidgeOptions ridge_, self_ridge_;
  bool auto_ = false;  // nothing is said of the regression: what was measured to be best, for each kind of score
  ReadingOptions reading_;
  std::vector<ReadingPosition> positions_;  // to choose from
};

}  // namespace whence::cli
