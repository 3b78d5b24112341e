// Keys and values that every text's tokens see before their own, at each attention: trained as they are, or made by a
// network of one hidden layer. X. Li and P. Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", ACL
// 2021, in the form that PEFT computes: keys are not turned by rotary positions, and texts begin at position `length`.
// With sliding windows every token sees the whole prefix, where transformers counts its places as the window's.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "whence/tuning/detail/prefixes.h"

namespace whence {
namespace {

struct PrefixOptions {
  std::int64_t length = 10;
  std::int64_t mlp = 0;
  double deviation = 1;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("length", self.length, kAtLeastZero, "keys and values before every text, at each attention; 0: none");
    field("mlp", self.mlp, kAtLeastZero,
          "width of a hidden tanh layer that makes them of an embedding, and is what is trained; 0: they are");
    field("deviation", self.deviation, kAtLeastZero, "standard deviation of where they, or the embedding, start");
  }
};

/// A parameter of the network that makes prefixes.
std::string maker(std::string_view part) { return added_name("prefix", part); }

class PrefixTuning : public detail::BeforeTexts {
 public:
  explicit PrefixTuning(PrefixOptions options) : options_(options) {}
  std::string description() const override { return options_text(options_); }

  ParameterSet merge(const ParameterSet& parent, const ParameterSet& tuned) const override {
    if (!tuned.contains(maker("embedding"))) {
      return parent.join(tuned);
    }
    const auto layer = [&](const char* name, const at::Tensor& x) {
      return at::linear(x, tuned.at(maker(fmt::format("{}.weight", name))),
                        tuned.at(maker(fmt::format("{}.bias", name))));
    };
    const auto made = layer("up", at::tanh(layer("down", tuned.at(maker("embedding")))));
    auto out = tuned.without(maker(""));
    for (const auto* prefix : detail::prefixes_of(tuned)) {
      const auto& [module, heads, width] = prefix->site();
      // [P, keys and values of each layer, heads, D], as PEFT lays it out
      const auto parts = made.view({prefix->length(), -1, heads, width});
      for (std::int64_t g = 0; g < heads; ++g) {
        out.add(detail::prefix_key(module, g), parts.select(1, 2 * prefix->layer()).select(1, g).contiguous());
        out.add(detail::prefix_value(module, g), parts.select(1, 2 * prefix->layer() + 1).select(1, g).contiguous());
      }
    }
    return parent.join(out.with_additions(tuned.additions()));
  }

 protected:
  std::string_view name() const override { return "prefix"; }

  ParameterSet added(const TuningStart& start, const Tape& pass, const Random& random) const override {
    const auto sites = detail::sites_for_prefix(name(), start.parent, pass);
    if (options_.length == 0) {
      return {};
    }
    ParameterSet out;
    if (options_.mlp > 0) {
      const auto layers = static_cast<std::int64_t>(sites.size());
      const auto width = sites.front().key_heads * sites.front().head_width;
      const auto uniform = [&](const char* parameter, std::int64_t inputs, at::IntArrayRef shape) {
        const double edge = 1 / std::sqrt(static_cast<double>(inputs));
        out.add(maker(parameter), random.stream(parameter).uniform(shape, -edge, edge));
      };
      out.add(maker("embedding"), options_.deviation * random.stream("embedding").normal({options_.length, width}));
      uniform("down.weight", width, {options_.mlp, width});
      uniform("down.bias", width, {options_.mlp});
      uniform("up.weight", options_.mlp, {2 * layers * width, options_.mlp});
      uniform("up.bias", options_.mlp, {2 * layers * width});
    } else {
      for (const auto& site : sites) {
        for (const auto& parameter : detail::PlainPrefix(site, 0, options_.length).parameters()) {
          out.add(parameter, options_.deviation * random.stream(parameter).normal({options_.length, site.head_width}));
        }
      }
    }
    return out.with_additions(detail::plain_prefixes(sites, options_.length));
  }

 private:
  PrefixOptions options_;
};

}  // namespace

WHENCE_METHOD(Tuning, prefix, PrefixTuning, PrefixOptions)

}  // namespace whence
