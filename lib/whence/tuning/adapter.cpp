// A bottleneck behind a layer, y + up(activation(down(y))), which starts at 0. N. Houlsby et al., "Parameter-Efficient
// Transfer Learning for NLP", ICML 2019.
#include <ATen/ATen.h>

#include <algorithm>
#include <functional>

#include "whence/models/ops.h"
#include "whence/tuning/detail/added_tuning.h"

namespace whence {
namespace {

struct AdapterOptions {
  std::int64_t width = 64;
  std::string activation = "gelu";
  std::string targets{detail::kAllTargets};

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("width", self.width, kAtLeastOne, "units of the bottleneck");
    field("activation", self.activation, OneOf{kActivations}, "in the bottleneck; tanh and gelu are smooth");
    field("targets", self.targets, AnyText{},
          "layers, a+b, by name or its end; all: those of a transformer's blocks whose output joins the residual "
          "stream, before it does; of other models every linear layer and convolution of the body, before its "
          "activation");
  }
};

class Bottleneck : public Addition, public Described {
 public:
  Bottleneck(const detail::Target& target, std::string activation)
      : down_(target.qualified("adapter_down")),
        up_(target.qualified("adapter_up")),
        activation_(std::move(activation)) {}

  at::Tensor after(const ParameterSet& theta, const TapeEntry& site, const at::Tensor&, const at::Tensor& output,
                   Tape* tape) const override {
    const auto layer = [&](const std::string& name, const at::Tensor& x) {
      return site.kind == TapeEntry::Kind::kConvolution ? convolution(theta, name, x, 1, 0, tape)
                                                        : linear(theta, name, x, tape);
    };
    return output + layer(up_, activation(activation_, layer(down_, output)));
  }
  bool folds() const override { return false; }
  std::string description() const override { return activation_; }

 private:
  std::string down_, up_, activation_;
};

class Adapter : public detail::AddedTuning {
 public:
  explicit Adapter(AdapterOptions options) : options_(std::move(options)) {}
  std::string description() const override { return options_text(options_); }

 protected:
  std::string_view name() const override { return "adapter"; }
  std::string_view targets() const override { return options_.targets; }
  std::vector<detail::Target> all(std::vector<detail::Target> fitting) const override {
    const auto joins = [](const detail::Target& target) { return target.site.joins; };
    if (std::any_of(fitting.begin(), fitting.end(), joins)) {
      fitting.erase(std::remove_if(fitting.begin(), fitting.end(), std::not_fn(joins)), fitting.end());
    }
    return fitting;
  }

  void check(const std::vector<detail::Target>& chosen) const override {
    double outputs = 0;
    for (const auto& target : chosen) {
      outputs += static_cast<double>(target.outputs());
    }
    detail::check_size(name(), "width", options_.width, 2 * outputs * static_cast<double>(options_.width));
  }
  ParameterSet start(const detail::Target& target, const Random& random) const override {
    std::vector<std::int64_t> down{options_.width, target.outputs()}, up{target.outputs(), options_.width};
    if (target.is_convolution()) {
      down.insert(down.end(), {1, 1});
      up.insert(up.end(), {1, 1});
    }
    ParameterSet out;
    add_layer(out, "adapter_down", down, options_.activation, random);
    return out.join({{"adapter_up.weight", at::zeros(up, at::kDouble)},
                     {"adapter_up.bias", at::zeros({target.outputs()}, at::kDouble)}});
  }
  std::shared_ptr<const Addition> addition(const detail::Target& target) const override {
    return std::make_shared<Bottleneck>(target, options_.activation);
  }

 private:
  AdapterOptions options_;
};

}  // namespace

WHENCE_METHOD(Tuning, adapter, Adapter, AdapterOptions)

}  // namespace whence
