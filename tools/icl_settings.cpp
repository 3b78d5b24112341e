#include "icl_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "json.h"
#include "whence/core/error.h"
#include "whence/icl/state_kernel.h"

namespace whence::cli {
namespace po = boost::program_options;
namespace {

constexpr auto kSurprisal = "surprisal:center=false";  // outputs that do not repeat have no mean of their own

std::vector<std::int64_t> distinct(const std::set<std::int64_t>& layers) { return {layers.begin(), layers.end()}; }

/// The value that RidgeOptions has of itself.
std::string usual(std::string_view name) {
  for (const auto& option : describe(RidgeOptions{})) {
    if (option.name == name) {
      return option.value;
    }
  }
  throw std::logic_error(fmt::format("RidgeOptions has no {}", name));
}

std::string self_help() {
  const auto self = suspecting_ridge_options();
  return fmt::format(
      "`whence methods icl`; auto: ridge and, unless --kernel or --lambda is given, for the self scores ridge with "
      "kernel {} "
      "and lambda {} or, where outputs do not repeat, surprisal",
      self.kernel, self.lambda);
}

}  // namespace

std::vector<std::int64_t> every_layer(std::int64_t blocks) {
  std::vector<std::int64_t> layers(static_cast<std::size_t>(blocks) + 1);
  std::iota(layers.begin(), layers.end(), std::int64_t{0});
  return layers;
}

void IclSettings::add_options(CommandLine& line) {
  const auto ridge_help = [](std::string_view name, std::string_view help) {
    return fmt::format("{} [{}]", help, usual(name));
  };
  line.add()  //
      ("preset", po::value<std::string>(),
       "detail: as the paper DETAIL has it: kernel dot, lambda 1, the regulariser's term, position column, layers at a "
       "third and two thirds of the depth; the flags below change that")  //
      ("method", po::value<std::string>()->default_value("auto"),
       self_help().c_str())  //
      ("layers", po::value<std::string>()->default_value("upper"),
       "3,7 or all; 0: the embeddings, k: after block k; upper: at half, three quarters and the end of the depth; "
       "auto: the "
       "one that foretells the outputs of the task's \"validation\" best, without one as upper")  //
      ("lambda", po::value<double>(), ridge_help("lambda", "of the ridge regression").c_str())    //
      ("self-lambda", po::value<double>(), "in the curvature of the self scores [as lambda]")     //
      ("kernel", po::value<std::string>(),
       ridge_help("kernel", "how alike hidden states are: `whence methods icl-kernels`").c_str())  //
      ("projection", po::value<std::int64_t>(),
       ridge_help("projection", "dimensions of a random projection of the hidden states; 0: none").c_str())  //
      ("position", po::value<std::string>()->default_value("mean"),
       "where demonstrations are read: mean, the mean over the tokens before the output; column, the token before the "
       "output; label, the output's first; auto: column or mean, whichever foretells \"validation\" better")  //
      ("targets", po::value<std::string>()->default_value("auto"),
       "what is regressed on: one-hot outputs, the embedding of outputs, or auto: one-hot where outputs repeat");
}

IclSettings::IclSettings(const CommandLine& line) : line_(line) {
  if (line.has("preset")) {
    preset_ = line.text("preset");
    if (!detail()) {
      throw InvalidArgument(unknown_name("preset", preset_, {"detail"}));
    }
  }
  const auto spec = line.text("method") == "auto" ? std::string("ridge") : line.text("method");
  const auto [found, given] = find_method<IclMethod>(spec);
  method_name_ = found->name;
  method_ = found->make(given);
  if (method_->regression() != nullptr) {
    read_ridge(given);
  } else {
    for (const char* flag :
         {"lambda", "self-lambda", "kernel", "projection", "by-layer", "reorder", "select", "preset"}) {
      if (line.given(flag) && (std::string(flag) != "by-layer" || line.flag(flag))) {
        throw UsageError(fmt::format("--{} is for --method ridge, not {}", flag, method_name_));
      }
    }
  }
  const auto position = detail() && !line.given("position") ? "column" : line.text("position");
  positions_ = position == "auto" ? std::vector{ReadingPosition::kMean, ReadingPosition::kColumn}
                                  : std::vector{parse_reading_position(position)};
  reading_.position = positions_.front();
  reading_.targets = parse_target_view(line.text("targets"));
  reading_.attention = method_->needs().attention;
  reading_.surprisal = method_->needs().surprisal;
}

void IclSettings::read_ridge(std::string_view given) {
  if (detail() && !given.empty()) {
    throw UsageError(fmt::format("--preset detail and --method ridge:{} both say how; leave one out", given));
  }
  ridge_ = detail() ? detail_ridge_options() : *method_->regression();
  const auto take = [&](const char* flag, auto& value) {
    if (line_.has(flag)) {
      value = line_.get<std::decay_t<decltype(value)>>(flag);
    }
  };
  take("lambda", ridge_.lambda);
  take("self-lambda", ridge_.self_lambda);
  take("projection", ridge_.projection);
  take("kernel", ridge_.kernel);
  if (line_.has("seed")) {
    ridge_.seed = static_cast<std::int64_t>(line_.whole("seed", 0));
  }
  method_ = ridge_method(ridge_);
  create<StateKernel>(ridge_.kernel);
  self_ridge_ = ridge_;
  if (!detail() && line_.text("method") == "auto" && !line_.has("lambda") && !line_.has("self-lambda") &&
      !line_.has("kernel")) {
    self_ridge_ = suspecting_ridge_options();
    self_ridge_.projection = ridge_.projection;
    self_ridge_.seed = ridge_.seed;
    suspecting_ = ridge_method(self_ridge_);
    surprised_ = create<IclMethod>(kSurprisal);
  }
}

const IclMethod& IclSettings::self_method(const PromptTask& task) const {
  if (suspecting_ == nullptr) {
    return *method_;
  }
  return reading_.targets == TargetView::kAuto && !is_closed(task) ? *surprised_ : *suspecting_;
}

std::vector<std::int64_t> IclSettings::layers(std::int64_t blocks) const {
  const auto text = line_.text("layers");
  if (text == "auto") {
    return {};
  }
  if (text == "upper") {
    return usual_layers(blocks);
  }
  if (text == "all") {
    return every_layer(blocks);
  }
  std::vector<std::int64_t> layers;
  for (std::string_view rest = text; !rest.empty();) {
    const auto item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
    std::int64_t layer = -1;
    if (!whence::detail::read_option(item, layer) || layer < 0 || layer > blocks) {
      throw UsageError(
          fmt::format("--layers {}: \"{}\", expected upper, auto, all, or numbers from 0 to {}", text, item, blocks));
    }
    layers.push_back(layer);
  }
  if (layers.empty() || std::set<std::int64_t>(layers.begin(), layers.end()).size() != layers.size()) {
    throw UsageError(fmt::format("--layers {}: expected numbers from 0 to {} that differ", text, blocks));
  }
  return layers;
}

std::vector<std::int64_t> IclSettings::usual_layers(std::int64_t blocks) const {
  const auto at = [&](std::int64_t part, std::int64_t of) { return std::max<std::int64_t>(1, part * blocks / of); };
  return detail() ? distinct({at(1, 3), at(2, 3)}) : distinct({at(1, 2), at(3, 4), blocks});
}

Json IclSettings::json() const {
  Json options;
  options["preset"] = preset_.empty() ? Json(nullptr) : Json(preset_);
  options["method"] = method_name_;
  if (method_->regression() != nullptr) {
    for (const auto& option : describe(ridge_)) {
      options[option.name] = option.value;
    }
  } else {
    options["method"] = resolved_spec<IclMethod>(line_.text("method"));
  }
  if (suspecting_ != nullptr) {
    options["self-kernel"] = self_ridge_.kernel;
    options["self-ridge-lambda"] = fmt::format("{}", self_ridge_.lambda);
  }
  options["layers"] = line_.text("layers");
  options["position"] = positions_.size() > 1 ? "auto" : std::string(word_of(positions_.front()));
  options["targets"] = line_.text("targets");
  auto defaults = Json::array();
  const auto known = describe(RidgeOptions{});
  for (const auto& [name, value] : options.items()) {
    const auto own = std::find_if(known.begin(), known.end(), [&](const auto& option) { return option.name == name; });
    const bool usual =
        own == known.end() ? name != "preset" && !line_.given(name) : value.get<std::string>() == own->value;
    if (preset_.empty() && usual) {
      defaults.push_back(name);
    }
  }
  options["defaults"] = defaults;
  return options;
}

}  // namespace whence::cli
