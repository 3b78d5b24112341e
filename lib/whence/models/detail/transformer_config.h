#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace whence::detail {

/// Names of a family's parameters as its checkpoints have them, without `.weight` and `.bias`. Those of a block stand
/// behind `block` with its number for {}; an empty name is a part that the family lacks.
struct FamilyNames {
  std::string prefix = {};  ///< Before all but the heads' names.
  std::string tokens = {}, positions = {}, types = {}, embedding_norm = {};
  std::string into_width = {}, out_of_width = {};  ///< Between embeddings of another width and the blocks.
  std::string block = {};
  std::string attention_norm = {}, mlp_norm = {}, final_norm = {};
  std::string attention_post_norm = {}, mlp_post_norm = {};  ///< Of what attention and mlp add.
  std::string query = {}, key = {}, value = {};              ///< Or one layer for the three:
  std::string query_key_value = {};
  std::string query_norm = {}, key_norm = {};
  std::string attention_out = {}, mlp_in = {}, mlp_gate = {}, mlp_out = {};
  std::string mlp_gate_in = {};          ///< One layer for mlp_gate and mlp_in, in this order.
  std::string router = {}, expert = {};  ///< Of sparse blocks; an expert's layers stand behind `expert`.
  std::string expert_in = {}, expert_gate = {}, expert_out = {};
  std::string head_dense = {}, head_norm = {}, head = {},
              head_bias = {};  ///< Of the vocabulary; `head` is not used where tied.
  std::string class_dense = {}, class_norm = {}, classifier = {};  ///< Of classes.
  /// Beginnings of names here, and what they are in files: where a family calls something what whence calls otherwise.
  std::vector<std::pair<std::string, std::string>> stored = {};

  std::string base(const std::string& name) const { return prefix + name; }
  std::string in_block(std::int64_t number, const std::string& name) const;
  std::string in_expert(std::int64_t number, std::int64_t expert_number, const std::string& name) const;
  /// What files call a parameter, heads without whence's `head.`.
  std::string in_files(const std::string& name) const;
};

/// How one layer for queries, keys and values orders its outputs.
enum class FusedOrder { kNone, kBlocks, kHeads };
/// What the norms of queries and keys see: a head's dimensions, or those of all heads together.
enum class QueryNorm { kNone, kHeads, kWhole };

struct Rotary {
  std::int64_t width = 0;  ///< Dimensions of a head that are turned; 0: no rotary positions.
  double base = 10000;
  std::string scaling = "default";  ///< default, linear, dynamic, llama3 or yarn.
  double factor = 1;
  double low_frequency = 1, high_frequency = 4;  ///< llama3
  double beta_fast = 32, beta_slow = 1;          ///< yarn
  double attention_factor = 1;                   ///< yarn: multiplies cosines and sines.
  bool truncate = true;                          ///< yarn
  std::int64_t original_context = 0;
};

/// Sparse blocks, whose mlp is some of several experts for each token. N. Shazeer et al., "Outrageously Large Neural
/// Networks", ICLR 2017.
struct Experts {
  std::int64_t count = 0, chosen = 0, inner = 0;  ///< 0: no block is sparse.
  bool shares = false;                            ///< The weights of the chosen sum to 1.
  std::vector<bool> blocks = {};                  ///< Which are sparse.
};

/// A transformer as config.json describes it. One description serves every family: what differs is a value here.
struct TransformerConfig {
  std::string family;  ///< model_type
  FamilyNames names;
  std::int64_t vocabulary = 0, context = 0, width = 0, layers = 0, heads = 0, key_heads = 0, head_width = 0, inner = 0;
  std::int64_t embedding_width = 0;  ///< Of tokens; into_width leads on to `width` where that is another.
  double embedding_scale = 1;        ///< Times the embeddings of tokens, not those of a prompt.
  std::string activation;
  bool causal = true;
  bool rms = false;         ///< RMS norm in place of layer norm.
  bool norm_bias = true;    ///< Of layer norms.
  double norm_offset = 0;   ///< Added to the weights of RMS norms.
  bool post_norm = false;   ///< Norms after the sums, as in BERT, not before attention and mlp.
  bool first_norm = true;   ///< Whether the first block has an attention_norm.
  bool parallel = false;    ///< Attention and mlp read the same residual stream.
  bool tied = false;        ///< The vocabulary's head is the embedding.
  bool transposed = false;  ///< Weights of the blocks are stored as [in, out].
  FusedOrder fused = FusedOrder::kNone;
  QueryNorm query_norm = QueryNorm::kNone;
  bool query_bias = true, attention_out_bias = true, mlp_bias = true, into_width_bias = true;
  bool head_dense_bias = true, class_dense_bias = true;
  bool scale_by_layer = false, scale_attention = true;
  double query_scalar = 0;       ///< Logits of attention are divided by its root; 0: by that of a head's width.
  double attention_softcap = 0;  ///< Logits of attention are c tanh(logit / c) where c > 0; so those of
  double output_softcap = 0;     ///< the vocabulary.
  bool alibi = false;            ///< Places count by a slope for each head, in place of any embedding of them.
  double epsilon = 1e-5;
  double initial_deviation = 0.02;
  std::int64_t position_offset = 0, type_count = 0;
  Rotary rotary;
  Rotary window_rotary;               ///< Of blocks with a window; width 0: the same.
  std::vector<std::int64_t> windows;  ///< Of each block: keys that a place may look back at (and ahead, where it sees
                                      ///< both ways), itself included; 0: all.
  Experts experts;
  std::string head_activation,
      class_activation = "tanh";  ///< Behind head_dense, of no word: `activation`; class_dense.
  bool mean_pooling = false;      ///< A head of classes reads the mean over a text's tokens.
  std::int64_t pad_token = -1;    ///< A head of classes reads the last token that is not this one; -1: the last.
  std::string architecture_of_tokens, architecture_of_classes;  ///< transformers' classes.
  std::string architecture;  ///< Of the folder's own weights; empty where it does not say.
  std::string problem_type;  ///< Of its classification head: "" or transformers' word.
  std::vector<std::string>
      classes;  ///< The outputs of that head by id2label, in order; LABEL_0, … where it names none.
  std::vector<std::string> notes;  ///< A line for each thing in the file that is read otherwise than one may think.
  nlohmann::json json;

  bool is_sparse(std::int64_t block) const {
    return experts.count > 0 && experts.blocks[static_cast<std::size_t>(block)];
  }
};

/// Reads config.json of a directory. Throws DataError naming the file, the key, its value and what is supported.
TransformerConfig read_transformer_config(const std::filesystem::path& directory);

/// What is computed otherwise by two descriptions, with both values; empty where nothing is. Classes and their number
/// do not count.
std::string difference_of(const TransformerConfig& a, const TransformerConfig& b);

/// Frequencies of the rotary positions of a text of `length` tokens, [width / 2].
std::vector<double> rotary_frequencies(const Rotary& rotary, std::int64_t context, std::int64_t length);

}  // namespace whence::detail
