#!/usr/bin/env python3
"""Writes what transformers makes of settings in a model's folder, as whence's tests expect it.

    make_settings.py          (the packages of make_checkpoints.py)

tests/models/config_keys.json: every key of a config.json that transformers' own class of a family reads.
tests/models/settings.json: [checkpoint, changes of its config.json, loss of each text]: stored checkpoints under other keys, by AutoModel
in double precision.
tests/text/tokenizer_settings.json: [tokenizer, config.json, tokenizer_config.json, special_tokens_map.json, added_tokens.json, [text, its
ids]...]: by AutoTokenizer; null is a file that is absent.
"""
import dataclasses
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from make_checkpoints import Double, FOLDER, HOW

FAMILIES = {"gpt2": "GPT2Config", "gpt_neox": "GPTNeoXConfig", "llama": "LlamaConfig", "mistral": "MistralConfig",
            "qwen2": "Qwen2Config", "bert": "BertConfig", "roberta": "RobertaConfig", "distilbert": "DistilBertConfig",
            "electra": "ElectraConfig", "opt": "OPTConfig", "bloom": "BloomConfig", "qwen3": "Qwen3Config", "olmo2": "Olmo2Config",
            "phi3": "Phi3Config", "gemma2": "Gemma2Config", "gemma3_text": "Gemma3TextConfig", "modernbert": "ModernBertConfig",
            "mixtral": "MixtralConfig", "qwen3_moe": "Qwen3MoeConfig"}
# what version 4 wrote, and what is taken from a file without being a field
OLDER = ["torch_dtype", "rope_theta", "rope_scaling", "position_embedding_type", "pruned_heads", "quantization_config", "num_labels",
         "_name_or_path", "use_bfloat16", "tf_legacy_loss", "torchscript", "is_decoder", "add_cross_attention", "per_layer_config"]
ROPE = {"gpt_neox": ["rotary_pct", "rotary_emb_base"], "llama": ["pretraining_tp"],
        "gemma3_text": ["rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern"],
        "modernbert": ["global_rope_theta", "local_rope_theta", "global_attn_every_n_layers"], "bloom": ["seq_length"]}
WITHOUT_ROPE = ("gpt2", "bert", "roberta", "distilbert", "electra", "opt", "bloom")


def config_keys():
    out = {}
    for family, name in FAMILIES.items():
        kind = getattr(transformers, name)
        keys = {field.name for field in dataclasses.fields(kind) if field.name != "auto_map"} | set(kind.attribute_map.values())
        rotary = family not in WITHOUT_ROPE
        keys |= {key for key in OLDER if rotary or not key.startswith("rope_")} | set(ROPE.get(family, []))
        out[family] = sorted(keys)
    return out


