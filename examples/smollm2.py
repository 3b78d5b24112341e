"""smollm2.py FILE.gguf DIR: a GGUF file of SmolLM2 as a Hugging Face directory. See smollm2.sh."""
import json
import os
import re
import sys
from pathlib import Path

import numpy
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file

reader, output = GGUFReader(sys.argv[1]), Path(sys.argv[2])


def field(key):
    return reader.fields[key].contents()


heads, key_heads, width = (field(f"llama.{key}") for key in ("attention.head_count", "attention.head_count_kv", "embedding_length"))
names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head", "attn_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def rotary_halves(rows, heads):
    """GGUF puts the two rows of a rotary pair side by side; Hugging Face keeps the first of each pair in a head's first half."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


tensors = {}
for tensor in reader.tensors:
    layer, name = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", tensor.name).groups()
    values = dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
    if name in ("attn_q", "attn_k"):
        values = rotary_halves(values, heads if name == "attn_q" else key_heads)
    tensors[(f"model.layers.{layer}." if layer else "") + names[name] + ".weight"] = numpy.ascontiguousarray(values)

tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
config = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32", "hidden_act": "silu",
    "vocab_size": len(tokens), "hidden_size": width, "intermediate_size": field("llama.feed_forward_length"),
    "num_hidden_layers": field("llama.block_count"), "num_attention_heads": heads, "num_key_value_heads": key_heads,
    "max_position_embeddings": field("llama.context_length"), "rope_theta": field("llama.rope.freq_base"), "rope_scaling": None,
    "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),  # a float32's 1e-05
    "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": "lm_head.weight" not in tensors,
    "bos_token_id": field("tokenizer.ggml.bos_token_id"), "eos_token_id": field("tokenizer.ggml.eos_token_id"),
    "pad_token_id": field("tokenizer.ggml.padding_token_id"),
}
assert field("tokenizer.ggml.model") == "gpt2" and field("tokenizer.ggml.pre") == "smollm"  # the byte pairs below, digits one by one
byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
tokenizer = {
    "version": "1.0", "truncation": None, "padding": None,
    "added_tokens": [{"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                      "special": True} for i, (token, kind) in enumerate(zip(tokens, kinds)) if kind == 3],
    "normalizer": None,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
    "post_processor": None,
    "decoder": byte_level,
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
              "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
              "vocab": {token: i for i, token in enumerate(tokens)},
              "merges": [merge.split(" ") for merge in field("tokenizer.ggml.merges")]},
}
(output / "config.json").write_text(json.dumps(config, indent=2) + "\n")
(output / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
save_file(tensors, output / "model.safetensors.part", {"format": "pt"})
os.chmod(output / "model.safetensors.part", 0o644)
os.replace(output / "model.safetensors.part", output / "model.safetensors")  # last: a directory that has it is complete
