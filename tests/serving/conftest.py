"""Bundles of tiny networks, and a server that has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgetl.core.bundle import Artifact, Bundle
from tests.conftest import paint
from tests.runtime import tiny
from tests.serving.process import Served, serving

pytest.importorskip("starlette", reason="edgetl[serve] serves")


def image_bundle(folder: Path, seed: int = 0, *, wrong: bool = False) -> Bundle:
    """The tiny network for images; ``wrong``: its golden vectors are another's."""
    file = folder / "model" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(tiny.model(seed=seed).SerializeToString())
    images = tiny.pictures(4, seed=9)
    logits = answers(file, images)
    return tiny.seal(folder, Artifact("onnxruntime", file, "fp32"), golden=(images, logits[::-1] if wrong else logits))


def answers(file: Path, images: np.ndarray) -> Any:
    """What the network of an ONNX file answers: uint8 (n, 32, 24, 3) → float32 (n, 4)."""
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """One for images, one for texts, one for arrays of two inputs."""
    folder = tmp_path_factory.mktemp("served")
    return {
        "pictures": image_bundle(folder / "pictures"),
        "texts": tiny.text_bundle(folder / "texts"),
        "arrays": tiny.tensor_bundle(folder / "arrays", "multi-label"),
    }


@pytest.fixture(scope="session")
def served(bundles: dict[str, Bundle]) -> Iterator[Served]:
    """All of them behind one server, whose requests have at most 1 MiB and 8 samples."""
    paths = [bundle.path for bundle in bundles.values()]
    with serving(*paths, "--max-body", "1", "--max-batch", "8", "--queue", "4") as server:
        yield server


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG that is no square."""
    file = tmp_path_factory.mktemp("photos") / "photo.jpg"
    paint(file, 1, 5, (61, 44))
    return file
