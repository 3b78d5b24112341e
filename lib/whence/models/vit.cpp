#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "whence/core/described.h"
#include "whence/core/json.h"
#include "whence/data/sealed_safetensors.h"
#include "whence/models/detail/config_keys.h"
#include "whence/models/detail/families.h"
#include "whence/models/detail/model_folder.h"
#include "whence/models/interruptible.h"
#include "whence/models/model.h"
#include "whence/models/ops.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

struct VitOptions {
  std::string directory;
  bool normalize = true;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("directory", self.directory, AnyText{},
          "holds config.json; weights there are where training starts, else it starts at random");
    field("normalize", self.normalize, kAny,
          "give pixels in 0 to 1 the image_mean and image_std of preprocessor_config.json there; false: as they come");
  }
};

/// A vision transformer as config.json describes it.
struct VitConfig {
  std::int64_t width = 0, layers = 0, heads = 0, inner = 0, image = 0, patch = 0, channels = 0;
  std::string activation;
  bool query_bias = true;
  double epsilon = 1e-12, initial_deviation = 0.02;
  std::vector<double> mean, deviation;  // of each channel; empty: pixels are taken as they come
  nlohmann::json json;

  std::int64_t patches() const { return (image / patch) * (image / patch); }
};

/// The one number that image_size or patch_size is.
std::int64_t side_of(const detail::ConfigFile& config, const char* key, std::int64_t otherwise) {
  if (config.has(key) && config.values()[key].is_array()) {
    const auto& list = config.values()[key];
    config.expect(key, list.size() == 2 && list[0] == list[1] && list[0].is_number_integer() && list[0] > 0,
                  "one number, or two that are the same");
    return list[0];
  }
  return config.count(key, otherwise);
}

void check_vit_keys(const detail::ConfigFile& config) {
  static const detail::ConfigKeys known = {
      "model_type",          "architectures", "hidden_size",       "num_hidden_layers", "intermediate_size",
      "num_attention_heads", "hidden_act",    "layer_norm_eps",    "image_size",        "patch_size",
      "num_channels",        "qkv_bias",      "initializer_range", "encoder_stride",    "pooler_output_size",
      "pooler_act",          "id2label",      "num_labels",        "problem_type"};
  for (const auto& [key, value] : config.values().items()) {
    if (known.count(key) == 0 && !detail::decides_nothing(key)) {
      throw DataError(fmt::format("{}: key {} = {} is none that a vit is known to have", config.path().string(), key,
                                  brief(value)));
    }
  }
}

/// Numbers of each channel.
std::vector<double> channel_numbers(const detail::ConfigFile& config, const char* key, std::int64_t channels) {
  const auto& list = config.values()[key];
  const auto numbers = [](const nlohmann::json& x) { return x.is_number() && std::isfinite(x.get<double>()); };
  config.expect(key,
                list.is_array() && static_cast<std::int64_t>(list.size()) == channels &&
                    std::all_of(list.begin(), list.end(), numbers),
                fmt::format("a list of {} numbers, one a channel", channels));
  return list.get<std::vector<double>>();
}

/// What preprocessor_config.json does to pixels in 0 to 1.
void read_preprocessor(const fs::path& folder, VitConfig& out) {
  const auto path = folder / "preprocessor_config.json";
  if (!fs::exists(path)) {
    return;
  }
  const detail::ConfigFile config(path, read_json(path));
  config.expect("do_rescale", config.flag("do_rescale", true), "true: whence's pixels are in 0 to 1");
  if (config.flag("do_normalize", true) && config.has("image_mean") && config.has("image_std")) {
    out.mean = channel_numbers(config, "image_mean", out.channels);
    out.deviation = channel_numbers(config, "image_std", out.channels);
    for (const double x : out.deviation) {
      config.expect("image_std", x > 0, "numbers > 0");
    }
  }
}

VitConfig read_vit_config(const fs::path& folder, bool normalize) {
  const auto path = folder / "config.json";
  auto values = read_json(path);
  if (!values.is_object()) {
    throw DataError(fmt::format("{}: expected a JSON object", path.string()));
  }
  const detail::ConfigFile config(path, std::move(values));
  config.expect("model_type", config.text("model_type", "") == "vit", "vit");
  check_vit_keys(config);
  VitConfig out;
  out.width = config.count("hidden_size");
  out.layers = detail::blocks_of(config, "num_hidden_layers");
  out.heads = config.count("num_attention_heads");
  config.expect("num_attention_heads", out.width % out.heads == 0, fmt::format("a divisor of {}", out.width));
  out.inner = config.count("intermediate_size");
  out.activation = detail::activation_of(config, "hidden_act", "gelu");
  out.epsilon = config.number("layer_norm_eps", 1e-12);
  out.initial_deviation = config.number("initializer_range", 0.02);
  out.channels = config.count("num_channels", 3);
  out.image = side_of(config, "image_size", 224);
  out.patch = side_of(config, "patch_size", 16);
  config.expect("patch_size", out.patch <= out.image, fmt::format("at most image_size = {}", out.image));
  out.query_bias = config.flag("qkv_bias", true);
  if (normalize) {
    read_preprocessor(folder, out);
  }
  out.json = config.values();
  return out;
}

