#pragma once
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "whence/training/optimizer.h"

namespace whence::detail {

/// When to save training next: kFirst seconds after it began and after each save, or as much later as keeps what saving
/// takes to kShare of the time.
class SavePace {
 public:
  static constexpr double kFirst = 2, kShare = 0.02;
  /// In seconds since training began.
  bool is_due(double now) const { return now >= next_; }
  void saved(double begin, double end) { next_ = end + std::max(kFirst, (end - begin) / kShare); }

 private:
  double next_ = kFirst;
};

/// Training that is not at its end, in a file (unfinished_path()): where it stands and the record of what it began
/// with. The file appears whole.
void write_unfinished(const std::filesystem::path& path, const TrainingState& state, const nlohmann::json& record);

/// Where training stands, on the device of `like`, the parameters that training would begin with. `parent` is the stage
/// before, `anew` what to type to begin anew. Throws InvalidArgument where training began with another record, naming
/// what is otherwise, and DataError where the file is damaged or holds other parameters.
TrainingState read_unfinished(const std::filesystem::path& path, const nlohmann::json& record, const TensorList& like,
                              const std::string& parent, const std::string& anew);

}  // namespace whence::detail
