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
