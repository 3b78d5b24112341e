#!/usr/bin/env python3
"""Writes tests/models/checkpoints/: a tiny random checkpoint of every family that whence reads, as transformers writes
it, and beside it what transformers computes with it in double precision (expected.safetensors).

    pip install --no-deps torch==2.13.0
    pip install transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6     (and what torch imports)
    make_checkpoints.py [NAME...]

expected.safetensors, B sequences padded on the right to T tokens:
  tokens, mask [B,T]    int64; mask is 1 at tokens and 0 at padding
  logits                float64 [B,T,V], or [B,C] of a classifier; at padding they mean nothing
  loss [B]              the summed cross entropy of each sequence: of every token after the first, of the masked tokens, or of
                        the label
  targets [B,T]         masked language models: what was masked, -100 elsewhere;  labels [B]: classifiers
  hidden.k [B,T,H]      after k layers (0: what the first one is given); the last one is before a final norm
  pooled [B,H]          bert-base: transformers' pooler_output
  gradient [B]          the squared norm of the gradient of each sequence's loss in all parameters, of the families from distilbert on
  alone.logits, alone.loss   llama-rope-dynamic: each sequence by itself without padding. Its frequencies depend on the length of the
                        batch, padding included, so `logits` are those of sequences as long as the longest
config.v4.json is the same configuration as transformers 4 spelled it.
"""
import json
import os
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

FOLDER = Path(__file__).parent / "checkpoints"
VOCABULARY, LENGTH, ROWS = 48, 12, (12, 7, 10)


class Double(TorchFunctionMode):
    """Makes double of every float32 that transformers asks for: in norms, in attention's softmax, in rotary angles."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        def wide(value):
            return torch.float64 if value is torch.float32 else value

        function = torch.Tensor.double if function is torch.Tensor.float else function
        return function(*map(wide, args), **{key: wide(value) for key, value in (kwargs or {}).items()})


class NothingNarrow(TorchDispatchMode):
    """Fails at any result in less than double precision."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != torch.float64:
                raise TypeError(f"{function} gave {value.dtype}")
        return result


def gpt2(**changes):
    return transformers.GPT2Config(**{**dict(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2), **changes})


def gpt_neox(**changes):
    return transformers.GPTNeoXConfig(**{**dict(
        vocab_size=VOCABULARY, max_position_embeddings=LENGTH, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=40, bos_token_id=1, eos_token_id=2), **changes})


def llama(config=transformers.LlamaConfig, **changes):
    return config(**{**dict(
        vocab_size=VOCABULARY, max_position_embeddings=LENGTH, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, intermediate_size=24, bos_token_id=1, eos_token_id=2), **changes})


def distilbert(**changes):
    return transformers.DistilBertConfig(**{**dict(
        vocab_size=VOCABULARY, max_position_embeddings=LENGTH, dim=16, n_layers=2, n_heads=4, hidden_dim=24), **changes})


def opt(**changes):
    return transformers.OPTConfig(**{**dict(
        vocab_size=VOCABULARY, max_position_embeddings=LENGTH, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, ffn_dim=24,
        bos_token_id=2, pad_token_id=1), **changes})


def bloom(**changes):
    return transformers.BloomConfig(**{**dict(
        vocab_size=VOCABULARY, hidden_size=24, n_layer=2, n_head=6, bos_token_id=1, eos_token_id=2, pad_token_id=3), **changes})


def modernbert(**changes):
    return transformers.ModernBertConfig(**{**dict(
        vocab_size=VOCABULARY, max_position_embeddings=LENGTH, hidden_size=16, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=24, local_attention=4, global_attn_every_n_layers=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        cls_token_id=1, sep_token_id=2), **changes})


def gemma(config, **changes):
    return llama(config, **{**dict(num_key_value_heads=2, head_dim=6, query_pre_attn_scalar=7, sliding_window=4, pad_token_id=0), **changes})


