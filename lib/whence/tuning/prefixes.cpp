#include "whence/tuning/detail/prefixes.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/models/ops.h"

namespace whence::detail {

std::string prefix_key(std::string_view module, std::int64_t key_head) {
  return added_name(module, fmt::format("prefix_key.{}", key_head));
}
std::string prefix_value(std::string_view module, std::int64_t key_head) {
  return added_name(module, fmt::format("prefix_value.{}", key_head));
}

at::Tensor PlainPrefix::logits(const ParameterSet& theta, std::int64_t key_head, const at::Tensor& q,
                               Tape* tape) const {
  return linear(theta, {prefix_key(site_.module, key_head), "", /*transposed=*/false}, q, tape);
}

at::Tensor PlainPrefix::brought(const ParameterSet& theta, std::int64_t key_head, const at::Tensor& weights,
                                Tape* tape) const {
  return linear(theta, {prefix_value(site_.module, key_head), "", /*transposed=*/true}, weights, tape);
}

std::vector<std::string> PlainPrefix::parameters() const {
  std::vector<std::string> out;
  for (std::int64_t g = 0; g < site_.key_heads; ++g) {
    out.push_back(prefix_key(site_.module, g));
    out.push_back(prefix_value(site_.module, g));
  }
  return out;
}

Prefix::Whole PlainPrefix::whole(const ParameterSet& theta) const {
  TensorList keys, values;
  for (std::int64_t g = 0; g < site_.key_heads; ++g) {
    keys.push_back(theta.at(prefix_key(site_.module, g)));
    values.push_back(theta.at(prefix_value(site_.module, g)));
  }
  return {at::stack(keys), at::stack(values)};
}

std::vector<const PlainPrefix*> prefixes_of(const ParameterSet& tuned) {
  std::vector<const PlainPrefix*> out;
  for (const auto& [module, here] : *tuned.additions()) {
    for (const auto& addition : here) {
      if (const auto* prefix = dynamic_cast<const PlainPrefix*>(addition.get())) {
        out.push_back(prefix);
      }
    }
  }
  std::sort(out.begin(), out.end(), [](const auto* a, const auto* b) { return a->layer() < b->layer(); });
  return out;
}

ParameterSet BeforeTexts::trainable(const TuningStart& start, const Random& random) const {
  if (start.parent.empty()) {
    throw InvalidArgument(
        fmt::format("{}: it stands before the texts of a body that it leaves as it is, and needs a stage before it "
                    "that hands one on",
                    name()));
  }
  auto out = start.head.of(start.fresh).without(start.parent);
  const auto more = added(start, start.pass(), random.stream(name()));
  const auto options = start.fresh.values().front().options();
  for (std::size_t i = 0; i < more.size(); ++i) {
    if (start.parent.contains(more.names()[i])) {
      throw InvalidArgument(
          fmt::format("{}: a stage before has trained {} already, and hands it on", name(), more.names()[i]));
    }
    out.add(more.names()[i], more.values()[i].to(options));
  }
  if (out.empty()) {
    throw InvalidArgument(fmt::format("{}: of length 0, and without a head, there is nothing to train", name()));
  }
  return out.with_additions(more.additions());
}

at::Tensor BeforeTexts::penalty(const ParameterSet&, const ParameterSet& tuned, double weight_decay) const {
  auto total = at::zeros({}, tuned.values().front().options());
  for (const auto& value : tuned.values()) {
    total = total + 0.5 * weight_decay * value.square().sum();
  }
  return total;
}

std::vector<AttentionSite> sites_for_prefix(std::string_view tuning, const ParameterSet& parent, const Tape& pass) {
  const auto& sites = pass.attention;
  if (sites.empty()) {
    throw InvalidArgument(fmt::format("{}: no attention in the model, expected a transformer", tuning));
  }
  for (const auto& site : sites) {
    if (site.key_heads != sites.front().key_heads || site.head_width != sites.front().head_width) {
      throw InvalidArgument(fmt::format("{}: {} has {} key heads of {}, expected those of {}, {} of {}", tuning,
                                        site.module, site.key_heads, site.head_width, sites.front().module,
                                        sites.front().key_heads, sites.front().head_width));
    }
    if (prefix_at(parent, site.module) != nullptr) {
      throw InvalidArgument(
          fmt::format("{}: a stage before has put a prefix at {} already, and hands it on", tuning, site.module));
    }
  }
  return sites;
}

std::shared_ptr<const Additions> plain_prefixes(const std::vector<AttentionSite>& sites, std::int64_t length) {
  Additions out;
  for (std::size_t l = 0; l < sites.size(); ++l) {
    out[sites[l].module].push_back(std::make_shared<PlainPrefix>(sites[l], static_cast<std::int64_t>(l), length));
  }
  return std::make_shared<const Additions>(std::move(out));
}

}  // namespace whence::detail
