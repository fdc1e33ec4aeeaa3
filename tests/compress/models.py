"""A small MobileNet-like network with its preprocessing inside, seeded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgetl.compress.export import run_onnx
from edgetl.inputs.image import Preprocess
from tests.compress.images import SIZE, pictures
from tests.compress.texts import LONGEST, WORDS

CLASSES = 7
PREPROCESS = Preprocess(SIZE, SIZE, SIZE, "bilinear", (0.5, 0.4, 0.3), (0.25, 0.25, 0.25))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Bottleneck(nn.Module):
    """Inverted residual: expand, depthwise, project."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = inputs * 4
        self.layers = nn.Sequential(
            *convolution(inputs, wide, 1),
            nn.ReLU6(),
            *convolution(wide, wide, 3, stride, wide),
            nn.ReLU6(),
            *convolution(wide, outputs, 1),
        )
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


class Small(nn.Module):
    """uint8 (n, 32, 32, 3) → float logits (n, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(PREPROCESS.mean).reshape(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(PREPROCESS.std).reshape(1, 3, 1, 1) * 255)
        self.body = nn.Sequential(
            *convolution(3, 16, 3, 2),
            nn.ReLU6(),
            Bottleneck(16, 16, 1),
            Bottleneck(16, 24, 2),
            Bottleneck(24, 24, 1),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image.to(torch.float32).permute(0, 3, 1, 2)
        return self.head(torch.flatten(self.pool(self.body((x - self.mean) / self.std)), 1))


@contextmanager
def one_thread() -> Iterator[None]:
    """Convolutions round otherwise with another number of threads; the statistics taken here shall not."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def logits_of(path: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits (n, classes) that ONNX Runtime makes of images with an ONNX file."""
    return run_onnx(path, {"image": images})["logits"]


def small_model(seed: int = 0) -> Small:
    """The network with seeded weights, and batch norms that have seen images, so that activations are of size one."""
    torch.manual_seed(seed)
    model = Small()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad(), one_thread():
        model.head.weight.mul_(8)
        model.train()(torch.from_numpy(pictures(64, seed=99)))
    return model.eval()


class Attention(nn.Module):
    """A layer of a transformer, as BERT has it: self-attention and two dense layers, each added and normalised."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        parts = (part(x).unflatten(-1, (self.heads, -1)) for part in (self.query, self.key, self.value))
        q, k, v = (part.transpose(1, 2) for part in parts)
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask).softmax(-1)
        x = self.norms[0](x + self.project((weights @ v).transpose(1, 2).flatten(2)))
        return self.norms[1](x + self.narrow(nn.functional.gelu(self.wide(x))))


class Words(nn.Module):
    """int64 token numbers and their mask, (n, tokens) each → float logits (n, 2): a tiny BERT."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, width), nn.Embedding(LONGEST, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Attention(width, 4) for _ in range(2))
        self.head = nn.Linear(width, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        kept = attention_mask.float()
        x = self.norm(self.words(input_ids) + self.places.weight[: input_ids.shape[1]])
        for layer in self.layers:
            x = layer(x, (1 - kept)[:, None, None, :] * -1e4)
        return self.head((x * kept[..., None]).sum(1) / kept.sum(1, keepdim=True))


def small_transformer() -> Words:
    """The tiny BERT with seeded weights, channels of very different size and answers that differ."""
    torch.manual_seed(0)
    model = Words()
    with torch.no_grad():
        for layer in model.layers:
            layer.norms[1].weight.copy_(torch.exp(torch.randn(32) / 2))
        model.head.weight.mul_(8)
    return model.eval()


class Joined(nn.Module):
    """A table row and a small window, float32 (n, 6) and (n, 2, 8) → class logits (n, 3) and a value (n, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.row, self.window = nn.Linear(6, 16), nn.Conv1d(2, 16, 3, padding=1)
        self.logits, self.values = nn.Linear(16, 3), nn.Linear(16, 1)

    def forward(self, row: torch.Tensor, window: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.row(row) + self.window(window).mean(2))
        return self.logits(x), self.values(x)


def perceptron() -> nn.Module:
    """float32 (n, 6) → float logits (n, 3), seeded."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
