#!/usr/bin/env python3
"""Writes tests/models/vision/: tiny random models of images, as transformers writes them, and beside each what transformers computes
with it in double precision (expected.safetensors).

    make_vision.py          (the packages of make_checkpoints.py)

  inputs [B,C,S,S]  float64 pixels in 0 to 1, before the mean and std of preprocessor_config.json;  labels [B]
  logits [B,C], loss [B], gradient [B]: the squared norm of the gradient of each image's loss in all parameters
"""
import json
import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "vision"
CASES = {
    "vit": (dict(num_channels=3), [0.5, 0.4, 0.3], [0.2, 0.25, 0.5]),
    "vit-grey": (dict(num_channels=1, qkv_bias=False, hidden_act="relu", layer_norm_eps=1e-3), None, None),
}


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for number, (name, (changes, mean, std)) in enumerate(CASES.items()):
        folder = FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        random = torch.Generator().manual_seed(500 + number)
        model = transformers.ViTForImageClassification(transformers.ViTConfig(**{**dict(
            hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, image_size=6, patch_size=3, num_labels=3),
            **changes}))
        with torch.no_grad():
            for key, value in sorted(model.named_parameters()):
                value.copy_(torch.randn(value.shape, generator=random) * 0.35 + (1.0 if "norm" in key and key.endswith("weight") else 0.0))
        model.save_pretrained(folder)
        if mean is not None:
            (folder / "preprocessor_config.json").write_text(json.dumps(
                {"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": mean, "image_std": std,
                 "image_processor_type": "ViTImageProcessor", "rescale_factor": 1 / 255, "size": {"height": 6, "width": 6}}, indent=2) + "\n")
        # eager attention takes its softmax in float32
        model = transformers.ViTForImageClassification.from_pretrained(folder, attn_implementation="sdpa").double().eval()
        inputs = torch.rand((4, model.config.num_channels, 6, 6), generator=random, dtype=torch.float64)
        labels = torch.randint(0, 3, (4,), generator=random)
        of_channels = lambda numbers: torch.tensor(numbers, dtype=torch.float64).view(1, -1, 1, 1)
        pixels = inputs if mean is None else (inputs - of_channels(mean)) / of_channels(std)
        norms = []
        for row in range(len(labels)):
            model.zero_grad()
            torch.nn.functional.cross_entropy(model(pixel_values=pixels[row:row + 1]).logits, labels[row:row + 1]).backward()
            norms.append(sum(parameter.grad.square().sum() for parameter in model.parameters()))
        with torch.no_grad():
            logits = model(pixel_values=pixels).logits
        save_file({"inputs": inputs, "labels": labels, "logits": logits, "gradient": torch.stack(norms),
                   "loss": torch.nn.functional.cross_entropy(logits, labels, reduction="none")}, folder / "expected.safetensors")
        print(name, sum(file.stat().st_size for file in folder.iterdir()))


if __name__ == "__main__":
    main()
