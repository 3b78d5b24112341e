#include "whence/data/detail/channels.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "whence/core/error.h"

namespace whence::detail {

void read_channels(const nlohmann::json& table, const std::string& format, Dataset::Contents& contents) {
  const auto keys = read_keys<ChannelKeys>(table, format);
  const auto dimensions = contents.inputs.dim();
  const auto channels = dimensions == 2 || dimensions == 4 ? contents.inputs.size(1) : 1;
  const auto row = [&](const char* key, const std::vector<double>& values, bool may_be_zero) {
    if (values.empty()) {
      return at::Tensor();
    }
    const auto count = static_cast<std::int64_t>(values.size());
    if (count != 1 && count != channels) {
      throw InvalidArgument(fmt::format("{}: key {} has {} numbers, expected 1 or one for each of {} channels", format,
                                        key, count, channels));
    }
    if (!std::all_of(values.begin(), values.end(),
                     [&](double x) { return std::isfinite(x) && (may_be_zero || x > 0); })) {
      throw InvalidArgument(fmt::format("{}: key {} = {}, expected numbers{}", format, key, table[key].dump(),
                                        may_be_zero ? "" : " > 0"));
    }
    std::vector<std::int64_t> shape(static_cast<std::size_t>(dimensions), 1);
    shape[dimensions == 2 || dimensions == 4 ? 1 : 0] = count;
    return at::tensor(values, at::kDouble).view(shape);
  };
  contents.mean = row("mean", keys.mean, true);
  contents.deviation = row("std", keys.deviation, false);
}

}  // namespace whence::detail
