"""TensorRT's engines on the fake GPU: when they are built, used again, or refused."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.base.errors import BackendError
from edgetl.core.bundle import Artifact
from edgetl.runtime import build_engine
from edgetl.runtime.measure import cold_start
from edgetl.runtime.sessions import open_session, prepare
from tests.compress.images import pictures
from tests.compress.models import logits_of

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.fixture
def artifact(small_onnx: Path) -> Artifact:
    return Artifact("tensorrt", small_onnx, "fp32")


def test_a_tensorrt_that_does_not_start_is_one_line(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the driver is too old for it."""

    def runtime(logger: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(build_engine.load_tensorrt(), "Runtime", runtime)
    with pytest.raises(BackendError, match=r"TensorRT does not start here .*nullptr.*: run: edgetl doctor"):
        open_session(artifact)


def test_a_start_is_timed_when_the_engine_is_there(
    small_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    events: list[str] = []

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            events.append(name)
            return real(*arguments, **more)

        return call

    monkeypatch.setattr(subprocess, "run", noted("built", subprocess.run))
    monkeypatch.setattr(time, "perf_counter", noted("clock", time.perf_counter))
    cold_start(Artifact("tensorrt", small_onnx, "fp32"), {"image": pictures(1)}, threads=1)
    assert events[:3] == ["built", "clock", "clock"]
    assert "built" not in events[1:]


def test_a_damaged_engine_and_one_of_another_build_are_built_again(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    prepare(artifact)
    (engine,) = tmp_path.rglob("*.engine")
    good = engine.read_bytes()
    other = good.replace(b"10.3.0.26", b"10.3.0.30")
    for content, keep in ((good[:100], False), (other, True)):
        if keep:
            build_engine.keep(engine, content)
        else:
            engine.write_bytes(content)
        session = open_session(artifact)
        session.close()
        assert engine.read_bytes() == good
        assert build_engine.is_whole(engine)


@pytest.mark.parametrize("version", ["11.4.1.5", "8.6.2.3"])
def test_tensorrt_11_serves_and_8_does_not(
    version: str, artifact: Artifact, small_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TENSORRT_VERSION", version)
    images = pictures(1)
    if version.startswith("8"):
        with pytest.raises(BackendError, match=r"TensorRT 10 or newer is needed, this is 8\.6\.2\.3"):
            open_session(artifact)
        return
    session = open_session(artifact)
    assert not hasattr(sys.modules["tensorrt"].BuilderFlag, "FP16"), "TensorRT 11 has no flags of precisions"
    np.testing.assert_allclose(session.run({"image": images})["logits"], logits_of(small_onnx, images), atol=1e-4)
    session.close()


def test_no_gpu_is_said_in_one_line(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GPU_ABSENT", "1")
    with pytest.raises(
        BackendError, match="this machine has no NVIDIA GPU to run a TensorRT engine: run on the device"
    ):
        open_session(artifact)
    with pytest.raises(BackendError, match="is there a GPU"):
        prepare(artifact)