# checkpoint, changes: every value of every key that decides something, on weights whose shapes it leaves as they are
MODELS = [
    ("qwen2", dict(layer_types=["sliding_attention", "full_attention"], use_sliding_window=True, sliding_window=3)),
    ("qwen2", dict(layer_types=["full_attention", "sliding_attention"], use_sliding_window=True, sliding_window=4)),
    ("qwen2", dict(layer_types=["full_attention", "full_attention"], use_sliding_window=True, sliding_window=3)),
    ("qwen2", dict(layer_types=None, use_sliding_window=True, sliding_window=3, max_window_layers=0)),
    ("qwen2", dict(layer_types=None, use_sliding_window=True, sliding_window=3, max_window_layers=1)),
    ("qwen2", dict(layer_types=None, use_sliding_window=True, sliding_window=3)),
    ("qwen2", dict(layer_types=None, use_sliding_window=False, sliding_window=3, max_window_layers=0)),
    ("mistral", dict(sliding_window=None)), ("mistral", dict(sliding_window=5)),
    ("llama", dict(num_key_value_heads=None)), ("llama", dict(rms_norm_eps=1e-2)),
    ("llama", dict(hidden_act="gelu")), ("llama", dict(hidden_act="gelu_pytorch_tanh")), ("llama", dict(hidden_act="relu")),
    ("llama", dict(rope_parameters={"rope_type": "default", "rope_theta": 100.0})),
    ("llama", dict(rope_parameters=None, rope_theta=50.0)),
    ("llama", dict(rope_parameters={"rope_type": "default", "rope_theta": 100.0}, rope_theta=7.0)),
    ("llama", dict(rope_scaling={"type": "linear", "factor": 2.0, "rope_theta": 20.0})),
    ("llama", dict(rope_scaling={"rope_type": "linear", "factor": 4.0}, rope_theta=20.0, rope_parameters=None)),
    ("gpt-neox", dict(use_parallel_residual=False)),
    ("gpt-neox", dict(rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5})),
    ("gpt-neox", dict(rope_parameters={"rope_type": "default", "rope_theta": 100.0})),
    ("gpt-neox", dict(rope_parameters=None, rotary_pct=1.0, rotary_emb_base=100)),
    ("gpt-neox", dict(layer_norm_eps=1e-2)), ("gpt-neox", dict(hidden_act="gelu_new")),
    ("gpt2", dict(scale_attn_weights=False)), ("gpt2", dict(scale_attn_by_inverse_layer_idx=True)),
    ("gpt2", dict(activation_function="gelu")),
    ("gpt2", dict(layer_norm_epsilon=1e-2)), ("gpt2", dict(resid_pdrop=0.9, summary_type="mean", use_cache=False)),
    ("gpt2-untied", dict(tie_word_embeddings=True)),
    ("gpt2-classification", dict(pad_token_id=0)), ("gpt2-classification", dict(pad_token_id="last")),
    ("llama-classification", dict(pad_token_id="last")),
    ("bert-masked", dict(hidden_act="relu")), ("bert-masked", dict(layer_norm_eps=1e-2)),
    ("bert-masked", dict(chunk_size_feed_forward=1)), ("bert-classification", dict(classifier_dropout=0.9, pad_token_id=3)),
    ("roberta-masked", dict(hidden_act="gelu_new")),
    ("distilbert-masked", dict(activation="relu")), ("distilbert-classification", dict(seq_classif_dropout=0.9, pad_token_id=3)),
    ("electra-masked", dict(hidden_act="relu")), ("electra-classification", dict(layer_norm_eps=1e-2, summary_type="mean")),
    ("opt", dict(activation_function="gelu", layerdrop=0.5)), ("opt-classification", dict(pad_token_id="last")),
    ("bloom", dict(layer_norm_epsilon=1e-2)), ("bloom-classification", dict(pad_token_id="last")),
    ("qwen3", dict(layer_types=["sliding_attention", "full_attention"], use_sliding_window=True, sliding_window=3)),
    ("qwen3", dict(layer_types=None, use_sliding_window=False)), ("qwen3", dict(rms_norm_eps=1e-2)),
    ("olmo2", dict(rms_norm_eps=1e-2, rope_parameters={"rope_type": "default", "rope_theta": 100.0})),
    ("phi3", dict(sliding_window=None)), ("phi3", dict(rope_parameters=None, rope_theta=100.0, partial_rotary_factor=1.0)),
    ("gemma2", dict(query_pre_attn_scalar=100)), ("gemma2", dict(attn_logit_softcapping=None)),
    ("gemma2", dict(final_logit_softcapping=None)), ("gemma2", dict(sliding_window=2)),
    ("gemma2", dict(layer_types=["full_attention", "sliding_attention"])), ("gemma2", dict(layer_types=None)),
    ("gemma2", dict(hidden_activation="relu", hidden_act="silu")),
    ("gemma3", dict(layer_types=None, sliding_window_pattern=3)), ("gemma3", dict(layer_types=None)),
    ("gemma3", dict(rope_parameters=None, rope_theta=100.0, rope_local_base_freq=50.0)),
    ("gemma3", dict(rope_parameters=None, rope_scaling={"rope_type": "linear", "factor": 8.0})),
    ("gemma3", dict(rope_parameters=None)),
    ("modernbert-masked", dict(local_attention=2)), ("modernbert-masked", dict(local_attention=7)),
    ("modernbert-masked", dict(layer_types=None, global_attn_every_n_layers=1)),
    ("modernbert-masked", dict(rope_parameters=None, global_rope_theta=100.0, local_rope_theta=50.0)),
    ("modernbert-masked", dict(rope_parameters=None)),
    ("modernbert-masked", dict(classifier_activation="relu", hidden_activation="gelu_new", norm_eps=1e-2)),
    ("modernbert-classification", dict(classifier_pooling="cls")), ("modernbert-first", dict(classifier_pooling="mean")),
    ("mixtral", dict(num_experts_per_tok=1)), ("mixtral", dict(sliding_window=3)),
    ("qwen3-moe", dict(norm_topk_prob=False)), ("qwen3-moe", dict(use_sliding_window=True, sliding_window=3)),
    ("qwen3-moe-shares", dict(norm_topk_prob=True, num_experts_per_tok=1))]