def rope(kind, theta, **parameters):
    return dict(rope_parameters={"rope_type": kind, "rope_theta": theta, **parameters})


def bert(config=transformers.BertConfig, **changes):
    return config(**{**dict(
        vocab_size=VOCABULARY, max_position_embeddings=LENGTH, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=24), **changes})


def roberta(**changes):
    return bert(transformers.RobertaConfig, max_position_embeddings=LENGTH + 2, type_vocab_size=1, layer_norm_eps=1e-5, **changes)


# llama3's six frequencies: one is kept, two are blended, three divided; yarn's: from kept to divided in steps of a quarter.
CASES = {
    "gpt2": ("GPT2LMHeadModel", lambda: gpt2()),
    "gpt2-untied": ("GPT2LMHeadModel", lambda: gpt2(tie_word_embeddings=False, n_inner=24, layer_norm_epsilon=1e-3)),
    "gpt2-classification": ("GPT2ForSequenceClassification", lambda: gpt2(num_labels=3, pad_token_id=0)),
    "gpt2-sharded": ("GPT2LMHeadModel", lambda: gpt2()),
    "gpt2-no-prefix": ("GPT2LMHeadModel", lambda: gpt2()),
    "gpt-neox": ("GPTNeoXForCausalLM", lambda: gpt_neox(use_parallel_residual=True, rotary_pct=0.25)),
    "gpt-neox-sequential": ("GPTNeoXForCausalLM", lambda: gpt_neox(
        use_parallel_residual=False, rotary_pct=1.0, rotary_emb_base=1000, num_attention_heads=4, layer_norm_eps=1e-3)),
    "llama": ("LlamaForCausalLM", lambda: llama()),
    "llama-gqa-tied": ("LlamaForCausalLM", lambda: llama(
        num_key_value_heads=2, head_dim=6, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, rms_norm_eps=1e-3,
        **rope("default", 500.0))),
    "llama-rope-linear": ("LlamaForCausalLM", lambda: llama(**rope("linear", 10000.0, factor=2.5))),
    "llama-rope-dynamic": ("LlamaForCausalLM", lambda: llama(max_position_embeddings=5, **rope("dynamic", 10000.0, factor=2.0))),
    "llama-rope-llama3": ("LlamaForCausalLM", lambda: llama(
        head_dim=12, num_key_value_heads=1, **rope("llama3", 10.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=2.0,
                                                   original_max_position_embeddings=16))),
    "llama-rope-yarn": ("LlamaForCausalLM", lambda: llama(
        head_dim=12, num_key_value_heads=1, **rope("yarn", 100.0, factor=2.0, beta_fast=1.0, beta_slow=0.05,
                                                   original_max_position_embeddings=6))),
    "llama-classification": ("LlamaForSequenceClassification", lambda: llama(num_labels=3, pad_token_id=0)),
    "mistral": ("MistralForCausalLM", lambda: llama(transformers.MistralConfig, num_key_value_heads=2, sliding_window=5)),
    "qwen2": ("Qwen2ForCausalLM", lambda: llama(transformers.Qwen2Config, num_key_value_heads=2, tie_word_embeddings=True)),
    "bert-masked": ("BertForMaskedLM", lambda: bert()),
    "bert-old-names": ("BertForMaskedLM", lambda: bert()),
    "bert-classification": ("BertForSequenceClassification", lambda: bert(num_labels=3)),
    "bert-base": ("BertModel", lambda: bert()),
    "roberta-masked": ("RobertaForMaskedLM", lambda: roberta()),
    "roberta-classification": ("RobertaForSequenceClassification", lambda: roberta(num_labels=3)),
    "distilbert-masked": ("DistilBertForMaskedLM", lambda: distilbert()),
    "distilbert-classification": ("DistilBertForSequenceClassification", lambda: distilbert(num_labels=3)),
    "electra-masked": ("ElectraForMaskedLM", lambda: bert(transformers.ElectraConfig, embedding_size=8)),
    "electra-classification": ("ElectraForSequenceClassification", lambda: bert(
        transformers.ElectraConfig, embedding_size=16, num_labels=3)),
    "opt": ("OPTForCausalLM", lambda: opt()),
    "opt-350m": ("OPTForCausalLM", lambda: opt(do_layer_norm_before=False, word_embed_proj_dim=8, enable_bias=False)),
    "opt-classification": ("OPTForSequenceClassification", lambda: opt(num_labels=3)),
    "qwen3": ("Qwen3ForCausalLM", lambda: llama(
        transformers.Qwen3Config, num_key_value_heads=2, head_dim=6, use_sliding_window=True, sliding_window=4, max_window_layers=1)),
    "olmo2": ("Olmo2ForCausalLM", lambda: llama(transformers.Olmo2Config, num_key_value_heads=2, pad_token_id=0)),
    "phi3": ("Phi3ForCausalLM", lambda: llama(
        transformers.Phi3Config, num_key_value_heads=2, pad_token_id=0, sliding_window=5,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5})),
    "gemma2": ("Gemma2ForCausalLM", lambda: gemma(
        transformers.Gemma2Config, attn_logit_softcapping=2.0, final_logit_softcapping=3.0)),
    "gemma2-classification": ("Gemma2ForSequenceClassification", lambda: gemma(transformers.Gemma2Config, num_labels=3)),
    "gemma3": ("Gemma3ForCausalLM", lambda: gemma(
        transformers.Gemma3TextConfig, num_hidden_layers=3, sliding_window_pattern=2, final_logit_softcapping=3.0)),
    "bloom": ("BloomForCausalLM", lambda: bloom()),
    "bloom-classification": ("BloomForSequenceClassification", lambda: bloom(num_labels=3)),
    "modernbert-masked": ("ModernBertForMaskedLM", lambda: modernbert()),
    "modernbert-classification": ("ModernBertForSequenceClassification", lambda: modernbert(num_labels=3, classifier_pooling="mean")),
    "modernbert-first": ("ModernBertForSequenceClassification", lambda: modernbert(
        num_labels=3, classifier_pooling="cls", norm_bias=True, attention_bias=True, mlp_bias=True, classifier_bias=True)),
    "mixtral": ("MixtralForCausalLM", lambda: llama(
        transformers.MixtralConfig, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2)),
    "qwen3-moe": ("Qwen3MoeForCausalLM", lambda: llama(
        transformers.Qwen3MoeConfig, num_key_value_heads=2, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=8,
        mlp_only_layers=[0], norm_topk_prob=True)),
    "qwen3-moe-shares": ("Qwen3MoeForCausalLM", lambda: llama(
        transformers.Qwen3MoeConfig, num_key_value_heads=2, num_experts=4, num_experts_per_tok=3, moe_intermediate_size=8)),
}
WITH_GRADIENT = list(CASES)[list(CASES).index("distilbert-masked"):]
SAME_WEIGHTS = {"gpt2-sharded": "gpt2", "gpt2-no-prefix": "gpt2", "bert-old-names": "bert-masked"}
MASK_TOKEN = 4
HOW = dict(attn_implementation="eager", experts_implementation="eager")


