"""Files of samples of every kind of input, and the data set that they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgetl.base.storage import sha256_file
from edgetl.core.data import SPLITS, Dataset, Sample

WORDS = "<script>alert(1)</script> a film & a half"
INPUTS: Mapping[str, dict[str, Any]] = {
    "image": {"height": 24, "width": 32},
    "text": {"kind": "text", "length": 16, "pad": 0},
    "tensor": {"kind": "tensor", "arrays": [{"name": "x", "shape": [6, None]}]},
}


def write_image(root: Path, index: int) -> str:
    Image.new("RGB", (40, 30), (index % 64 * 4, 60, 120)).save(root / f"{index}.png")
    return f"{index}.png"


def write_text(root: Path, index: int) -> str:
    (root / f"{index}.txt").write_text(f"{WORDS} {index}\nsecond line\x1b[2J", encoding="utf-8")
    return f"{index}.txt"


def write_tensor(root: Path, index: int) -> str:
    np.save(root / f"{index}.npy", np.arange(48, dtype=np.float32).reshape(6, 8) + index)
    return f"{index}.npy"


WRITERS: Mapping[str, Callable[[Path, int], str]] = {
    "image": write_image,
    "text": write_text,
    "tensor": write_tensor,
}


def write_samples(root: Path, kind: str, labels: Sequence[Any], classes: Sequence[str], label_kind: str) -> Dataset:
    """Write a file for each label; samples take the splits in turn."""
    root.mkdir(parents=True)
    samples = []
    for index, label in enumerate(labels):
        path = WRITERS[kind](root, index)
        digest = sha256_file(root / path)
        samples.append(Sample(path, label, digest, digest, SPLITS[index % len(SPLITS)]))
    return Dataset(root, tuple(classes), tuple(samples), label_kind=label_kind)
