#!/usr/bin/env python3
"""Writes tests/tuning/peft/: an adapter of every kind that whence reads, as peft writes it for the tiny models of
tests/models/checkpoints, and beside it what peft computes with base and adapter in double precision (expected.safetensors).

    pip install --no-deps torch==2.13.0 peft==0.21.2 accelerate==1.15.0
    pip install transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6 psutil     (and what torch imports)
    make_peft_fixtures.py [NAME...]
    make_peft_fixtures.py --check DIR     DIR/NAME was written by whence from the fixture NAME: peft loads it, with equal logits

expected.safetensors, B sequences padded on the right to T tokens:
  tokens, mask [B,T]   int64; mask is 1 at tokens and 0 at padding;  labels [B]: classifiers
  logits               float64 [B,T,V], or [B,C] of a classifier; of the tokens alone, not of a prompt before them
  loss [B]             the summed cross entropy of each sequence: of every token after the first, or of the label
"""
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
import peft
import torch
import transformers
from make_checkpoints import FOLDER as BASES, VOCABULARY, Double
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).parent / "peft"
LENGTHS = (6, 4)
TASKS = {"gpt2": "CAUSAL_LM", "llama": "CAUSAL_LM", "llama-gqa-tied": "CAUSAL_LM", "bert-classification": "SEQ_CLS"}


def lora(**changes):
    return peft.LoraConfig(**{**dict(r=2, lora_alpha=3, init_lora_weights=False), **changes})


# name: (base, configuration)
FIXTURES = {
    "lora-gpt2": ("gpt2", lambda: lora(target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True)),
    "lora-llama": ("llama-gqa-tied", lambda: lora(target_modules="all-linear", use_rslora=True)),
    "lora-patterns": ("llama-gqa-tied", lambda: lora(
        target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"v_proj": 3, r"layers\.1\.mlp\.down_proj": 1},
        alpha_pattern={"layers.1.self_attn.q_proj": 7})),
    "lora-bert": ("bert-classification", lambda: lora(target_modules=["query", "value"])),
    "lora-bert-pooler": ("bert-classification", lambda: lora(target_modules=["query"], modules_to_save=["pooler"])),
    "lora-dora": ("llama-gqa-tied", lambda: lora(target_modules=["q_proj", "up_proj"], use_dora=True)),
    "lora-dora-gpt2": ("gpt2", lambda: lora(target_modules=["c_attn"], use_dora=True, fan_in_fan_out=True)),
    "lora-embedding": ("llama", lambda: lora(target_modules=["embed_tokens", "q_proj"])),
    "lora-bias-all": ("gpt2", lambda: lora(target_modules=["c_attn"], bias="all", fan_in_fan_out=True)),
    "lora-bias-only": ("bert-classification", lambda: lora(target_modules=["query", "key"], bias="lora_only")),
    "lora-bias-of-b": ("gpt2", lambda: lora(target_modules=["c_attn"], lora_bias=True, fan_in_fan_out=True)),
    "adalora": ("llama-gqa-tied", lambda: peft.AdaLoraConfig(
        target_modules=["q_proj", "v_proj"], init_r=3, target_r=2, lora_alpha=5, total_step=10, init_lora_weights=False)),
    "adalora-pruned": ("llama-gqa-tied", lambda: peft.AdaLoraConfig(
        target_modules=["q_proj", "v_proj"], init_r=3, target_r=2, lora_alpha=5, total_step=10, init_lora_weights=False)),
    "ia3-gpt2": ("gpt2", lambda: peft.IA3Config(init_ia3_weights=False, fan_in_fan_out=True)),
    "ia3-llama": ("llama-gqa-tied", lambda: peft.IA3Config(init_ia3_weights=False)),
    "hra": ("llama-gqa-tied", lambda: peft.HRAConfig(r=2, target_modules=["q_proj", "v_proj"], init_weights=False)),
    "hira": ("llama-gqa-tied", lambda: peft.HiraConfig(r=2, target_modules=["q_proj", "v_proj"], init_weights=False)),
    "ln": ("llama-gqa-tied", lambda: peft.LNTuningConfig()),
    "ln-gpt2": ("gpt2", lambda: peft.LNTuningConfig(target_modules=["ln_1", "ln_2", "ln_f"])),
    "beft": ("bert-classification", lambda: peft.BeftConfig(target_modules=["value"], init_weights=False)),
    "prefix-gpt2": ("gpt2", lambda: peft.PrefixTuningConfig(num_virtual_tokens=3)),
    "prefix-llama": ("llama-gqa-tied", lambda: peft.PrefixTuningConfig(num_virtual_tokens=3)),
    "prefix-projected": ("llama-gqa-tied", lambda: peft.PrefixTuningConfig(
        num_virtual_tokens=2, prefix_projection=True, encoder_hidden_size=5)),
    "prompt": ("gpt2", lambda: peft.PromptTuningConfig(num_virtual_tokens=2)),
    "p-tuning": ("llama-gqa-tied", lambda: peft.PromptEncoderConfig(num_virtual_tokens=2, encoder_hidden_size=6)),
}


