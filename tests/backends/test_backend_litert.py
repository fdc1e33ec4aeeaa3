from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from edgetl.backends import BACKENDS
from edgetl.core.targets import find_target
from tests.backends.contract import BackendContract
from tests.compress.images import pictures


class TestLiteRt(BackendContract):
    name = "litert"
    target_name = "arm64-litert"
    recipe = "litert-int8"
    batch = 1
    files = frozenset({"model.tflite", "model.onnx"})
    takes_texts = False


def test_a_simulation_is_the_quantized_graph_in_float(
    small_onnx: Path, small_int8: Callable[[str], Path], tmp_path: Path
) -> None:
    backend, images = BACKENDS["litert"], pictures(20, seed=3)
    artifact = backend.compile(small_int8("litert-int8"), find_target("arm64-litert"), tmp_path)
    assert artifact.graph.read_bytes() == small_int8("litert-int8").read_bytes()
    native, simulated = (backend.open(artifact, simulated=flag) for flag in (False, True))
    assert (native.executed().precision, simulated.executed().precision) == ("int8", "fp32")
    found, expected = (
        np.concatenate([session.run({"image": image[None]})["logits"] for image in images])
        for session in (native, simulated)
    )
    # Both round to the same 256 steps; sums that fall between two of them go one way or the other.
    assert 0 < np.abs(found - expected).max() < 0.05 * np.ptp(expected)
    for session in (native, simulated):
        session.close()


def test_fp16_is_refused() -> None:
    target = replace(find_target("arm64-litert"), precisions=("fp32", "fp16", "int8"))
    assert "fp16" in (BACKENDS["litert"].refuses(target, "fp16") or "")
