"""Bundles around the tiny network of ``tiny.py``: float, quantized by ONNX Runtime, and OpenVINO."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

pytest.importorskip("onnx", reason="onnx (edgetl[train]) builds the tiny network")
pytest.importorskip("torch", reason="torch (edgetl[train]) works out what the network answers")

import onnx
import tiny

from edgetl.core.bundle import Artifact, Bundle

MakeBundle = Callable[..., Bundle]


class _Reader:
    """Hands random pictures to ONNX Runtime's calibrator."""

    def __init__(self) -> None:
        self._rows: Iterator[Mapping[str, Any]] = iter([{"image": row[None]} for row in tiny.pictures(16, seed=5)])

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._rows, None)


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Quantize the tiny network (u8/s8 Q/DQ, per channel), leaving the named nodes in float."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    made: dict[tuple[str, ...], Path] = {}

    def quantize(*floats: str) -> Path:
        if floats not in made:
            folder = tmp_path_factory.mktemp("quantized")
            onnx.save(tiny.model(), folder / "float.onnx")
            quant_pre_process(folder / "float.onnx", folder / "ready.onnx", skip_symbolic_shape=True)
            quantize_static(
                folder / "ready.onnx",
                folder / "int8.onnx",
                _Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["Conv", "Gemm", "Relu", "GlobalAveragePool", "Flatten"],
                nodes_to_exclude=list(floats),
            )
            made[floats] = folder / "int8.onnx"
        return made[floats]

    return quantize


@pytest.fixture
def float_bundle(tmp_path: Path) -> MakeBundle:
    """The tiny network in float as the deployed artifact."""

    def make(batch: int | None = None, seed: int = 0, **options: Any) -> Bundle:
        folder = tmp_path / f"float-{batch}-{seed}"
        (folder / "model").mkdir(parents=True)
        onnx.save(tiny.model(batch, seed), folder / "model" / "model.onnx")
        return tiny.seal(folder, Artifact("onnxruntime", folder / "model" / "model.onnx", "fp32"), **options)

    return make


@pytest.fixture
def int8_bundle(tmp_path: Path, quantized: Callable[..., Path]) -> MakeBundle:
    """The quantized network with its float twin."""

    def make(*floats: str, **options: Any) -> Bundle:
        folder = tmp_path / "int8"
        for role in ("model", "float"):
            (folder / role).mkdir(parents=True)
        shutil.copy(quantized(*floats), folder / "model" / "model.onnx")
        onnx.save(tiny.model(), folder / "float" / "model.onnx")
        return tiny.seal(
            folder,
            Artifact("onnxruntime", folder / "model" / "model.onnx", "int8"),
            Artifact("onnxruntime", folder / "float" / "model.onnx", "fp32"),
            **options,
        )

    return make


@pytest.fixture
def image_files(tmp_path: Path) -> list[Path]:
    """Six pictures of different sizes and formats."""
    rng = np.random.default_rng(3)
    files = []
    for index, (width, height, ending) in enumerate(
        [(60, 44, "png"), (44, 61, "jpg"), (36, 36, "bmp"), (37, 90, "png"), (200, 41, "jpg"), (24, 32, "png")]
    ):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        file = tmp_path / "pictures" / f"{index} ö.{ending}"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file)
        files.append(file)
    return files
