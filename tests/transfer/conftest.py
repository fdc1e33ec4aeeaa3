"""Small real things for the transfer tests: a folder of digit images and a tiny timm model, one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

#: 0.6 million parameters; timm's own test model, drawn at random.
TINY: dict[str, Any] = {
    "backbone": "timm/test_efficientnet",
    "weights": "none",
    "image_size": 32,
    "precision": "32-true",
    "accelerator": "cpu",
    "workers": 0,
    "batch_size": 16,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny kernels on several threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 images of each of the digits 0 to 3."""
    root = tmp_path_factory.mktemp("few-digits")
    bunch = load_digits()
    for label in range(4):
        (root / str(label)).mkdir()
        for index in np.flatnonzero(bunch.target == label)[:40]:
            grey = np.clip(bunch.images[index] * 16, 0, 255).astype(np.uint8)
            Image.fromarray(grey).save(root / str(label) / f"{index:04d}.png")
    return root
