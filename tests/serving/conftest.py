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


def image_bundle(
    folder: Path, seed: int = 0, *, batch: int | None = None, wrong: bool = False, backend: str = "onnxruntime"
) -> Bundle:
    """The tiny network for images.

    Args:
        folder: to be made.
        seed: of its weights.
        batch: that it is fixed to.
        wrong: its golden vectors are another's.
        backend: ``onnxruntime`` or ``openvino``.
    """
    file = folder / "model" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(tiny.model(seed=seed).SerializeToString())
    images = tiny.pictures(4, seed=9)
    logits = answers(file, images)
    file.write_bytes(tiny.model(batch, seed).SerializeToString())
    artifact = Artifact(backend, file, "fp32")
    if backend == "openvino":
        library = pytest.importorskip("openvino", reason="edgetl[openvino] brings the runtime")
        library.save_model(library.convert_model(file), file.with_suffix(".xml"), compress_to_fp16=False)
        file.unlink()
        artifact = Artifact(backend, file.with_suffix(".xml"), "fp32", "CPU")
    return tiny.seal(folder, artifact, golden=(images, logits[::-1] if wrong else logits))


def answers(file: Path, images: np.ndarray) -> Any:
    """What the network of an ONNX file answers: uint8 (n, 32, 24, 3) → float32 (n, 4)."""
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """For images, by ONNX Runtime, with a fixed batch of 2, and by OpenVINO; for texts; for arrays of two inputs."""
    folder = tmp_path_factory.mktemp("served")
    return {
        "pictures": image_bundle(folder / "pictures"),
        "pairs": image_bundle(folder / "pairs", batch=2),
        "openvino": image_bundle(folder / "openvino", backend="openvino"),
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
