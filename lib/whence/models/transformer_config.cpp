#include "whence/models/detail/transformer_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/models/detail/config_file.h"
#include "whence/models/detail/config_keys.h"
#include "whence/models/detail/families.h"

namespace whence::detail {
namespace fs = std::filesystem;
namespace {
using nlohmann::json;

constexpr std::int64_t kMostClasses = 1'000'000;  // of which names are made before any weight is looked at

/// The outputs of a classification head, by their numbers in id2label.
std::vector<std::string> read_classes(const ConfigFile& config) {
  if (!config.has("id2label")) {
    std::vector<std::string> out;
    const auto labels = config.count("num_labels", 2);
    config.expect("num_labels", labels <= kMostClasses, fmt::format("at most {}", kMostClasses));
    for (std::int64_t c = 0; c < labels; ++c) {
      out.push_back(fmt::format("LABEL_{}", c));
    }
    return out;
  }
  const auto& table = config.values()["id2label"];
  config.expect("id2label", table.is_object() && !table.empty(), "a table of names by number");
  std::vector<std::string> out(table.size());
  std::set<std::string> given;
  for (std::size_t c = 0; c < out.size(); ++c) {
    const auto found = table.find(std::to_string(c));
    config.expect("id2label", found != table.end(), fmt::format("the numbers 0 to {}", table.size() - 1));
    out[c] = found->is_string() ? found->get<std::string>() : found->dump();
    config.expect("id2label", given.insert(out[c]).second, "a name of its own for each number");
  }
  return out;
}

void read_common(const ConfigFile& config, const Family& family, TransformerConfig& out) {
  out.vocabulary = config.count("vocab_size");
  out.initial_deviation = config.number("initializer_range", out.initial_deviation);
  out.pad_token = pad_token_of(config, family.pad_if_absent);
  out.classes = read_classes(config);
  out.problem_type = config.text("problem_type", "");
  if (config.has("architectures")) {
    const auto& list = config.values()["architectures"];
    config.expect("architectures", list.is_array() && (list.empty() || list[0].is_string()), "a list of names");
    out.architecture = list.empty() ? "" : list[0].get<std::string>();
  }
}

}  // namespace

TransformerConfig read_transformer_config(const fs::path& directory) {
  const auto path = directory / "config.json";
  auto values = read_json(path);
  if (!values.is_object()) {
    throw DataError(fmt::format("{}: expected a JSON object", path.string()));
  }
  take_other_spellings(values, path);
  const ConfigFile config(path, values);
  const auto family = config.text("model_type", "");
  const auto* found = find_family(family);
  if (found == nullptr) {
    std::vector<std::string> known;
    for (const auto& one : families()) {
      known.push_back(one.type);
    }
    throw DataError(fmt::format("{}: model_type = \"{}\" is not supported, expected one of {}", path.string(), family,
                                fmt::join(known, ", ")));
  }
  check_config_keys(config, family);
  auto out = found->read(config);
  out.family = family;
  out.notes = notes_on_keys(config, family);
  read_common(config, *found, out);
  out.key_heads = out.key_heads > 0 ? out.key_heads : out.heads;
  if (out.head_width == 0) {
    if (out.width % out.heads != 0) {
      throw DataError(
          fmt::format("{}: a width of {} over {} heads, expected a multiple", path.string(), out.width, out.heads));
    }
    out.head_width = out.width / out.heads;
  }
  if (out.heads % out.key_heads != 0) {
    throw DataError(fmt::format("{}: num_key_value_heads = {}, expected a divisor of {} heads", path.string(),
                                out.key_heads, out.heads));
  }
  if (out.context < 1) {
    throw DataError(fmt::format("{}: no positions are left for tokens", path.string()));
  }
  out.embedding_width = out.embedding_width > 0 ? out.embedding_width : out.width;
  out.windows.resize(static_cast<std::size_t>(out.layers), 0);
  out.json = std::move(values);
  return out;
}

std::string difference_of(const TransformerConfig& a, const TransformerConfig& b) {
  const auto facts = [](const TransformerConfig& c) {
    const auto rotary = [](const Rotary& r) {
      return fmt::format("{} {} {} {} {} {} {} {} {} {} {}", r.width, r.base, r.scaling, r.factor, r.low_frequency,
                         r.high_frequency, r.beta_fast, r.beta_slow, r.attention_factor, r.truncate,
                         r.original_context);
    };
    return std::vector<std::pair<const char*, std::string>>{
        {"model_type", c.family},
        {"the vocabulary", std::to_string(c.vocabulary)},
        {"the context", std::to_string(c.context)},
        {"the width", std::to_string(c.width)},
        {"the layers", std::to_string(c.layers)},
        {"the heads", fmt::format("{}, {} for keys, of {}", c.heads, c.key_heads, c.head_width)},
        {"the inner width", std::to_string(c.inner)},
        {"the activation", c.activation},
        {"tie_word_embeddings", fmt::format("{}", c.tied)},
        {"parallel attention and mlp", fmt::format("{}", c.parallel)},
        {"biases", fmt::format("{} {} {}", c.query_bias, c.attention_out_bias, c.mlp_bias)},
        {"the scale of attention", fmt::format("{} {}", c.scale_by_layer, c.scale_attention)},
        {"the norms' epsilon", fmt::format("{}", c.epsilon)},
        {"the first position", std::to_string(c.position_offset)},
        {"the token types", std::to_string(c.type_count)},
        {"pad_token_id", std::to_string(c.pad_token)},
        {"the width of embeddings", std::to_string(c.embedding_width)},
        {"the norms", fmt::format("{} {} {} {}", c.post_norm, c.norm_bias, c.names.final_norm, c.names.attention_norm)},
        {"the activations of heads", fmt::format("{} {}", c.head_activation, c.class_activation)},
        {"query_pre_attn_scalar", fmt::format("{}", c.query_scalar)},
        {"softcapping", fmt::format("{} {}", c.attention_softcap, c.output_softcap)},
        {"classifier_pooling", c.mean_pooling ? "mean" : "one token"},
        {"experts", fmt::format("{} of {} x {} {} {}", c.experts.chosen, c.experts.count, c.experts.inner,
                                c.experts.shares, fmt::join(c.experts.blocks, " "))},
        {"rotary positions", rotary(c.rotary)},
        {"rotary positions of layers with windows", rotary(c.window_rotary)},
        {"how far back layers look", fmt::format("{}", fmt::join(c.windows, " "))}};
  };
  const auto of_a = facts(a), of_b = facts(b);
  for (std::size_t i = 0; i < of_a.size(); ++i) {
    if (of_a[i].second != of_b[i].second) {
      return fmt::format("{}: {}, expected {}", of_a[i].first, of_b[i].second, of_a[i].second);
    }
  }
  return {};
}

}  // namespace whence::detail
