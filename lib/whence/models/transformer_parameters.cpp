#include "whence/models/detail/transformer_parameters.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/models/head.h"

namespace whence::detail {

using Start = DeclaredParameter::Start;

std::string FamilyNames::in_block(std::int64_t number, const std::string& name) const {
  return base(fmt::format(fmt::runtime(block), number) + name);
}

std::vector<DeclaredParameter> declared_parameters(const TransformerConfig& c, std::int64_t classes) {
  const auto& n = c.names;
  std::vector<DeclaredParameter> out;
  const auto weight = [&](const std::string& layer, std::int64_t rows, std::int64_t columns) {
    out.push_back({layer + ".weight", {rows, columns}, Start::kNormal});
  };
  const auto linear_layer = [&](const std::string& layer, std::int64_t in, std::int64_t to, bool bias,
                                bool transposed) {
    weight(layer, transposed ? in : to, transposed ? to : in);
    if (bias) {
      out.push_back({layer + ".bias", {to}, Start::kZeros});
    }
  };
  const auto norm = [&](const std::string& layer) {
    out.push_back({layer + ".weight", {c.width}, Start::kOnes});
    if (!c.rms) {
      out.push_back({layer + ".bias", {c.width}, Start::kZeros});
    }
  };
  weight(n.base(n.tokens), c.vocabulary, c.width);
  if (!n.positions.empty()) {
    weight(n.base(n.positions), c.context + c.position_offset, c.width);
  }
  if (!n.types.empty()) {
    weight(n.base(n.types), c.type_count, c.width);
  }
  if (!n.embedding_norm.empty()) {
    norm(n.base(n.embedding_norm));
  }
  const auto queries = c.heads * c.head_width, keys = c.key_heads * c.head_width;
  for (std::int64_t l = 0; l < c.layers; ++l) {
    norm(n.in_block(l, n.attention_norm));
    if (c.fused != FusedOrder::kNone) {
      linear_layer(n.in_block(l, n.query_key_value), c.width, queries + 2 * keys, c.query_bias, c.transposed);
    } else {
      linear_layer(n.in_block(l, n.query), c.width, queries, c.query_bias, c.transposed);
      linear_layer(n.in_block(l, n.key), c.width, keys, c.query_bias, c.transposed);
      linear_layer(n.in_block(l, n.value), c.width, keys, c.query_bias, c.transposed);
    }
    linear_layer(n.in_block(l, n.attention_out), queries, c.width, c.attention_out_bias, c.transposed);
    norm(n.in_block(l, n.mlp_norm));
    if (!n.mlp_gate.empty()) {
      linear_layer(n.in_block(l, n.mlp_gate), c.width, c.inner, c.mlp_bias, c.transposed);
    }
    linear_layer(n.in_block(l, n.mlp_in), c.width, c.inner, c.mlp_bias, c.transposed);
    linear_layer(n.in_block(l, n.mlp_out), c.inner, c.width, c.mlp_bias, c.transposed);
  }
  if (!n.final_norm.empty()) {
    norm(n.base(n.final_norm));
  }
  if (classes > 0) {
    const Head head;
    if (!n.class_dense.empty()) {
      linear_layer(head.qualified(n.class_dense), c.width, c.width, true, false);
    }
    linear_layer(head.qualified(n.classifier), c.width, classes, !n.class_dense.empty(), false);
    return out;
  }
  if (!n.head_dense.empty()) {
    linear_layer(n.head_dense, c.width, c.width, true, false);
    out.push_back({n.head_norm + ".weight", {c.width}, Start::kOnes});
    out.push_back({n.head_norm + ".bias", {c.width}, Start::kZeros});
  }
  if (!c.tied) {
    weight(n.head, c.vocabulary, c.width);
  }
  if (!n.head_bias.empty()) {
    out.push_back({n.head_bias, {c.vocabulary}, Start::kZeros});
  }
  return out;
}

at::Tensor fresh_parameter(const DeclaredParameter& parameter, const TransformerConfig& config, const Random& random) {
  switch (parameter.start) {
    case Start::kOnes:
      return at::ones(parameter.shape, at::kDouble);
    case Start::kZeros:
      return at::zeros(parameter.shape, at::kDouble);
    case Start::kNormal:
      break;
  }
  return random.stream(parameter.name).normal(parameter.shape) * config.initial_deviation;
}

}  // namespace whence::detail
