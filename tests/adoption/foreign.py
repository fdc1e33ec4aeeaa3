"""A small network as somebody else trained and exported it, its photographs, and what its owner knows of it."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = ("dawn", "dusk", "noon")
#: What its owner did to a picture.
SQUASH: Mapping[str, Any] = {
    "height": 24,
    "width": 24,
    "mode": "squash",
    "interpolation": "bilinear",
    "mean": MEAN,
    "std": STD,
}


def paint(path: Path, hue: int, seed: int) -> None:
    """A picture of two halves, 60x40, whose colours tell its class, with noise."""
    rng = np.random.default_rng([hue, seed])
    base = np.full((40, 60, 3), 60.0)
    base[:, : rng.integers(24, 36), hue] += 120 * rng.uniform(0.5, 1)
    base[rng.integers(16, 24) :, :, (hue + 1) % 3] += 50
    picture = np.clip(base + rng.normal(0, 20, base.shape), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def photographs(folder: Path, each: int = 60, first: int = 0) -> Path:
    """So many of each class."""
    for hue, name in enumerate(CLASSES):
        for index in range(first, first + each):
            paint(folder / name / f"{index:03d}.png", hue, index)
    return folder


def squashed(path: Path) -> npt.NDArray[np.float32]:
    """What the owner's own program fed: float (3, 24, 24), by Pillow alone."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize((24, 24), Image.Resampling.BILINEAR), np.float32)
    normal = (pixels / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1), np.float32)


def network(channels: int = 3) -> nn.Sequential:
    """Convolutions, one with a batch norm behind it, and a head that sees where things are."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, len(CLASSES)),
    )


def trained(files: Sequence[Path]) -> nn.Sequential:
    """The network, fitted to these files."""
    model = network()
    x = torch.from_numpy(np.stack([squashed(file) for file in files]))
    y = torch.tensor([CLASSES.index(file.parent.name) for file in files])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


@dataclass(frozen=True)
class Owned:
    """What an owner has.

    Attributes:
        folder: of ``photos/``, of ``model.onnx`` (opset 13, float NCHW, ends in Softmax), and of ``prep.json``.
        model: the torch model, without the Softmax.
        files: the photographs.
        logits: the torch model's, float32 (n, 3).
    """

    folder: Path
    model: nn.Sequential
    files: tuple[Path, ...]
    logits: npt.NDArray[np.float32]

    @property
    def onnx(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    def declared(self, file: Path, **changes: Any) -> Path:
        """A declaration of the preprocessing, right but for some changes."""
        file.write_text(json.dumps({**SQUASH, **changes}))
        return file

    def answers(self, file: Path, values: npt.NDArray[Any] | None = None) -> Path:
        """The answers of the owner's own program, or others."""
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.files]
        np.savez(file, logits=self.logits if values is None else values, sha256=hashes)
        return file


def exported(model: nn.Module, file: Path, example: torch.Tensor, opset: int = 18, **options: Any) -> Path:
    """As people export: by torch, its older exporter, which takes a tenth of the time; float planes are the input."""
    names = {"input_names": ["input"], "output_names": ["prob"], **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (example,), file, dynamo=False, opset_version=opset, **names)
    return file


def owned(folder: Path) -> Owned:
    """Photographs, a model fitted to them and its file, ending in Softmax, for one picture at a time."""
    files = tuple(sorted(photographs(folder / "photos").rglob("*.png")))
    model = trained(files)
    with torch.inference_mode():
        logits = model(torch.from_numpy(np.stack([squashed(file) for file in files]))).numpy()
    exported(nn.Sequential(model, nn.Softmax(1)).eval(), folder / "model.onnx", torch.zeros(1, 3, 24, 24))
    made = Owned(folder, model, files, logits)
    made.declared(folder / "prep.json")
    return made
