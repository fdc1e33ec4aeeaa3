"""Five hundred pictures through each runtime, and a hundred on an emulated Arm machine: the answers are Python's."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image

import edgetl as toolkit
from edgetl.core.bundle import Bundle
from edgetl.devices import Device, Placement, predict
from edgetl.devices.c_runner import predict_in_c
from edgetl.runtime import predict as predict_here
from tests.runner.built import Runner

Cli = Callable[..., CompletedProcess[str]]
#: Runtime → the target whose int8 bundle is asked for.
TARGETS = {"ort": "x86-generic", "openvino": "intel-cpu", "litert": "x86-litert"}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photographs of imagenet-sample where it is at hand, else made ones of as many sizes."""
    data = os.environ.get("EDGETL_TEST_DATA")
    if data:
        found = itertools.islice(sorted(Path(data, "imagenet-sample").rglob("*.[jJ][pP]*[gG]")), 500)
        paths = list(found)
        assert len(paths) == 500
        return paths
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(3)
    for index in range(500):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
        size = tuple(int(side) for side in rng.integers(20, 200, 2))
        coarse.resize((size[0], size[1]), Image.Resampling.BICUBIC).save(folder / f"{index:03d}.jpg", quality=85)
    return sorted(folder.iterdir())


def int8(run: Path, target: str) -> Bundle:
    """That run in int8, made once."""
    out = run.parent / "int8"
    if not (out / target).exists():
        toolkit.export(run, targets=[target], out=out, precision="int8", bench=False, repair=False)
    return toolkit.load_bundle(out / target)


@pytest.mark.parametrize("runtime", TARGETS)
def test_five_hundred(request: pytest.FixtureRequest, many: list[Path], tiny_run: Path, runtime: str) -> None:
    bundle = int8(tiny_run, TARGETS[runtime])
    lines = request.getfixturevalue(runtime).lines("--outputs", bundle.path, paths=many)
    in_python = predict_here(bundle, many, threads=1)["logits"]
    assert np.array_equal(np.array([line["outputs"]["logits"] for line in lines], np.float32), in_python)
    first = [line["answer"]["labels"][0]["label"] for line in lines]
    assert first == [bundle.labels[index] for index in in_python.argmax(axis=1)]
    assert len(set(first)) > 1


def test_a_hundred_on_arm(arm_ort: Runner, emulated: Device, many: list[Path], tiny_run: Path) -> None:
    bundle = int8(tiny_run, "arm64-generic")
    at = Placement(emulated, emulated.executed, emulated.probe())
    in_c = predict_in_c(at, bundle, many[:100], arm_ort.folder / "edgetl-run")["logits"]
    in_python = predict(emulated, bundle, many[:100], threads=1)["logits"]
    assert np.array_equal(in_c, in_python)
    assert len(set(in_c.argmax(axis=1))) > 1


def test_a_certificate_on_arm(edgetl: Cli, arm_ort: Runner, emulated: Device, tiny_run: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(int8(tiny_run, "arm64-generic").path, tmp_path / "bundle")
    program, home = arm_ort.folder / "edgetl-run", str(Path(emulated.where).parents[2])
    at = ("--device", emulated.name, "--runner", program, "--data", tiny_run.parent / "photos")
    done = edgetl("verify", bundle, *at, "--json", EDGETL_HOME=home)
    assert done.returncode in (0, 3, 4), done.stderr
    record = json.loads(done.stdout)
    assert record["runtime"].startswith("C runner, onnxruntime ")
    assert (record["executed"], record["isa"]) == ("simulated", "aarch64")
    assert record["executed_on"]["device"] == emulated.name
    assert record["ladder"][-1]["name"] == "deployed"