/// Images in patches through a transformer that sees both ways; the head reads the token before them. A. Dosovitskiy et
/// al., "An Image is Worth 16x16 Words", ICLR 2021. Parameters are called as transformers' ViTForImageClassification
/// calls them.
class Vit : public Model, public Described {
 public:
  explicit Vit(VitOptions options) : directory_(options.directory) {
    if (options.directory.empty()) {
      throw InvalidArgument("vit: option directory is missing, expected a folder with a config.json");
    }
    config_ = read_vit_config(directory_, options.normalize);
  }

  /// What config.json says, and what is done to pixels, wherever the folder lies.
  std::string description() const override {
    return fmt::format("{} {} {}", json_text(config_.json), fmt::join(config_.mean, " "),
                       fmt::join(config_.deviation, " "));
  }
  Head head() const override { return Head("classifier"); }
  std::vector<fs::path> files() const override {
    auto out = detail::weight_files(directory_);
    out.push_back(directory_ / "config.json");
    return out;
  }
  bool is_trained() const override { return !detail::weight_files(directory_).empty(); }

  ParameterSet initial(at::IntArrayRef input_shape, std::int64_t outputs, Random& random) const override {
    check_shape(input_shape);
    ParameterSet stored;
    for (const auto& file : detail::weight_files(directory_)) {
      const auto part = read_intact_weights(file);
      for (std::size_t i = 0; i < part.size(); ++i) {
        stored.add(part.names()[i], part.values()[i]);
      }
    }
    ParameterSet theta;
    const auto add = [&](const std::string& name, const std::vector<std::int64_t>& shape, const char* start) {
      if (stored.contains(name) && (stored.at(name).sizes() == at::IntArrayRef(shape) || !head().holds(name))) {
        check_stored(name, stored.at(name), shape);
        theta.add(name, stored.at(name));
      } else if (!stored.empty() && !head().holds(name)) {
        throw DataError(fmt::format("{}: tensor \"{}\" is missing", directory_.string(), name));
      } else {
        theta.add(name, *start == 'n'   ? random.stream(name).normal(shape) * config_.initial_deviation
                        : *start == '1' ? at::ones(shape, at::kDouble)
                                        : at::zeros(shape, at::kDouble));
      }
    };
    const auto layer = [&](const std::string& name, std::vector<std::int64_t> shape, bool bias = true) {
      const auto out = shape[0];
      add(name + ".weight", shape, "normal");
      if (bias) {
        add(name + ".bias", {out}, "0");
      }
    };
    const auto norm = [&](const std::string& name) {
      add(name + ".weight", {config_.width}, "1");
      add(name + ".bias", {config_.width}, "0");
    };
    const auto& c = config_;
    add(kFirst, {1, 1, c.width}, "normal");
    add(kPlaces, {1, c.patches() + 1, c.width}, "normal");
    layer(kPatches, {c.width, c.channels, c.patch, c.patch});
    for (std::int64_t l = 0; l < c.layers; ++l) {
      for (const char* part : {"query", "key", "value"}) {
        layer(in_block(l, fmt::format("attention.attention.{}", part)), {c.width, c.width}, c.query_bias);
      }
      layer(in_block(l, "attention.output.dense"), {c.width, c.width});
      layer(in_block(l, "intermediate.dense"), {c.inner, c.width});
      layer(in_block(l, "output.dense"), {c.width, c.inner});
      norm(in_block(l, "layernorm_before"));
      norm(in_block(l, "layernorm_after"));
    }
    norm(kLastNorm);
    layer(head().name(), {outputs, c.width});
    return theta;
  }