def base_model(base):
    kind = (transformers.AutoModelForSequenceClassification if TASKS[base] == "SEQ_CLS"
            else transformers.AutoModelForCausalLM)
    return kind.from_pretrained(BASES / base).eval()


def write_adapter(name, base, config):
    config.task_type = TASKS[base]
    model = peft.get_peft_model(base_model(base), config)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if parameter.requires_grad:  # what starts where it changes nothing, and copies of the base's
                parameter += 0.2 * torch.randn_like(parameter)
    if name == "adalora-pruned":  # as its allocator does in the last step of training
        model.peft_config["default"].rank_pattern = {
            path.removeprefix("base_model.model."): [(i + j) % 3 != 0 for j in range(3)]
            for i, path in enumerate(p for p, _ in model.named_parameters() if "lora_E" in p)}
    model.save_pretrained(FOLDER / name, save_embedding_layers=False)
    (FOLDER / name / "README.md").unlink(missing_ok=True)
    path = FOLDER / name / "adapter_config.json"
    told = json.loads(path.read_text())
    told["base_model_name_or_path"] = base  # no path of the machine it was made on
    for key, value in told.items():  # sets are written in any order
        told[key] = sorted(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value
    path.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")


def examples(base):
    generator = torch.Generator().manual_seed(5)
    out = {"tokens": torch.randint(3, VOCABULARY, (len(LENGTHS), max(LENGTHS)), generator=generator),
           "mask": torch.tensor([[int(t < n) for t in range(max(LENGTHS))] for n in LENGTHS])}
    out["tokens"] *= out["mask"]
    if TASKS[base] == "SEQ_CLS":
        out["labels"] = torch.tensor([2, 0])
    return out


def results(base, folder):
    model = peft.PeftModel.from_pretrained(base_model(base).double(), folder).double().eval()
    out = examples(base)
    tokens, mask = out["tokens"], out["mask"]
    with torch.no_grad(), Double():
        logits = model(input_ids=tokens, attention_mask=mask).logits
    if TASKS[base] == "SEQ_CLS":
        loss = torch.nn.functional.cross_entropy(logits, out["labels"], reduction="none")
    else:
        logits = logits[:, logits.shape[1] - tokens.shape[1]:]  # a prompt's come first
        each = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
        loss = (each * mask[:, 1:]).sum(1)
    assert logits.dtype == torch.float64
    return {**out, "logits": logits.contiguous(), "loss": loss}


def make(names):
    for name in names:
        base, config = FIXTURES[name]
        torch.manual_seed(len(name))
        write_adapter(name, base, config())
        found = results(base, FOLDER / name)
        plain = base_model(base).double()
        with torch.no_grad(), Double():
            before = plain(input_ids=found["tokens"], attention_mask=found["mask"]).logits
        save_file(found, FOLDER / name / "expected.safetensors")
        print(f"{name:18} moves logits by {float((before - found['logits']).abs().max()):.2g}", flush=True)


def check(folder):
    worst = 0
    for path in sorted(Path(folder).iterdir()):
        if path.name not in FIXTURES:
            continue
        expected = load_file(FOLDER / path.name / "expected.safetensors")
        found = results(FIXTURES[path.name][0], path)
        real = expected["mask"].bool() if expected["logits"].dim() == 3 else slice(None)
        error = float((found["logits"] - expected["logits"])[real].abs().max())
        worst = max(worst, error)
        print(f"{path.name:18} off by {error:.2g}", flush=True)
    sys.exit(0 if worst < 1e-5 else "what whence wrote is not what it read")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        check(sys.argv[2])
    else:
        make(sys.argv[1:] or FIXTURES)
