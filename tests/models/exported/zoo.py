"""Exports models of many kinds with python/whence_export.py, and what PyTorch computes of them in float64.

    python zoo.py FOLDER [NAME...]      # torch 2.13; transformers too for the models called hf-*
    WHENCE_EXPORTED_MODELS=FOLDER whence_tests -tc="exported models: a folder of them"

All have random weights and are tiny. NAME.safetensors is as make_fixtures.py tells; a model that PyTorch itself does
not export is told and left out.
"""

import pathlib
import sys
import time
import warnings

import torch
from torch import nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from make_fixtures import Conv1, Convnet, Gpt, Lstm, Residual, Two, truth, whence_export, write_safetensors  # noqa: E402


class Of(nn.Module):
    """Modules by name and a function of them and the inputs."""

    def __init__(self, function, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def pooled(m, x):
    return m.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def basic_block(width, first="relu"):
    def forward(m, x):
        y = F.relu_(m.bn1(m.c1(x)))
        return F.relu_(m.bn2(m.c2(y)) + x)

    conv = [nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2)]
    return Of(forward, c1=conv[0], bn1=nn.BatchNorm2d(width), c2=conv[1], bn2=nn.BatchNorm2d(width))


def excite(width):
    return Of(lambda m, x: x * F.hardsigmoid(m.b(F.relu(m.a(x.mean((2, 3), keepdim=True))))),
              a=nn.Conv2d(width, 2, 1), b=nn.Conv2d(2, width, 1))


def convnext(width):
    def forward(m, x):
        y = m.norm(m.depth(x).permute(0, 2, 3, 1))
        return x + (m.scale.weight * m.down(F.gelu(m.up(y)))).permute(0, 3, 1, 2)

    return Of(forward, depth=nn.Conv2d(width, width, 3, padding=1, groups=width), norm=nn.LayerNorm(width),
              up=nn.Linear(width, 6), down=nn.Linear(6, width), scale=nn.Embedding(1, width))


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(1, 6, 2, 2)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.randn(1, 10, 6))
        layer = nn.TransformerEncoderLayer(6, 2, 8, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.fc(self.encoder(x)[:, 0])


class Llama(nn.Module):
    """RMS norms, a gated MLP, grouped queries, rotation."""

    def __init__(self, width=8):
        super().__init__()
        self.table, self.norm1, self.norm2 = nn.Embedding(9, width), nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, 4), nn.Linear(width, 4)
        self.o, self.gate, self.up = nn.Linear(width, width), nn.Linear(width, 12), nn.Linear(width, 12)
        self.down, self.head = nn.Linear(12, width), nn.Linear(width, 9, bias=False)

    def forward(self, input_ids):
        x = self.table(input_ids)
        b, t, w = x.shape
        y = self.norm1(x)
        with torch.no_grad():
            angle = torch.arange(t, dtype=x.dtype)[:, None] / torch.tensor([1.0, 10.0], dtype=x.dtype)

        def turned(z):
            p, q = z[..., :2], z[..., 2:]
            return torch.cat([p * angle.cos() - q * angle.sin(), p * angle.sin() + q * angle.cos()], -1)

        q, k, v = (f(y).view(b, t, -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(turned(q), turned(k).repeat_interleave(2, 1), v.repeat_interleave(2, 1),
                                           is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, w))
        y = self.norm2(x)
        return self.head(x + self.down(F.silu(self.gate(y)) * self.up(y)))


class Bag(nn.Module):
    def __init__(self, by_hand):
        super().__init__()
        self.by_hand = by_hand
        self.table = nn.Embedding(7, 4, padding_idx=0) if by_hand else nn.EmbeddingBag(7, 4, mode="mean")
        self.fc = nn.Linear(4, 3)

    def forward(self, words):
        if not self.by_hand:
            return self.fc(self.table(words))
        seen = words.ne(0).to(self.fc.weight.dtype)[..., None]
        return self.fc((self.table(words) * seen).sum(1) / seen.sum(1).clamp(min=1))


class Pair(nn.Module):
    """One network for both inputs."""

    def __init__(self):
        super().__init__()
        self.net, self.fc = nn.Linear(3, 4), nn.Bilinear(4, 4, 2)

    def forward(self, left, right):
        return self.fc(torch.tanh(self.net(left)), torch.tanh(self.net(right)))


class Attends(nn.Module):
    """Words and the mask of those that count."""

    def __init__(self):
        super().__init__()
        self.table, self.attention, self.fc = nn.Embedding(7, 4), nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, words, seen):
        x = self.table(words)
        x = x + self.attention(x, x, x, key_padding_mask=seen.eq(0), need_weights=False)[0]
        return self.fc(x.mean(1))