def generator(name):
    order = list(CASES)
    return torch.Generator().manual_seed(1000 + order.index(SAME_WEIGHTS.get(name, name)))


def make(name):
    kind, config = CASES[name]
    model = getattr(transformers, kind)(config()).eval()
    random = generator(name)
    with torch.no_grad():
        for key, value in sorted(model.named_parameters()):
            norm = "norm" in key.lower() or ".ln_" in key
            value.copy_(torch.randn(value.shape, generator=random) * 0.35 + (1.0 if norm and key.endswith("weight") else 0.0))
    model.config.architectures = [kind]
    return model


def write(name, folder, model):
    shards = {"max_shard_size": "16KB"} if name == "gpt2-sharded" else {}
    model.save_pretrained(folder, **shards)
    for left in folder.glob("generation_config.json"):
        left.unlink()
    file = folder / "model.safetensors"
    if name == "gpt2-no-prefix":  # as the file of 2019 on the hub: without the prefix, with the attention mask of each layer
        tensors = {key.removeprefix("transformer."): value for key, value in load_file(file).items()}
        for layer in range(model.config.n_layer):
            tensors[f"h.{layer}.attn.bias"] = torch.ones(LENGTH, LENGTH).tril().reshape(1, 1, LENGTH, LENGTH)
        save_file(tensors, file, {"format": "pt"})
    if name == "bert-old-names":  # as bert-base-uncased on the hub: gamma, beta, the sentence head, the pooler, the positions
        random = generator("bert-base")
        tensors = {}
        for key, value in load_file(file).items():
            key = key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[key] = value
        for key, shape in {"cls.seq_relationship.weight": (2, 16), "cls.seq_relationship.bias": (2,),
                           "bert.pooler.dense.weight": (16, 16), "bert.pooler.dense.bias": (16,)}.items():
            tensors[key] = torch.randn(shape, generator=random) * 0.35
        tensors["bert.embeddings.position_ids"] = torch.arange(LENGTH).reshape(1, LENGTH)
        save_file(tensors, file, {"format": "pt"})
    write_old_config(folder)


