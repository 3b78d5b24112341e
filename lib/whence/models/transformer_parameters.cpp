#include "whence/models/detail/transformer_parameters.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/models/head.h"

namespace whence::detail {

using Start = DeclaredParameter::Start;

std::string FamilyNames::in_block(std::int64_t number, const std::string& name) const {
  return base(fmt::format(fmt::runtime(block), number) + name);
}

std::string FamilyNames::in_expert(std::int64_t number, std::int64_t expert_number, const std::string& name) const {
  return in_block(number, fmt::format(fmt::runtime(expert), expert_number) + name);
}

std::string FamilyNames::in_files(const std::string& name) const {
  const auto bare = Head().unqualified(name);
  for (const auto& [here, there] : stored) {
    if (bare.starts_with(here)) {
      return there + bare.substr(here.size());
    }
  }
  return bare;
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
  const auto norm_of = [&](const std::string& layer, std::int64_t width) {
    out.push_back({layer + ".weight", {width}, c.norm_offset == 0 ? Start::kOnes : Start::kZeros});
    if (!c.rms && c.norm_bias) {
      out.push_back({layer + ".bias", {width}, Start::kZeros});
    }
  };
  const auto norm = [&](const std::string& layer) { norm_of(layer, c.width); };
  const auto norm_in_block = [&](std::int64_t block, const std::string& layer) {
    if (!layer.empty()) {
      norm(n.in_block(block, layer));
    }
  };
  weight(n.base(n.tokens), c.vocabulary, c.embedding_width);
  if (!n.positions.empty()) {
    const auto width = n.embedding_norm.empty() ? c.width : c.embedding_width;  // added before or behind into_width
    weight(n.base(n.positions), c.context + c.position_offset, width);
  }
  if (!n.types.empty()) {
    weight(n.base(n.types), c.type_count, c.embedding_width);
  }
  if (!n.embedding_norm.empty()) {
    norm_of(n.base(n.embedding_norm), c.embedding_width);
  }
  if (!n.into_width.empty()) {
    linear_layer(n.base(n.into_width), c.embedding_width, c.width, c.into_width_bias, false);
  }
  const auto queries = c.heads * c.head_width, keys = c.key_heads * c.head_width;
  for (std::int64_t l = 0; l < c.layers; ++l) {
    norm_in_block(l, l == 0 && !c.first_norm ? "" : n.attention_norm);
    if (c.fused != FusedOrder::kNone) {
      linear_layer(n.in_block(l, n.query_key_value), c.width, queries + 2 * keys, c.query_bias, c.transposed);
    } else {
      linear_layer(n.in_block(l, n.query), c.width, queries, c.query_bias, c.transposed);
      linear_layer(n.in_block(l, n.key), c.width, keys, c.query_bias, c.transposed);
      linear_layer(n.in_block(l, n.value), c.width, keys, c.query_bias, c.transposed);
    }
    if (c.query_norm != QueryNorm::kNone) {
      const bool whole = c.query_norm == QueryNorm::kWhole;
      norm_of(n.in_block(l, n.query_norm), whole ? queries : c.head_width);
      norm_of(n.in_block(l, n.key_norm), whole ? keys : c.head_width);
    }
    linear_layer(n.in_block(l, n.attention_out), queries, c.width, c.attention_out_bias, c.transposed);
    norm_in_block(l, n.attention_post_norm);
    norm_in_block(l, n.mlp_norm);
    if (c.is_sparse(l)) {
      weight(n.in_block(l, n.router), c.experts.count, c.width);
      for (std::int64_t e = 0; e < c.experts.count; ++e) {
        weight(n.in_expert(l, e, n.expert_gate), c.experts.inner, c.width);
        weight(n.in_expert(l, e, n.expert_in), c.experts.inner, c.width);
        weight(n.in_expert(l, e, n.expert_out), c.width, c.experts.inner);
      }
    } else {
      if (!n.mlp_gate_in.empty()) {
        linear_layer(n.in_block(l, n.mlp_gate_in), c.width, 2 * c.inner, c.mlp_bias, c.transposed);
      }
      for (const auto& layer : {n.mlp_gate, n.mlp_in}) {
        if (!layer.empty()) {
          linear_layer(n.in_block(l, layer), c.width, c.inner, c.mlp_bias, c.transposed);
        }
      }
      linear_layer(n.in_block(l, n.mlp_out), c.inner, c.width, c.mlp_bias, c.transposed);
    }
    norm_in_block(l, n.mlp_post_norm);
  }
  if (!n.final_norm.empty()) {
    norm(n.base(n.final_norm));
  }
  if (!n.out_of_width.empty()) {
    linear_layer(n.base(n.out_of_width), c.width, c.embedding_width, false, false);
  }
  const auto read_width = n.out_of_width.empty() ? c.width : c.embedding_width;  // of what heads read
  if (classes > 0) {
    const Head head;
    if (!n.class_dense.empty()) {
      linear_layer(head.qualified(n.class_dense), read_width, read_width, c.class_dense_bias, false);
    }
    if (!n.class_norm.empty()) {
      norm_of(head.qualified(n.class_norm), read_width);
    }
    linear_layer(head.qualified(n.classifier), read_width, classes, !n.class_dense.empty(), false);
    return out;
  }
  if (!n.head_dense.empty()) {
    linear_layer(n.head_dense, read_width, c.embedding_width, c.head_dense_bias, false);
    norm_of(n.head_norm, c.embedding_width);
  }
  if (!c.tied) {
    weight(n.head, c.vocabulary, c.embedding_width);
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
