"""Writes a PyTorch model as one file that whence reads, with what it needs to check that it runs it as PyTorch does.

    import whence_export
    whence_export.save(model, (x,), "model.pt2")            # x: two examples or more

The file is that of torch.export.save (torch 2.8 or later); this adds a note in it, extra/whence.json. The model is
exported in eval mode with a batch of any size. Needs nothing but torch; copy it next to your code.
"""

import base64
import contextlib
import inspect
import json
import pathlib
import warnings

import torch

SAMPLE = 2  # examples whose output the file tells


def _as_text(tensor):
    """A tensor as JSON: the export format's number of its type, its shape, its bytes."""
    numbers = {
        torch.uint8: 1, torch.int8: 2, torch.int16: 3, torch.int32: 4, torch.int64: 5, torch.float16: 6,
        torch.float32: 7, torch.float64: 8, torch.bool: 12, torch.bfloat16: 13,
    }
    tensor = tensor.detach().cpu().contiguous()
    data = tensor.flatten().view(torch.uint8) if tensor.numel() else torch.empty(0, dtype=torch.uint8)
    return {
        "dtype": numbers[tensor.dtype],
        "shape": list(tensor.shape),
        "data": base64.b64encode(bytes(data.tolist())).decode(),
    }


@contextlib.contextmanager
def _evaluating(model):
    """In eval mode, without a cache of keys, and as it was afterwards; attention by products, with all derivatives."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    config = getattr(model, "config", None)
    cached = getattr(config, "use_cache", None)  # of transformers: no tensor, and torch.export refuses it
    try:
        if cached:
            config.use_cache = False
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        if cached:
            config.use_cache = cached
        for module, training in modes:
            module.training = training


def _named(model, examples):
    """The example tensors by forward's argument names."""
    if isinstance(examples, torch.Tensor):
        examples = (examples,)
    if isinstance(examples, dict):
        return dict(examples)
    names = list(inspect.signature(model.forward).parameters)
    if len(examples) > len(names):
        raise ValueError(
            f"whence_export: {len(examples)} examples for forward({', '.join(names)}): a tuple has a tensor an argument"
        )
    return dict(zip(names, examples))


def _chosen(result, output):
    """The tensor that counts, as whence chooses it: the key `output`, else the only one, else logits."""
    if isinstance(result, torch.Tensor):
        return result
    if hasattr(result, "items"):
        found = {key: value for key, value in result.items() if isinstance(value, torch.Tensor)}
    else:
        found = {str(i): value for i, value in enumerate(result) if isinstance(value, torch.Tensor)}
    if output is None:
        output = "logits" if len(found) > 1 else next(iter(found))
    if output not in found:
        raise ValueError(f"whence_export: no output {output}: forward gives {', '.join(found)}: choose one, output=KEY")
    return found[output]


def _check_output(shape, classes):
    """Raises ValueError unless an output of that shape has a row or a number for each of the examples, and each of its
    columns a name where there are names."""
    if shape[:1] != [SAMPLE]:
        hint = "" if shape else ': a loss needs reduction="none", and no mean() or sum()'
        raise ValueError(
            f"whence_export: an output {shape} for {SAMPLE} examples, expected a row or a number for each{hint}"
        )
    if classes is not None and len(shape) == 2 and 1 < shape[1] != len(classes):
        raise ValueError(f"whence_export: {len(classes)} classes, and the model has {shape[1]} outputs")


def save(model, examples, path, *, dynamic=None, classes=None, mean=None, std=None, output=None):
    """Exports `model` to `path`.

    examples   two examples or more: a tensor [B, ...], a tuple of forward's arguments, or a dict of them by name.
    dynamic    further sizes that may differ, {"input_ids": {1: torch.export.Dim("T", min=2, max=512)}}; the length of
               input_ids and attention_mask is free by itself.
    classes    the name of each output, in order.
    mean, std  what was subtracted from each channel of the inputs, and what they were divided by, before the model (of
               images: in [0, 1]): whence does the same to images (cifar, idx) whose data table says nothing of it.
    output     which of several outputs counts, by its key.
    """
    inputs = _named(model, examples)
    for name, value in inputs.items():
        if not isinstance(value, torch.Tensor) or value.dim() == 0 or value.size(0) < 2:
            raise ValueError(f"whence_export: argument {name}: expected a tensor of two examples or more")
    batch = torch.export.Dim("batch", min=2)
    sizes = {name: {0: batch} for name in inputs}
    text = {name for name in ("input_ids", "attention_mask", "token_type_ids") if name in inputs}
    if text and dynamic is None:
        most = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        length = torch.export.Dim("length", min=2, **({"max": most} if most else {}))
        for name in text:
            sizes[name][1] = length
    for name, more in (dynamic or {}).items():
        if name not in sizes:
            raise ValueError(f"whence_export: dynamic: no argument {name}, expected {', '.join(sizes)}")
        sizes[name].update(more)
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("whence_export: every parameter is frozen: requires_grad_(True) for those that were trained")
    # a forward may write into what it is given, and the file holds all of the storage that a view is part of
    inputs = {name: value.clone() for name, value in inputs.items()}
    untouched = {name: value.clone() for name, value in inputs.items()}
    with _evaluating(model):
        program = torch.export.export(model, (), kwargs=inputs, dynamic_shapes=sizes, strict=False)
        sample = {name: value[:SAMPLE].clone() for name, value in untouched.items()}
        result = _chosen(model(**{name: value.clone() for name, value in sample.items()}), output)
        _check_output(list(result.shape), classes)
        if result.dim() == 2 and result.size(1) > 1 and (result >= 0).all() and ((result.sum(1) - 1).abs() < 1e-3).all():
            warnings.warn("whence_export: outputs that sum to 1: cross-entropy takes logits: leave the last softmax out")
        gradients = torch.autograd.grad(result.square().sum(), trained, allow_unused=True)
        norm = sum(g.double().square().sum().item() for g in gradients if g is not None) ** 0.5
    note = {
        "version": 1,
        "sample": {name: _as_text(value) for name, value in sample.items()},
        "output": _as_text(result),
        "gradient-norm": norm,
        "classes": list(classes) if classes is not None else None,
        "mean": list(mean) if mean is not None else None,
        "std": list(std) if std is not None else None,
    }
    torch.export.save(program, pathlib.Path(path), extra_files={"whence.json": json.dumps(note)})
