"""A device with TensorRT, as other processes see it: the script that builds engines, and a whole benchmark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import edgetl
from edgetl.base.errors import BackendError
from edgetl.base.schema import from_json, to_json
from edgetl.core.bundle import Artifact
from edgetl.latency import bench_record
from edgetl.runtime import build_engine
from edgetl.runtime.measure import MIN_RUNS
from edgetl.runtime.measurement import Measurement
from tests.gpu.fake import environment, reports
from tests.runtime import tiny

NOTHING = {"allocated": 0, "page-locked": 0, "streams": 0, "retained": 0, "pageable copies": 0, "faults": 0}


@pytest.fixture
def model(small_onnx: Path, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(small_onnx.read_bytes())
    return path


def build(driver: Path, model: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(build_engine.__file__), "--model", str(model), "--out", str(model.parent)]
    given = {**os.environ, **environment(driver, model.parent / "report", **more)}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=given)


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_an_engine_is_of_one_gpu_and_what_cannot_be_loaded_is_built_again(gpu_driver: Path, model: Path) -> None:
    first = told(build(gpu_driver, model))
    assert (first["compute_capability"], first["gpu"], first["reused"]) == (
        "8.7",
        build_engine.board() or "Orin",
        False,
    )
    assert told(build(gpu_driver, model))["reused"]
    other = told(build(gpu_driver, model, FAKE_GPU_NAME="Thor", FAKE_GPU_SM="110"))
    assert other["compute_capability"] == "11.0"
    assert other["engine"] != first["engine"]
    # Another build of the same version: the same name, and TensorRT does not take it.
    rebuilt = told(build(gpu_driver, model, FAKE_TENSORRT_VERSION="10.3.0.30"))
    assert (rebuilt["engine"], rebuilt["reused"]) == (first["engine"], False)
    for each in reports(model.parent / "report"):
        assert {name: each[name] for name in NOTHING} == NOTHING, each["fault"]


def test_kernel_timings_are_kept_and_begun_again_where_they_cannot_serve(gpu_driver: Path, model: Path) -> None:
    def timings(**more: str) -> bytes:
        told(build(gpu_driver, model, "--rebuild", **more))
        (file,) = model.parent.glob("timing-*.cache")
        return file.read_bytes()

    assert timings().count(b"another kernel") == 1
    assert timings().count(b"another kernel") == 2
    (file,) = model.parent.glob("timing-*.cache")
    for unfit in (b"damaged", file.read_bytes().replace(b"Orin", b"Nano")):
        file.write_bytes(unfit)
        assert timings().count(b"another kernel") == 1
        assert b"Orin" in file.read_bytes()


def test_what_the_parser_refuses_is_one_line(gpu_driver: Path, model: Path) -> None:
    model.write_bytes(b"no model")
    done = build(gpu_driver, model)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("the parser refuses it: In node -1")
    assert "Failed to parse the ONNX model" in done.stderr.splitlines()[-1]
    assert [file.name for file in model.parent.glob("model-*")] == []


@pytest.fixture
def device(gpu_driver: Path, tmp_path: Path) -> Callable[..., str]:
    """A device process with a bundle of :mod:`tiny`'s network."""
    (tmp_path / "bundle/model").mkdir(parents=True)
    given = environment(gpu_driver, tmp_path / "report", XDG_CACHE_HOME=str(tmp_path / "cache"))
    given["PYTHONPATH"] += os.pathsep + str(Path(edgetl.__file__).parent.parent)

    def run(verb: str, batch: int | None, *arguments: str) -> str:
        file = tmp_path / "bundle/model/model.onnx"
        onnx.save(tiny.model(batch), file)
        tiny.seal(tmp_path / "bundle", Artifact("tensorrt", file, "fp32"))
        command = [sys.executable, "-m", "edgetl.runtime", verb, str(tmp_path / "bundle"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **given})
        assert done.returncode == 0, done.stderr
        for each in reports(tmp_path / "report"):
            assert {name: each[name] for name in NOTHING} == NOTHING, each["fault"]
        return done.stdout

    return run


@pytest.mark.parametrize(("scenario", "streams"), [("single-stream", 1), ("multi-stream", 2)])
def test_a_benchmark_of_a_device_process(
    scenario: str, streams: int, device: Callable[..., str], tmp_path: Path
) -> None:
    wanted = ["--streams=2"] if streams > 1 else []
    answer = json.loads(device("bench", None, "--seconds=0", f"--scenario={scenario}", *wanted))
    record = to_json(bench_record(from_json(Measurement, answer, "the device", BackendError, "")))
    assert (record["streams"], record["n"], record["images_per_query"]) == (streams, MIN_RUNS, streams)
    assert record["cold_start_ms"] > 0
    assert (record["precision_executed"], record["integer_macs"]) == ("not told by TensorRT", None)
    processes = reports(tmp_path / "report")
    # The script that builds, the fresh process of the cold start, and the one that asks: a wait for each inference,
    # and one when a stream is closed.
    assert [each["launches"] for each in processes][:2] == [0, 11]
    assert processes[-1]["cuStreamSynchronize"] == processes[-1]["launches"] + streams
    assert len(list((tmp_path / "cache").rglob("*.engine"))) == 1


def test_answers_of_a_device_process_are_those_of_the_network(device: Callable[..., str], tmp_path: Path) -> None:
    """One picture, for an engine that takes two."""
    Image.fromarray(tiny.pictures(1)[0]).save(tmp_path / "one.png")
    (tmp_path / "samples").write_text(str(tmp_path / "one.png"))
    device("predict", 2, "--samples", str(tmp_path / "samples"), "--out", str(tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz") as found:
        logits = found["logits"]
    expected = tiny.expected(tiny.PREPROCESS.apply(tiny.PREPROCESS.resized(tmp_path / "one.png"))[None])
    assert np.abs(logits - expected).max() < 1e-3 * np.ptp(expected)