def write_old_config(folder):
    config = json.loads((folder / "config.json").read_text())
    if "rope_parameters" not in config:
        return
    rope = config.pop("rope_parameters")
    by_kind = {"gemma3_text": ("rope_theta", "rope_local_base_freq"), "modernbert": ("global_rope_theta", "local_rope_theta")}
    if config["model_type"] in by_kind:
        for key, layers in zip(by_kind[config["model_type"]], ("full_attention", "sliding_attention")):
            config[key] = rope[layers]["rope_theta"]
        config["torch_dtype"] = config.pop("dtype")
        config["transformers_version"] = "4.57.0"
        del config["layer_types"]
        config["sliding_window_pattern" if config["model_type"] == "gemma3_text" else "global_attn_every_n_layers"] = 2
        (folder / "config.v4.json").write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")
        return
    theta, kind, fraction = rope.pop("rope_theta"), rope.pop("rope_type"), rope.pop("partial_rotary_factor", None)
    config["rope_scaling"] = None if kind == "default" else {"rope_type": kind, **rope}
    if config["model_type"] == "gpt_neox":
        config["rotary_emb_base"], config["rotary_pct"] = theta, fraction
    else:
        config["rope_theta"] = theta
        if fraction is not None:
            config["partial_rotary_factor"] = fraction
        if config["model_type"] == "qwen3_moe":
            config["num_experts"] = config.pop("num_local_experts")
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.57.0"
    (folder / "config.v4.json").write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")


