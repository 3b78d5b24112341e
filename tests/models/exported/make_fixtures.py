"""Makes the exported models that tests/models/test_exported.cpp reads, and what PyTorch computes of them in float64.

    python make_fixtures.py        # torch 2.13; needs nothing else

NAME.pt2 is what python/whence_export.py or torch.export.save writes, repacked without the stack traces that make most
of it. NAME.safetensors holds, for the loss sum_b l_b, l_b = sum(w * output_b + output_b^2 / 2): inputs, output,
weights w, a direction v, and gradient, Hessian product H v, products <v, grad l_b> and squared norms |grad l_b|^2.
"""

import json
import pathlib
import struct
import sys
import zipfile

import torch
from torch import nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "python"))
import whence_export  # noqa: E402


class Convnet(nn.Module):
    """Batch norm in eval mode, an in-place activation behind it, stride, dilation, groups."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 4, 3, stride=2, padding=2, dilation=2)
        self.depth = nn.Conv2d(4, 4, 3, groups=4, padding=1)
        self.fc = nn.Linear(4 * 3 * 3, 3)
        self.bn.running_mean.normal_()
        self.bn.running_var.uniform_(0.5, 2)
        self.bn.weight.data.uniform_(0.5, 2)

    def forward(self, x):
        x = F.elu_(self.bn(self.a(x)))
        return self.fc(torch.tanh(self.depth(torch.tanh(self.b(x)))).flatten(1))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1, bias=False)
        self.one = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(3, 3)
        self.two = nn.Conv2d(3, 3, 1)
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        x = F.silu(self.stem(x))
        x = x + self.two(F.gelu(self.norm(self.one(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        b, t, w = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.qkv(self.ln_1(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, w)
        x = x + self.out(y)
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """Tied embeddings, a padding index, attention, rotary-like numbers made under no_grad, any length."""

    def __init__(self, vocabulary=7, width=6, context=8):
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width, padding_idx=0)
        self.wpe = nn.Embedding(context, width)
        self.block = Block(width, 2)
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, input_ids):
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.wte(input_ids) + self.wpe(places)
        with torch.no_grad():
            gate = torch.cos(x * 0.5)
        x = self.block(x * gate)
        return {"logits": self.lm_head(self.ln_f(x) * self.scale), "hidden": x}


class Masked(nn.Module):
    """Attention behind a mask of booleans made by &: which tokens came before and are no padding."""

    def __init__(self, vocabulary=7, width=6):
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.fc = nn.Linear(width, 3)

    def forward(self, input_ids):
        q, k, v = self.qkv(self.wte(input_ids)).unsqueeze(1).chunk(3, -1)
        places = torch.arange(input_ids.shape[1])
        mask = (places <= places[:, None]) & (input_ids != 0)[:, None, None, :]
        return self.fc(F.scaled_dot_product_attention(q, k, v, mask)[:, 0, -1])


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.rnn(x)[0][:, -1])


class Two(nn.Module):
    """Several inputs, a literal, an in-place write into a fresh tensor and into an input, frozen weights."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)
        self.frozen = nn.Linear(4, 4)
        for p in self.frozen.parameters():
            p.requires_grad_(False)
        self.token = nn.Parameter(torch.randn(1, 4))

    def forward(self, x, y):
        x.mul_(0.5)
        z = torch.zeros(x.shape[0], 8, dtype=x.dtype)
        z[:, :4] = torch.tanh(self.left(x))
        z[:, 4:] = self.frozen(torch.sigmoid(self.right(y))) * self.token
        return z * torch.tensor(2.0)


class Conv1(nn.Module):
    """A line of numbers, attention of torch's own, time first."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3, padding=1)
        self.attention = nn.MultiheadAttention(4, 2)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        y = torch.tanh(self.conv(x)).permute(2, 0, 1)
        return self.fc(self.attention(y, y, y, need_weights=False)[0].mean(0))


class Solid(nn.Module):
    """Convolutions of solids: unequal strides and padding, dilation."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv3d(2, 3, (2, 3, 2), stride=(1, 2, 1), padding=(0, 1, 1))
        self.b = nn.Conv3d(3, 2, 2, dilation=(1, 1, 2), bias=False)
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(torch.tanh(self.b(torch.tanh(self.a(x)))).mean((2, 3, 4)))


