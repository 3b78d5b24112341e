#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "whence/models/detail/families.h"

namespace whence::detail {

namespace {

/// What config.json says of these layers' rotary positions beside their base.
nlohmann::json rotary_table(const ConfigFile& config, const RotaryKeys& keys) {
  auto out = nlohmann::json::object();
  if (config.has("rope_parameters")) {
    const auto& table = config.values()["rope_parameters"];
    config.expect("rope_parameters", table.is_object(), "a table or null");
    out = keys.layers == nullptr ? table : table.contains(keys.layers) ? table[keys.layers] : out;
    out = out.is_null() ? nlohmann::json::object() : out;
    config.expect("rope_parameters", out.is_object(), "a table for each kind of layers");
  }
  if (config.has("rope_scaling") && keys.scaled) {  // of both, transformers takes this
    const auto& table = config.values()["rope_scaling"];
    config.expect("rope_scaling", table.is_object(), "a table or null");
    if (keys.layers == nullptr && !table.empty()) {
      out = table;
    } else if (keys.layers != nullptr) {
      out.update(table);
    }
  }
  for (const auto& [key, value] : out.items()) {
    if (value.is_object()) {
      throw DataError(fmt::format("{}: rope_parameters has a table for {} alone, expected one for all layers",
                                  config.path().string(), key));
    }
  }
  return out;
}

}  // namespace

Rotary read_rotary(const ConfigFile& config, std::int64_t head_width, std::int64_t context, const RotaryKeys& keys) {
  Rotary out;
  const auto scaling = rotary_table(config, keys);
  const auto otherwise =
      keys.base_too == nullptr ? keys.base_if_absent : config.number(keys.base_too, keys.base_if_absent);
  out.base = config.number_in(scaling, "rope_theta", config.number(keys.base, otherwise));
  const double part = config.number_in(
      scaling, "partial_rotary_factor",
      keys.part == nullptr ? config.number("partial_rotary_factor", 1) : config.number(keys.part, keys.part_if_absent));
  if (keys.part == nullptr && part != 1) {
    throw DataError(fmt::format("{}: partial_rotary_factor = {}, expected 1 for a {}", config.path().string(), part,
                                config.text("model_type", "")));
  }
  out.width = static_cast<std::int64_t>(static_cast<double>(head_width) * part);
  out.original_context = context;
  for (const char* key : {"type", "rope_type"}) {
    if (scaling.contains(key) && scaling[key].is_string()) {
      out.scaling = scaling[key];
    }
  }
  const std::vector<std::string> known = {"default", "linear", "dynamic", "llama3", "yarn"};
  if (std::find(known.begin(), known.end(), out.scaling) == known.end()) {
    throw DataError(fmt::format("{}: rope_scaling type = \"{}\", expected one of {}", config.path().string(),
                                out.scaling, fmt::join(known, ", ")));
  }
  if (out.width < 2 || out.width % 2 != 0 || out.base <= 1) {
    throw DataError(
        fmt::format("{}: rotary positions over {} of a head's dimensions with base {}, expected an even "
                    "number >= 2 and a base > 1",
                    config.path().string(), out.width, out.base));
  }
  out.factor = config.number_in(scaling, "factor", 1);
  out.low_frequency = config.number_in(scaling, "low_freq_factor", out.low_frequency);
  out.high_frequency = config.number_in(scaling, "high_freq_factor", out.high_frequency);
  out.beta_fast = config.number_in(scaling, "beta_fast", out.beta_fast);
  out.beta_slow = config.number_in(scaling, "beta_slow", out.beta_slow);
  out.truncate = !scaling.contains("truncate") || scaling["truncate"] != false;
  out.original_context = static_cast<std::int64_t>(
      config.number_in(scaling, "original_max_position_embeddings", static_cast<double>(context)));
  if (out.factor < 1 || out.original_context < 1) {
    throw DataError(fmt::format("{}: rope_scaling factor = {}, original_max_position_embeddings = {}, expected >= 1",
                                config.path().string(), out.factor, out.original_context));
  }
  if (out.scaling == "yarn") {
    const auto magnitude = [](double factor, double times) {
      return factor <= 1 ? 1 : 0.1 * times * std::log(factor) + 1;
    };
    const double once = config.number_in(scaling, "mscale", 0), all = config.number_in(scaling, "mscale_all_dim", 0);
    const double own =
        once > 0 && all > 0 ? magnitude(out.factor, once) / magnitude(out.factor, all) : magnitude(out.factor, 1);
    out.attention_factor = config.number_in(scaling, "attention_factor", own);
  }
  return out;
}

std::vector<double> rotary_frequencies(const Rotary& rotary, std::int64_t context, std::int64_t length) {
  const auto width = static_cast<double>(rotary.width);
  double base = rotary.base;
  if (rotary.scaling == "dynamic" && length > context) {
    const double stretch =
        rotary.factor * static_cast<double>(length) / static_cast<double>(context) - (rotary.factor - 1);
    base *= std::pow(stretch, width / (width - 2));
  }
  std::vector<double> out;
  for (std::int64_t i = 0; i < rotary.width / 2; ++i) {
    out.push_back(std::pow(base, -2 * static_cast<double>(i) / width));
  }
  const auto original = static_cast<double>(rotary.original_context);
  if (rotary.scaling == "linear") {
    for (auto& f : out) {
      f /= rotary.factor;
    }
  } else if (rotary.scaling == "llama3") {  // long waves are stretched, short ones not, those between in part
    for (auto& f : out) {
      const double waves = original * f / (2 * std::numbers::pi);
      if (waves < rotary.low_frequency) {
        f /= rotary.factor;
      } else if (waves <= rotary.high_frequency) {
        const double smooth = (waves - rotary.low_frequency) / (rotary.high_frequency - rotary.low_frequency);
        f = (1 - smooth) * f / rotary.factor + smooth * f;
      }
    }
  } else if (rotary.scaling == "yarn") {
    const auto dimension = [&](double turns) {
      return width * std::log(original / (turns * 2 * std::numbers::pi)) / (2 * std::log(base));
    };
    double low = dimension(rotary.beta_fast), high = dimension(rotary.beta_slow);
    if (rotary.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, width - 1);
    high = low == high ? high + 0.001 : high;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      out[i] = out[i] / rotary.factor * ramp + out[i] * (1 - ramp);
    }
  }
  return out;
}

}  // namespace whence::detail
