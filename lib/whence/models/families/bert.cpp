// Encoders: BERT, RoBERTa, DistilBERT, ELECTRA and ModernBERT.
#include "whence/models/detail/families.h"

namespace whence::detail {
namespace {

/// What BERT's blocks are called, in three families.
FamilyNames bert_names(const std::string& prefix) {
  return {.prefix = prefix,
          .tokens = "embeddings.word_embeddings",
          .positions = "embeddings.position_embeddings",
          .types = "embeddings.token_type_embeddings",
          .embedding_norm = "embeddings.LayerNorm",
          .block = "encoder.layer.{}.",
          .attention_norm = "attention.output.LayerNorm",
          .mlp_norm = "output.LayerNorm",
          .query = "attention.self.query",
          .key = "attention.self.key",
          .value = "attention.self.value",
          .attention_out = "attention.output.dense",
          .mlp_in = "intermediate.dense",
          .mlp_out = "output.dense"};
}

void read_bert_blocks(const ConfigFile& config, TransformerConfig& out) {
  read_sizes(config, out);
  out.activation = activation_of(config, "hidden_act", "gelu");
  out.epsilon = config.number("layer_norm_eps", 1e-12);
  out.tied = config.flag("tie_word_embeddings", true);
  out.causal = false;
  out.post_norm = true;
  out.type_count = config.count("type_vocab_size", 2);
}

}  // namespace

/// BERT, and with other names of its heads and another numbering of positions RoBERTa.
TransformerConfig read_bert(const ConfigFile& config) {
  TransformerConfig out;
  const bool roberta = config.text("model_type", "") == "roberta";
  out.names = bert_names(roberta ? "roberta." : "bert.");
  out.names.head_dense = roberta ? "lm_head.dense" : "cls.predictions.transform.dense";
  out.names.head_norm = roberta ? "lm_head.layer_norm" : "cls.predictions.transform.LayerNorm";
  out.names.head = roberta ? "lm_head.decoder" : "cls.predictions.decoder";
  out.names.head_bias = roberta ? "lm_head.bias" : "cls.predictions.bias";
  out.names.class_dense = roberta ? "classifier.dense" : "bert.pooler.dense";
  out.names.classifier = roberta ? "classifier.out_proj" : "classifier";
  read_bert_blocks(config, out);
  out.head_activation = roberta ? "gelu" : "";  // whatever hidden_act says
  out.position_offset = roberta ? (config.has("pad_token_id") ? pad_token_of(config, 1) : 1) + 1 : 0;
  out.context = config.count("max_position_embeddings") - out.position_offset;
  out.architecture_of_tokens = roberta ? "RobertaForMaskedLM" : "BertForMaskedLM";
  out.architecture_of_classes = roberta ? "RobertaForSequenceClassification" : "BertForSequenceClassification";
  return out;
}

/// V. Sanh et al., "DistilBERT, a distilled version of BERT", 2019.
TransformerConfig read_distilbert(const ConfigFile& config) {
  TransformerConfig out;
  out.names = {.prefix = "distilbert.",
               .tokens = "embeddings.word_embeddings",
               .positions = "embeddings.position_embeddings",
               .embedding_norm = "embeddings.LayerNorm",
               .block = "transformer.layer.{}.",
               .attention_norm = "sa_layer_norm",
               .mlp_norm = "output_layer_norm",
               .query = "attention.q_lin",
               .key = "attention.k_lin",
               .value = "attention.v_lin",
               .attention_out = "attention.out_lin",
               .mlp_in = "ffn.lin1",
               .mlp_out = "ffn.lin2",
               .head_dense = "vocab_transform",
               .head_norm = "vocab_layer_norm",
               .head = "vocab_projector",
               .head_bias = "vocab_projector.bias",
               .class_dense = "pre_classifier",
               .classifier = "classifier"};
  out.width = config.count("dim");
  out.layers = blocks_of(config, "n_layers");
  out.heads = config.count("n_heads");
  out.inner = config.count("hidden_dim");
  out.context = config.count("max_position_embeddings");
  out.activation = activation_of(config, "activation", "gelu");
  out.class_activation = "relu";
  out.epsilon = 1e-12;
  out.tied = config.flag("tie_word_embeddings", true);
  out.causal = false;
  out.post_norm = true;
  out.architecture_of_tokens = "DistilBertForMaskedLM";
  out.architecture_of_classes = "DistilBertForSequenceClassification";
  return out;
}

/// K. Clark et al., "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators", ICLR 2020.
TransformerConfig read_electra(const ConfigFile& config) {
  TransformerConfig out;
  out.names = bert_names("electra.");
  out.names.head_dense = "generator_predictions.dense";
  out.names.head_norm = "generator_predictions.LayerNorm";
  out.names.head = "generator_lm_head";
  out.names.head_bias = "generator_lm_head.bias";
  out.names.class_dense = "classifier.dense";
  out.names.classifier = "classifier.out_proj";
  read_bert_blocks(config, out);
  out.head_activation = out.class_activation = "gelu";
  out.context = config.count("max_position_embeddings");
  constexpr std::int64_t kEmbeddingWidth = 128;
  out.embedding_width = config.count("embedding_size", kEmbeddingWidth);
  if (out.embedding_width != out.width) {
    out.names.into_width = "embeddings_project";
  }
  out.architecture_of_tokens = "ElectraForMaskedLM";
  out.architecture_of_classes = "ElectraForSequenceClassification";
  return out;
}

/// B. Warner et al., "Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder", 2024.
TransformerConfig read_modernbert(const ConfigFile& config) {
  TransformerConfig out;
  out.names = {.prefix = "model.",
               .tokens = "embeddings.tok_embeddings",
               .embedding_norm = "embeddings.norm",
               .block = "layers.{}.",
               .attention_norm = "attn_norm",
               .mlp_norm = "mlp_norm",
               .final_norm = "final_norm",
               .query_key_value = "attn.Wqkv",
               .attention_out = "attn.Wo",
               .mlp_out = "mlp.Wo",
               .mlp_gate_in = "mlp.Wi",
               .head_dense = "prediction.dense",
               .head_norm = "prediction.norm",
               .head = "decoder",
               .class_dense = "head.dense",
               .class_norm = "head.norm",
               .classifier = "classifier",
               .stored = {{"prediction.", "head."}}};
  read_sizes(config, out);
  out.context = config.count("max_position_embeddings");
  out.activation = activation_of(config, "hidden_activation", "gelu");
  out.head_activation = out.class_activation = activation_of(config, "classifier_activation", "gelu");
  out.epsilon = config.number("norm_eps", 1e-5);
  out.norm_bias = config.flag("norm_bias", false);
  out.query_bias = out.attention_out_bias = config.flag("attention_bias", false);
  out.mlp_bias = config.flag("mlp_bias", false);
  out.head_dense_bias = out.class_dense_bias = config.flag("classifier_bias", false);
  if (config.flag("decoder_bias", true)) {
    out.names.head_bias = "decoder.bias";
  }
  out.tied = config.flag("tie_word_embeddings", true);
  out.causal = false;
  out.first_norm = false;
  out.fused = FusedOrder::kBlocks;
  const auto pooling = config.text("classifier_pooling", "cls");
  config.expect("classifier_pooling", pooling == "cls" || pooling == "mean", "cls or mean");
  out.mean_pooling = pooling == "mean";
  const auto head_width = out.width / out.heads;
  out.rotary = read_rotary(config, head_width, out.context,
                           {.base = "global_rope_theta", .base_if_absent = 160000, .layers = "full_attention"});
  out.window_rotary =
      read_rotary(config, head_width, out.context, {.base = "local_rope_theta", .layers = "sliding_attention"});
  constexpr std::int64_t kLocal = 128, kEvery = 3;
  out.windows = windows_by_type(
      config, out.layers, config.count("local_attention", kLocal) / 2 + 1,
      [](std::int64_t l, std::int64_t every) { return l % every == 0; },
      config.count("global_attn_every_n_layers", kEvery));
  out.architecture_of_tokens = "ModernBertForMaskedLM";
  out.architecture_of_classes = "ModernBertForSequenceClassification";
  return out;
}

}  // namespace whence::detail