class Grouped(nn.Module):
    """Convolutions of groups: depthwise with a stride, dilated, of a line."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, padding=1)
        self.depth = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4, bias=False)
        self.wide = nn.Conv2d(4, 6, (3, 2), padding=(2, 1), dilation=(2, 1), groups=2)
        self.line = nn.Conv1d(6, 4, 3, groups=2)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = torch.tanh(self.wide(torch.tanh(self.depth(torch.tanh(self.a(x))))))
        return self.fc(torch.tanh(self.line(x.flatten(2))).mean(2))


class Transposed(nn.Module):
    """Transposed convolutions of images, lines and solids: stride, padding, groups, dilation, more at the end."""

    def __init__(self):
        super().__init__()
        self.image = nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=(1, 0), groups=2)
        self.line = nn.ConvTranspose1d(4, 2, 3, stride=2, dilation=2, bias=False)
        self.solid = nn.ConvTranspose3d(2, 2, (1, 2, 2), stride=(1, 2, 1), padding=(0, 1, 0))
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        x = torch.tanh(self.image(x))
        x = torch.tanh(self.line(x.flatten(2)))[..., :24].unflatten(2, (2, 3, 4))
        return self.fc(torch.tanh(self.solid(x)).square().mean((2, 3, 4)))


class Padded(nn.Module):
    """Convolutions with padding by name, filters of even sides among them."""

    def __init__(self):
        super().__init__()
        self.image = nn.Conv2d(2, 3, 3, padding="same")
        self.even = nn.Conv2d(3, 4, (2, 4), padding="same", bias=False)
        self.depth = nn.Conv2d(4, 4, 2, padding="valid", groups=2)
        self.line = nn.Conv1d(4, 3, 4, padding="same", dilation=3)
        self.solid = nn.Conv3d(3, 2, (2, 1, 3), padding="same")
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        x = torch.tanh(self.depth(torch.tanh(self.even(torch.tanh(self.image(x))))))
        x = torch.tanh(self.line(x.flatten(2)))[..., :12].unflatten(2, (2, 3, 2))
        return self.fc(torch.tanh(self.solid(x)).mean((2, 3, 4)))


class Spelled(nn.Module):
    """Both kinds of convolution as run_decompositions() writes them, and a matrix turned by permute."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, (3, 2)), nn.ConvTranspose2d(3, 2, 3, bias=False)
        self.line = nn.Conv1d(2, 4, 2)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = torch.tanh(torch.convolution(x, self.a.weight, self.a.bias, [1, 2], [1, 0], [1, 1], False, [0, 0], 1))
        x = torch.tanh(torch.convolution(x, self.b.weight, None, [2, 1], [1, 1], [1, 1], True, [1, 0], 1))
        x = torch.convolution(x.flatten(2), self.line.weight, self.line.bias, [1], [0], [2], False, [0], 1)
        return torch.addmm(self.fc.bias, torch.tanh(x).mean(2), self.fc.weight.permute(1, 0))


class Headed(nn.Module):
    """A frozen body whose numbers the trained part writes into, and one that it reads before the body writes on."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.wide = nn.Linear(3, 4)
        for p in self.parameters():
            p.requires_grad_(False)
        self.bn.running_mean.normal_()
        self.shift = nn.Parameter(torch.randn(3))
        self.two, self.fc = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        y = F.relu_(self.bn(self.conv(x))).mean((2, 3))
        shifted = y + self.shift
        y.mul_(3)
        z = torch.sigmoid(self.wide(y))
        z.add_(torch.tanh(self.two(shifted)))
        return self.fc(z)


class Reshaped(nn.Module):
    """A frozen table of tokens, which are given another shape first; places come from a table too."""

    def __init__(self):
        super().__init__()
        self.places, self.table = nn.Embedding(9, 4), nn.Embedding(7, 4)
        self.table.weight.requires_grad_(False)
        self.fc = nn.Linear(4, 3)

    def forward(self, input_ids):
        ids = input_ids.view(-1, input_ids.shape[-1])
        x = self.places((ids != 0).cumsum(1)) + self.table(ids)
        return self.fc(torch.tanh(x).mean(1))


class Recurrent(nn.Module):
    """Both ways and two layers deep, without biases, time first; cells; a state that is learned."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 2, num_layers=2, bidirectional=True)
        self.rnn = nn.RNN(4, 3, batch_first=True, bias=False)
        self.lstm = nn.LSTM(3, 2, bidirectional=True)
        self.start = nn.Parameter(torch.randn(3))
        self.cell, self.small = nn.LSTMCell(4, 3), nn.GRUCell(3, 3)

    def forward(self, x):
        y = self.gru(x.transpose(0, 1))[0].transpose(0, 1)
        y, last = self.rnn(torch.tanh(y))
        z, (h, c) = self.lstm(y.transpose(0, 1))
        state = self.cell(z.mean(0), (self.start.expand(x.shape[0], -1), last[0]))
        return self.small(state[0], state[1]) + torch.cat([h[0], c[1, :, :1]], 1)