def reference(name, folder):
    """What the checkpoint's folder gives, in doubles throughout."""
    kind, _ = CASES[name]
    random = generator(name)
    tokens = torch.randint(5, VOCABULARY, (len(ROWS), LENGTH), generator=random)
    mask = (torch.arange(LENGTH) < torch.tensor(ROWS)[:, None]).long()
    expected = {"tokens": tokens, "mask": mask}

    def fresh():
        model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True, **HOW)
        if info["missing_keys"] or info["mismatched_keys"] or info["error_msgs"]:
            raise RuntimeError(f"{name}: {info}")
        model = model.double().eval()
        for module in list(model.modules()):
            if hasattr(module, "rotary_emb"):
                with NothingNarrow():
                    module.rotary_emb = type(module.rotary_emb)(module.config)
        return model

    def run(tokens, mask):
        model = fresh()
        blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
        last = []
        blocks[-1].register_forward_hook(lambda _, __, output: last.append(output[0] if isinstance(output, tuple) else output))
        extra = {} if kind == "BertModel" or "ForMasked" in kind or kind.startswith(("Bert", "Roberta", "DistilBert", "Electra", "ModernBert")) else {"use_cache": False}
        with NothingNarrow():
            output = model(input_ids=tokens, attention_mask=mask, output_hidden_states=True, **extra)
        hidden = list(output.hidden_states)
        hidden[-1] = last[0]
        return output, hidden

    pad = transformers.AutoConfig.from_pretrained(folder).pad_token_id
    tokens[mask == 0] = 0 if pad is None else pad
    if "ForMaskedLM" in kind:
        targets = torch.full_like(tokens, -100)
        chosen = (torch.rand(tokens.shape, generator=random) < 0.3) & (mask == 1)
        chosen[:, 2] = True
        targets[chosen] = tokens[chosen]
        tokens[chosen] = MASK_TOKEN
        expected["targets"] = targets

    torch.set_default_dtype(torch.float64)
    with torch.no_grad(), Double():
        output, hidden = run(tokens, mask)
        for k, value in enumerate(hidden):
            expected[f"hidden.{k}"] = value
        cross_entropy = torch.nn.functional.cross_entropy

        def next_token(logits, tokens, mask):
            losses = cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
            return (losses * mask[:, 1:]).sum(1)

        if kind == "BertModel":
            expected["pooled"] = output.pooler_output
        else:
            expected["logits"] = output.logits
        if "ForSequenceClassification" in kind:
            expected["labels"] = torch.randint(0, 3, (len(ROWS),), generator=random)
            expected["loss"] = cross_entropy(output.logits, expected["labels"], reduction="none")
        elif "ForMaskedLM" in kind:
            expected["loss"] = cross_entropy(output.logits.transpose(1, 2), targets, reduction="none").sum(1)
        elif kind != "BertModel":
            expected["loss"] = next_token(output.logits, tokens, mask)
        if name == "llama-rope-dynamic":
            alone = torch.zeros_like(output.logits)
            for row, length in enumerate(ROWS):
                alone[row, :length] = run(tokens[row:row + 1, :length], mask[row:row + 1, :length])[0].logits
            expected["alone.logits"] = alone
            expected["alone.loss"] = next_token(alone, tokens, mask)
    if name in WITH_GRADIENT:
        with Double():
            expected["gradient"] = gradient_norms(fresh(), expected)
    torch.set_default_dtype(torch.float32)

    with torch.no_grad():  # transformers as it is, in float32, must agree as far as float32 goes
        model = getattr(transformers, kind).from_pretrained(folder, **HOW).eval()
        plain = model(input_ids=tokens, attention_mask=mask)
        key = "pooled" if kind == "BertModel" else "logits"
        apart = ((plain.pooler_output if key == "pooled" else plain.logits) - expected[key]).abs()
        apart = apart[mask.bool()] if apart.dim() == 3 else apart
        if apart.max() > 1e-4:
            raise RuntimeError(f"{name}: float32 and float64 are {apart.max():.1e} apart")
    save_file({key: value.contiguous() for key, value in expected.items()}, folder / "expected.safetensors")
    return apart.max()


def gradient_norms(model, expected):
    """Of each sequence by itself, without padding."""
    norms = []
    cross_entropy = torch.nn.functional.cross_entropy
    for row, length in enumerate(ROWS):
        tokens = expected["tokens"][row:row + 1, :length]
        model.zero_grad()
        logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
        if "labels" in expected:
            loss = cross_entropy(logits, expected["labels"][row:row + 1])
        elif "targets" in expected:
            loss = cross_entropy(logits[0], expected["targets"][row, :length], reduction="sum")
        else:
            loss = cross_entropy(logits[0, :-1], tokens[0, 1:], reduction="sum")
        loss.backward()
        norms.append(sum(parameter.grad.square().sum() for parameter in model.parameters() if parameter.grad is not None))
    return torch.stack(norms).detach()


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        folder = FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        write(name, folder, make(name))
        apart = reference(name, folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{name:24} {size / 1024:5.1f} KB   float32 is within {apart:.1e}")


if __name__ == "__main__":
    main()