class Sizes(nn.Module):
    """What a size of the input decides."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        t = x.shape[1]
        return self.b(torch.tanh(self.a(x))[:, : max(1, t - t % 3)].sum(1) / t**2)


def images(channels=2, size=6):
    return torch.randn(3, channels, size, size)


def own():
    line, grid = torch.randn(3, 2, 6), images()
    words = torch.tensor([[1, 2, 3, 0, 0], [4, 4, 5, 6, 0], [6, 1, 2, 3, 5]])

    def sequential(*modules):
        return nn.Sequential(*modules)

    def conv(*arguments, **more):
        return nn.Conv2d(*arguments, **more)

    def end():
        return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)

    layer = nn.TransformerEncoderLayer(4, 2, 6, 0.0, "gelu")
    yield "mlp", sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3)), torch.randn(3, 4)
    yield "mlp-batch-norm", sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.SELU(), nn.Linear(5, 3)), torch.randn(3, 4)
    yield "mlp-weight-norm", sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Softplus(),
                                        nn.Linear(5, 3)), torch.randn(3, 4)
    yield "mlp-prelu", sequential(nn.Linear(4, 5), nn.PReLU(5), nn.Linear(5, 3)), torch.randn(3, 4)
    yield "regression-one-output", sequential(nn.Linear(4, 5), nn.Mish(), nn.Linear(5, 1), nn.Flatten(0)), torch.randn(3, 4)
    yield "convnet", Convnet(), grid
    yield "convnet-group-norm", sequential(conv(2, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(True), conv(4, 4, 3), *end()), grid
    yield "convnet-instance-norm", sequential(conv(2, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.GELU(), *end()), grid
    yield "convnet-max-pool", sequential(conv(2, 4, 3, padding="same", padding_mode="circular"), nn.ReLU(True), nn.MaxPool2d(2), *end()), grid
    yield "convnet-reflect", sequential(nn.ReflectionPad2d(1), conv(2, 4, 3), nn.LeakyReLU(0.1), nn.AvgPool2d(2), *end()), grid
    yield "mobilenet-depthwise", sequential(conv(2, 4, 1), nn.BatchNorm2d(4), nn.Hardswish(True), conv(4, 4, 3, groups=4, padding=1),
                                            nn.BatchNorm2d(4), nn.ReLU6(True), *end()), grid
    yield "mobilenet-excitation", sequential(conv(2, 4, 3), excite(4), nn.Hardswish(), *end()), grid
    yield "resnext-groups", sequential(conv(2, 4, 3), nn.ReLU(), conv(4, 4, 3, groups=2), nn.Tanh(), *end()), grid
    yield "convolution-transposed", sequential(conv(2, 3, 3), nn.Tanh(), nn.ConvTranspose2d(3, 2, 3, stride=2), nn.Flatten()), images(2, 4)
    yield "convolution-1d", Conv1(), line
    yield "convolution-1d-causal", sequential(nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(2, 4, 3, dilation=2), nn.GLU(1), nn.Flatten(),
                                              nn.Linear(12, 2)), line
    yield "convolution-3d", sequential(nn.Conv3d(1, 3, 2), nn.BatchNorm3d(3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 2)), torch.randn(3, 1, 3, 3, 3)
    yield "resnet", Of(lambda m, x: pooled(m, m.two(m.one(F.relu_(m.bn(m.stem(x)))))), stem=conv(2, 4, 3), bn=nn.BatchNorm2d(4),
                       one=basic_block(4), two=basic_block(4), fc=nn.Linear(4, 3)), grid
    yield "resnet-group-norm", Residual(), images(1, 5)
    yield "densenet", Of(lambda m, x: pooled(m, torch.cat([x, torch.tanh(m.a(x))], 1)), a=conv(2, 3, 3, padding=1), fc=nn.Linear(5, 3)), grid
    yield "unet", Of(lambda m, x: m.out(torch.cat([F.interpolate(torch.tanh(m.low(F.avg_pool2d(x, 2))), scale_factor=2.0), torch.tanh(m.high(x))], 1)
                                        ).flatten(1), low=conv(2, 2, 3, padding=1), high=conv(2, 2, 3, padding=1), out=conv(4, 1, 1)), grid
    yield "pixel-shuffle", sequential(conv(2, 4, 3), nn.Tanh(), nn.PixelShuffle(2), nn.Flatten()), images(2, 4)
    yield "convnext", Of(lambda m, x: pooled(m, m.block(m.stem(x))), stem=conv(2, 4, 2, 2), block=convnext(4), fc=nn.Linear(4, 3)), grid
    yield "mixer", Of(lambda m, x: m.fc(x + m.b(F.gelu(m.a(x.transpose(1, 2)))).transpose(1, 2)).mean(1), a=nn.Linear(6, 5), b=nn.Linear(5, 6),
                      fc=nn.Linear(2, 3)), line.transpose(1, 2).contiguous()
    yield "vit", Vit(), images(1, 6)
    yield "transformer-encoder", Of(lambda m, x: m.fc(m.layer(x.permute(2, 0, 1)).mean(0)), layer=layer, fc=nn.Linear(4, 2)), torch.randn(3, 4, 5)
    yield "attention-masked", Attends(), {"words": words, "seen": words.ne(0).long()}
    yield "gpt-tied", Gpt(), {"input_ids": words}
    yield "llama-like", Llama(), {"input_ids": words}
    yield "lstm", Lstm(), torch.randn(3, 4, 3)
    yield "lstm-both-ways", Of(lambda m, x: m.fc(m.rnn(x)[0].mean(1)), rnn=nn.LSTM(3, 2, bidirectional=True, batch_first=True),
                               fc=nn.Linear(4, 2)), torch.randn(3, 4, 3)
    yield "gru", Of(lambda m, x: m.fc(m.rnn(x)[0][:, -1]), rnn=nn.GRU(3, 4, batch_first=True), fc=nn.Linear(4, 2)), torch.randn(3, 4, 3)
    yield "rnn-tanh", Of(lambda m, x: m.fc(m.rnn(x)[0][:, -1]), rnn=nn.RNN(3, 4, batch_first=True), fc=nn.Linear(4, 2)), torch.randn(3, 4, 3)
    yield "lstm-cell", Of(lambda m, x: m.fc(m.cell(x[:, 1], m.cell(x[:, 0]))[0]), cell=nn.LSTMCell(3, 4), fc=nn.Linear(4, 2)), torch.randn(3, 2, 3)
    yield "two-inputs", Two(), {"x": torch.randn(3, 3), "y": torch.randn(3, 2)}
    yield "siamese-bilinear", Pair(), {"left": torch.randn(3, 3), "right": torch.randn(3, 3)}
    yield "embedding-bag", Bag(False), {"words": words}
    yield "embedding-mean-padded", Bag(True), {"words": words}
    yield "einsum", Of(lambda m, x: torch.einsum("bct,dct->bd", torch.tanh(m.a(x)), m.b.weight.view(3, 2, 4)), a=nn.Linear(6, 4),
                       b=nn.Embedding(3, 8)), line
    yield "sizes-mod-and-pow", Sizes(), torch.randn(3, 7, 5)


def families():
    import transformers as t

    ids = torch.tensor([[5, 2, 3, 4, 7], [4, 4, 5, 6, 8], [6, 9, 2, 3, 5]])
    few = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 11,
           "max_position_embeddings": 16, "num_labels": 3, "use_cache": False, "pad_token_id": 1}
    causal = few | {"num_key_value_heads": 1, "tie_word_embeddings": False}
    texts = {"input_ids": ids}
    yield "hf-gpt2", lambda: t.GPT2LMHeadModel(t.GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=11, n_positions=16, use_cache=False)), texts
    yield "hf-bert", lambda: t.BertForSequenceClassification(t.BertConfig(**few)), texts
    yield "hf-bert-masked", lambda: t.BertForMaskedLM(t.BertConfig(**few)), texts
    yield "hf-roberta", lambda: t.RobertaForSequenceClassification(t.RobertaConfig(**few)), texts
    yield "hf-electra", lambda: t.ElectraForSequenceClassification(t.ElectraConfig(embedding_size=8, **few)), texts
    yield "hf-albert", lambda: t.AlbertForSequenceClassification(t.AlbertConfig(embedding_size=6, **few)), texts
    yield "hf-distilbert", lambda: t.DistilBertForSequenceClassification(
        t.DistilBertConfig(dim=8, n_layers=2, n_heads=2, hidden_dim=12, vocab_size=11, max_position_embeddings=16, num_labels=3)), texts
    for name in ("Llama", "Qwen2", "Qwen3", "Mistral", "Phi3", "Olmo2", "Gemma"):
        more = {"head_dim": 4} if name in ("Qwen3", "Gemma") else {}
        yield "hf-" + name.lower(), lambda name=name, more=more: getattr(t, name + "ForCausalLM")(getattr(t, name + "Config")(**causal, **more)), texts
    yield "hf-gpt-neox", lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**few)), texts
    yield "hf-opt", lambda: t.OPTForCausalLM(t.OPTConfig(word_embed_proj_dim=8, ffn_dim=12, **few)), texts
    yield "hf-bloom", lambda: t.BloomForCausalLM(t.BloomConfig(hidden_size=8, n_layer=2, n_head=2, vocab_size=11, use_cache=False)), texts
    yield "hf-t5", lambda: t.T5ForConditionalGeneration(
        t.T5Config(d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2, vocab_size=11, use_cache=False)), texts | {"decoder_input_ids": ids[:, :3]}
    yield "hf-vit", lambda: t.ViTForImageClassification(t.ViTConfig(image_size=6, patch_size=3, num_channels=2, **few)), {"pixel_values": images()}
    yield "hf-resnet", lambda: t.ResNetForImageClassification(
        t.ResNetConfig(num_channels=2, embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], num_labels=3, layer_type="basic")), {"pixel_values": images(2, 8)}


def unsettled(model):
    """Away from what initialisation makes zero or one."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(0.2 * torch.randn_like(p))
        for name, b in model.named_buffers():
            if "running_" in name:
                b.uniform_(0.5, 2)
    return model


def main():
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    folder, wanted = pathlib.Path(sys.argv[1]), set(sys.argv[2:])
    folder.mkdir(parents=True, exist_ok=True)

    def entries():
        torch.manual_seed(1)
        yield from own()
        yield from families()

    for name, model, inputs in entries():
        if (wanted and name not in wanted) or (folder / f"{name}.safetensors").exists():
            continue
        start = time.time()
        try:
            torch.manual_seed(2)
            model = unsettled(model if isinstance(model, nn.Module) else model()).eval()
            if isinstance(inputs, torch.Tensor):
                inputs = whence_export._named(model, inputs)
            whence_export.save(model, inputs, folder / f"{name}.pt2")
            write_safetensors(folder / f"{name}.safetensors", truth(model, inputs, "logits"))
            print(f"{name:24} exported in {time.time() - start:.1f} s", flush=True)
        except Exception as error:  # PyTorch's own limits are part of what is told
            (folder / f"{name}.pt2").unlink(missing_ok=True)
            print(f"{name:24} NOT EXPORTED: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}", flush=True)


if __name__ == "__main__":
    main()