class Projected(nn.Module):
    """An LSTM with projections, which has no form as layers and no vmap."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True, proj_size=2)

    def forward(self, x):
        return self.rnn(x)[0][:, -1]


class LossInside(nn.Module):
    """Each example's loss, made of its label."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, x, label):
        return F.cross_entropy(self.net(x), label, reduction="none", label_smoothing=0.1)


class Scaled(nn.Module):
    """A trained number of no dimension, as CLIP's logit_scale."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.b = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.tensor(0.4))

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)) * self.scale.exp())


class Named(nn.Module):
    """Three outputs, whose names the file holds, and a layer that forward does not use."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.left = nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(x)


class Shares(nn.Module):
    """A head of two layers as wide as each other, and a softmax behind it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 3)
        self.out = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))

    def forward(self, x):
        return self.out(self.stem(x)).softmax(1)


class OtherHead(nn.Module):
    """Whose last layer is not the one called head."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return self.fc(self.head(x))


class MeanFree(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x - x.mean(0))


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x + torch.randn_like(x))


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, g):
        return g


class Rounded(nn.Module):
    """A backward of its own, which an export loses."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(Straight.apply(3 * self.a(x)))


class Watched(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen.add_(1)
        return self.fc(x)


def without_traces(node):
    keep = {"nn_module_stack"}
    node["metadata"] = {k: v for k, v in node["metadata"].items() if k in keep}
    for argument in node["inputs"]:
        graph = argument["arg"].get("as_graph")
        for inner in graph["graph"]["nodes"] if graph else []:
            without_traces(inner)


def repack(path):
    """Without stack traces, descriptions of what lies between and the pickled sample, by another zip writer."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            if "/sample_inputs/" in name:
                continue
            if "/models/" in name:
                program = json.loads(data)
                for node in program["graph_module"]["graph"]["nodes"]:
                    without_traces(node)
                graph = program["graph_module"]["graph"]
                ends = {end["as_tensor"]["name"] for end in graph["inputs"] + graph["outputs"] if "as_tensor" in end}
                if len(graph["nodes"]) > 5:
                    graph["tensor_values"] = {k: v for k, v in graph["tensor_values"].items() if k in ends}
                program["graph_module"]["module_call_graph"] = program["graph_module"]["module_call_graph"][:1]
                data = json.dumps(program, separators=(",", ":")).encode()
            archive.writestr(zipfile.ZipInfo(name), data)