  at::Tensor output(const ParameterSet& theta, const Batch& batch, Tape* tape) const override {
    check_shape(batch.inputs.sizes().slice(1));
    const auto& c = config_;
    const auto images = normalized(inputs_like(theta, batch.inputs));
    const auto count = images.size(0), length = c.patches() + 1, width = c.width;
    const auto patches = convolution(theta, kPatches, images, c.patch, /*padding=*/0, tape).flatten(2).transpose(1, 2);
    const auto first =
        scaled(theta, "", kFirst, at::zeros({count, width}, patches.options().requires_grad(false)), tape);
    auto x = at::cat({first.unsqueeze(1), patches}, 1).flatten(1);
    x = scaled(theta, "", kPlaces, x, tape).view({count * length, width});
    RowMap before;
    if (tape != nullptr) {
      before = tape->rows;
      const auto rows = at::arange(count * length, at::TensorOptions(at::kLong).device(images.device()));
      tape->rows = RowMap{at::floor_divide(rows, length), rows.view({count, length}), {}, true};
    }
    for (std::int64_t l = 0; l < c.layers; ++l) {
      x = x + attend(theta, l, layer_norm(theta, in_block(l, "layernorm_before"), x, c.epsilon, tape), count, tape);
      const auto inner = through(theta, in_block(l, "intermediate.dense"),
                                 layer_norm(theta, in_block(l, "layernorm_after"), x, c.epsilon, tape), tape);
      x = interruptible(x + through(theta, in_block(l, "output.dense"), activation(c.activation, inner), tape, true));
    }
    if (tape != nullptr) {
      tape->rows = before;
    }
    x = x.view({count, length, width}).select(1, 0);
    return linear(theta, head().name(), layer_norm(theta, kLastNorm, x, c.epsilon, tape), tape);
  }

 private:
  static constexpr const char* kFirst = "vit.embeddings.cls_token";
  static constexpr const char* kPlaces = "vit.embeddings.position_embeddings";
  static constexpr const char* kPatches = "vit.embeddings.patch_embeddings.projection";
  static constexpr const char* kLastNorm = "vit.layernorm";

  static std::string in_block(std::int64_t block, std::string_view name) {
    return fmt::format("vit.encoder.layer.{}.{}", block, name);
  }

  void check_shape(at::IntArrayRef shape) const {
    const auto& c = config_;
    const bool grey = shape.size() == 2 && c.channels == 1 && shape[0] == c.image && shape[1] == c.image;
    if (!grey && shape != at::IntArrayRef({c.channels, c.image, c.image})) {
      throw InvalidArgument(fmt::format("vit: images of shape [{}], expected [{}, {}, {}] as {} has it: scale them",
                                        fmt::join(shape, ", "), c.channels, c.image, c.image,
                                        (directory_ / "config.json").string()));
    }
  }

  void check_stored(const std::string& name, const at::Tensor& value, const std::vector<std::int64_t>& shape) const {
    if (value.sizes() != at::IntArrayRef(shape) || !value.is_floating_point()) {
      throw DataError(fmt::format("{}: tensor \"{}\" has shape [{}] of {}, expected [{}] of a floating type",
                                  directory_.string(), name, fmt::join(value.sizes(), ", "),
                                  c10::toString(value.scalar_type()), fmt::join(shape, ", ")));
    }
    if (!at::isfinite(value).all().item<bool>()) {
      throw DataError(fmt::format("{}: tensor \"{}\" holds NaN or infinity", directory_.string(), name));
    }
  }

  /// [B, channels, image, image]
  at::Tensor normalized(const at::Tensor& inputs) const {
    const auto x = inputs.reshape({inputs.size(0), config_.channels, config_.image, config_.image});
    if (config_.mean.empty()) {
      return x;
    }
    const auto of_channels = [&](const std::vector<double>& numbers) {
      return at::tensor(numbers, at::kDouble).view({1, -1, 1, 1}).to(x.options().requires_grad(false));
    };
    return (x - of_channels(config_.mean)) / of_channels(config_.deviation);
  }

  static at::Tensor through(const ParameterSet& theta, const std::string& layer, const at::Tensor& x, Tape* tape,
                            bool joins = false) {
    const auto bias = layer + ".bias";
    return linear(theta, {layer + ".weight", theta.contains(bias) ? bias : "", false, joins}, x, tape);
  }

  at::Tensor attend(const ParameterSet& theta, std::int64_t block, const at::Tensor& x, std::int64_t images,
                    Tape* tape) const {
    const auto width = config_.width / config_.heads;
    const auto part = [&](const char* name) {
      return through(theta, in_block(block, fmt::format("attention.attention.{}", name)), x, tape)
          .view({images, -1, config_.heads, width})
          .transpose(1, 2);
    };
    const auto q = part("query"), k = part("key"), v = part("value");
    const auto seen = attention(theta, in_block(block, "attention.attention"), q, k, v, {}, /*causal=*/false,
                                1 / std::sqrt(static_cast<double>(width)), tape);
    return through(theta, in_block(block, "attention.output.dense"), seen.transpose(1, 2).reshape({x.size(0), -1}),
                   tape, true);
  }

  fs::path directory_;
  VitConfig config_;
};

}  // namespace

WHENCE_METHOD(Model, vit, Vit, VitOptions)

}  // namespace whence