def model_losses(checkpoint, changes):
    """The loss of each text by itself, summed over what it predicts."""
    expected = load_file(FOLDER / checkpoint / "expected.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(FOLDER / checkpoint, folder, dirs_exist_ok=True)
        path = Path(folder) / "config.json"
        config = json.loads(path.read_text()) | changes
        path.write_text(json.dumps(config))
        kind = getattr(transformers, config["architectures"][0])
        torch.set_default_dtype(torch.float64)
        model = kind.from_pretrained(folder, dtype=torch.float64, **HOW).eval()
        losses = []
        with torch.no_grad(), Double():
            for row, length in enumerate(expected["mask"].sum(1).tolist()):
                tokens = expected["tokens"][row:row + 1, :length]
                logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
                cross_entropy = torch.nn.functional.cross_entropy
                if "labels" in expected:
                    loss = cross_entropy(logits, expected["labels"][row:row + 1])
                elif "targets" in expected:
                    loss = cross_entropy(logits[0], expected["targets"][row, :length], reduction="sum")
                else:
                    loss = cross_entropy(logits[0, :-1], tokens[0, 1:], reduction="sum")
                losses.append(loss.item())
        torch.set_default_dtype(torch.float32)
    return losses


def models():
    out = []
    for checkpoint, changes in MODELS:
        if changes.get("pad_token_id") == "last":  # of the first text, so that its head reads the token before
            tokens = load_file(FOLDER / checkpoint / "expected.safetensors")["tokens"]
            changes = {"pad_token_id": tokens[0, -1].item()}
        out.append([checkpoint, changes, model_losses(checkpoint, changes)])
    return out


TEXTS = ["Once upon a time", "The Cat's caf\u00e9 \u4f60\u597d", "a <s> b </s> c [MASK] <new> d", " leading", "<|endoftext|>x<extra>y"]
GRID = [  # tokenizer, config.json, tokenizer_config.json, special_tokens_map.json, added_tokens.json
    ("bert-uncased", {"model_type": "bert"}, None, None, None),
    ("bert-cased", {"model_type": "bert"}, None, None, None),
    ("bert-cased", {"model_type": "bert"}, {"do_lower_case": False}, None, None),
    ("bert-uncased", {"model_type": "bert"}, {"do_lower_case": False}, None, None),
    ("bert-uncased", {"model_type": "bert"}, {"do_lower_case": True, "strip_accents": False}, None, None),
    ("bert-uncased", {"model_type": "bert"}, {"tokenize_chinese_chars": False}, None, None),
    ("bert-uncased", {"model_type": "bert"}, {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}, None, None),
    ("bert-uncased", {"model_type": "bert"}, {"tokenizer_class": "BertTokenizerFast", "cls_token": "[SEP]", "sep_token": "[CLS]"}, None, None),
    ("bert-uncased", {"model_type": "bert"}, {"add_bos_token": True, "bos_token": "[MASK]"}, None, None),
    ("gpt2", {"model_type": "gpt2"}, None, None, None),
    ("gpt2", {"model_type": "gpt2"}, {"add_prefix_space": True}, None, None),
    ("gpt2", {"model_type": "gpt2"}, {"add_bos_token": True}, None, None),
    ("gpt2", {"model_type": "gpt2"}, {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True}, None, None),
    ("gpt2", {"model_type": "gpt2"}, {"additional_special_tokens": ["<extra>"]}, None, None),
    ("gpt2", {"model_type": "gpt2"}, None, {"additional_special_tokens": ["<extra>"]}, None),
    ("gpt2", {"model_type": "gpt2"}, None, {"pad_token": "<new>"}, None),
    ("gpt2", {"model_type": "gpt2"}, None, None, {"<new>": 600, "<extra>": 601}),
    ("gpt2", {"model_type": "gpt2"}, {"added_tokens_decoder": {
        "0": {"content": "<|endoftext|>", "special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False},
        "600": {"content": "<new>", "special": False, "lstrip": True, "rstrip": True, "normalized": False, "single_word": False}}}, None, None),
    ("gpt2", {"model_type": "gpt2"}, {"split_special_tokens": True}, None, None),
    ("gpt2", {"model_type": "gpt2"}, {"model_max_length": 3, "padding_side": "left", "truncation_side": "left",
                                      "clean_up_tokenization_spaces": True, "chat_template": "{{ x }}"}, None, None),
    ("roberta", {"model_type": "roberta"}, None, None, None),
    ("roberta", {"model_type": "roberta"}, {"add_prefix_space": True}, None, None),
    ("roberta", {"model_type": "roberta"}, {"cls_token": "</s>", "sep_token": "<s>"}, None, None),
    ("llama2", {"model_type": "llama"}, None, None, None),
    ("llama2", {"model_type": "llama"}, {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}, None, None),
    ("llama2", {"model_type": "llama"}, {"pad_token": "<new>"}, None, None),
    ("mistral", {"model_type": "mistral"}, None, None, None),
    ("llama3", {"model_type": "llama"}, None, None, None),
    ("llama3", {"model_type": "llama"}, {"tokenizer_class": "LlamaTokenizerFast"}, None, None),
    ("qwen2", {"model_type": "qwen2"}, None, None, None),
    ("qwen2", {"model_type": "qwen2"}, {"add_bos_token": False, "add_prefix_space": False, "tokenizer_class": "Qwen2Tokenizer"}, None, None)]


def tokenizers():
    out = []
    for name, *files in GRID:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            shutil.copy(FOLDER.parent.parent / "text/tokenizers" / f"{name}.json", folder / "tokenizer.json")
            for file, content in zip(("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"), files):
                if content is not None:
                    (folder / file).write_text(json.dumps(content))
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            out.append([name, *files, [[text, tokenizer(text).input_ids] for text in TEXTS]])
    return out


def write(path, rows):
    """A row a line."""
    text = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f"[{text}]\n")


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    tests = Path(__file__).parent.parent
    (tests / "models/config_keys.json").write_text(json.dumps(config_keys(), indent=1) + "\n")
    write(tests / "models/settings.json", models())
    write(tests / "text/tokenizer_settings.json", tokenizers())


if __name__ == "__main__":
    main()
