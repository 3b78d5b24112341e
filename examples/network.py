"""A network of one's own, trained by PyTorch and written to a file that whence reads: net.pt2.

    python network.py IMAGES LABELS [net.pt2]       idx files as MNIST has them (.gz too)

A convnet with batch norm and a block that is nobody's but its author's. What makes it whence's is the last line.
Needs torch and NumPy, and python/whence_export.py.
"""

import gzip
import pathlib
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import whence_export  # noqa: E402

MEAN, STD = 0.5, 0.25


class Gated(nn.Module):
    """Two branches, one of which says how much of the other passes, beside the way past both."""

    def __init__(self, channels):
        super().__init__()
        self.value, self.gate = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return x + F.silu(self.norm(self.value(x))) * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.block = Gated(8)
        self.fc = nn.Linear(8 * 7 * 7, 10)

    def forward(self, x):
        x = self.block(F.silu(self.norm(self.stem(x))))
        return self.fc(F.avg_pool2d(x, 2).flatten(1))


def idx(path, offset):
    data = pathlib.Path(path).read_bytes()
    return np.frombuffer(gzip.decompress(data) if path.endswith(".gz") else data, dtype=np.uint8)[offset:].copy()


if __name__ == "__main__":
    torch.manual_seed(0)
    x = torch.tensor(idx(sys.argv[1], 16)).view(-1, 1, 28, 28).float() / 255
    x, y = (x - MEAN) / STD, torch.tensor(idx(sys.argv[2], 8)).long()
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    for batch in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
    path = sys.argv[3] if len(sys.argv) > 3 else "net.pt2"
    whence_export.save(model, x[:2], path, classes=[str(c) for c in range(10)], mean=[MEAN], std=[STD])