def write_safetensors(path, tensors):
    names = {torch.float64: "F64", torch.float32: "F32", torch.int64: "I64"}
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = bytes(tensor.detach().contiguous().flatten().view(torch.uint8).tolist()) if tensor.numel() else b""
        header[name] = {
            "dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def truth(model, inputs, output=None):
    """What PyTorch computes of `model` in float64."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model = model.double().eval()
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    theta = [p for p in model.parameters() if p.requires_grad]
    with sdpa_kernel(SDPBackend.MATH):
        def run(part):
            result = model(**{k: v.clone() for k, v in part.items()})
            return result if isinstance(result, torch.Tensor) else result[output]

        out = run(inputs)
        w = torch.randn_like(out)
        v = [torch.randn_like(p) for p in theta]
        losses = (w * out + out.square() / 2).flatten(1).sum(1) if out.dim() > 1 else w * out + out.square() / 2
        gradient = torch.autograd.grad(losses.sum(), theta, create_graph=True)
        dot = sum((g * d).sum() for g, d in zip(gradient, v))
        product = torch.autograd.grad(dot, theta, retain_graph=True, allow_unused=True)
        rows = [torch.autograd.grad(l, theta, retain_graph=True) for l in losses]
    found = {f"inputs.{k}": x for k, x in inputs.items()}
    found |= {"output": out, "w": w}
    found["products"] = torch.stack([sum((g * d).sum() for g, d in zip(row, v)) for row in rows])
    found["norms"] = torch.stack([sum(g.square().sum() for g in row) for row in rows])
    for name, g, d, h in zip(names, gradient, v, product):
        found |= {f"gradient.{name}": g, f"v.{name}": d, f"hessian.{name}": torch.zeros_like(d) if h is None else h}
    return found


def save_plain(model, inputs, path, sizes=None, decompose=False):
    program = torch.export.export(model, (), kwargs=inputs, dynamic_shapes=sizes, strict=False)
    torch.export.save(program.run_decompositions() if decompose else program, path)


def keep(name, model, inputs):
    path = HERE / f"{name}.pt2"
    whence_export.save(model, {k: v.clone() for k, v in inputs.items()}, path)
    repack(path)
    write_safetensors(HERE / f"{name}.safetensors", truth(model, inputs, "logits"))


def solid():
    torch.manual_seed(2)  # its own, which leaves the draws of the others as they were
    keep("solid", Solid(), {"x": torch.randn(3, 2, 4, 5, 4)})


def of_form():
    for name, model, sizes in [
        ("grouped", Grouped, (3, 2, 6, 6)),
        ("transposed", Transposed, (3, 2, 3, 3)),
        ("recurrent", Recurrent, (3, 4, 3)),
        ("projected", Projected, (3, 4, 3)),
    ]:
        torch.manual_seed(3)
        keep(name, model(), {"x": torch.randn(*sizes)})


def of_more_forms():
    for name, model, sizes in [
        ("padded", Padded, (3, 2, 4, 5)),
        ("spelled", Spelled, (3, 2, 4, 5)),
        ("headed", Headed, (3, 1, 4, 4)),
    ]:
        torch.manual_seed(4)
        keep(name, model(), {"x": torch.randn(*sizes)})
    torch.manual_seed(5)
    keep("reshaped", Reshaped(), {"input_ids": torch.tensor([[1, 0, 2, 6], [3, 4, 0, 0]])})


def scaled():
    torch.manual_seed(7)
    keep("scaled", Scaled(), {"x": torch.randn(4, 3)})


def named():
    torch.manual_seed(6)
    whence_export.save(Named(), {"x": torch.randn(3, 4)}, HERE / "named.pt2", classes=["cat", "dog", "fox"])
    repack(HERE / "named.pt2")


def of_heads():
    for name, model in [("shares", Shares), ("other-head", OtherHead)]:
        torch.manual_seed(8)
        whence_export.save(model(), {"x": torch.randn(3, 4)}, HERE / f"{name}.pt2")
        repack(HERE / f"{name}.pt2")


def main():
    torch.manual_seed(1)
    good = {
        "mlp": (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), {"input": torch.randn(4, 4)}),
        "convnet": (Convnet(), {"x": torch.randn(4, 2, 6, 6)}),
        "residual": (Residual(), {"x": torch.randn(3, 1, 5, 5)}),
        "gpt": (Gpt(), {"input_ids": torch.tensor([[1, 0, 2, 2, 6], [3, 4, 4, 5, 0], [6, 6, 1, 0, 0]])}),
        "masked": (Masked(), {"input_ids": torch.tensor([[1, 0, 2, 2, 6], [3, 4, 4, 5, 0], [6, 6, 1, 0, 1]])}),
        "lstm": (Lstm(), {"x": torch.randn(3, 4, 3)}),
        "two": (Two(), {"x": torch.randn(3, 3), "y": torch.randn(3, 2)}),
        "conv1": (Conv1(), {"x": torch.randn(3, 2, 5)}),
        "loss-inside": (LossInside(), {"x": torch.randn(4, 3), "label": torch.tensor([0, 2, 1, 1])}),
    }
    batch = torch.export.Dim("B", min=2)
    for name, (model, inputs) in good.items():
        keep(name, model, inputs)
    # a longer text than the exported one, and one example at a time
    model, inputs = good["mlp"]
    x = inputs["input"].float()
    model.float()
    save_plain(model, {"input": x[:1]}, HERE / "one.pt2")
    repack(HERE / "one.pt2")
    # what is refused or warned of
    x = torch.randn(3, 3)
    for name, model, sizes, decompose in [
        ("training", nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), {"input": {0: batch}}, False),
        ("dropout", nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), {"input": {0: batch}}, False),
        ("mean-free", MeanFree(), {"x": {0: batch}}, False),
        ("noisy", Noisy(), {"x": {0: batch}}, False),
        ("watched", Watched(), {"x": {0: batch}}, False),
        ("fixed", nn.Sequential(nn.Linear(3, 4)), None, False),
        ("decomposed", nn.Sequential(nn.Linear(3, 4)), {"input": {0: batch}}, True),
    ]:
        name_of_input = "x" if sizes and "x" in sizes else "input"
        save_plain(model.train(), {name_of_input: x}, HERE / f"{name}.pt2", sizes, decompose)
        repack(HERE / f"{name}.pt2")
    whence_export.save(Rounded(), {"x": x}, HERE / "rounded.pt2")
    repack(HERE / "rounded.pt2")
    solid()
    of_form()
    of_more_forms()
    named()
    of_heads()
    scaled()


if __name__ == "__main__":
    main()
