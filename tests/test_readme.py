"""Every command and every Python example that the README shows is run, in order, as a reader would."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.adoption.compressors import by_ort
from tests.conftest import ROOT, paint
from tests.warm import HEAVY

README = (ROOT / "README.md").read_text()
COMMANDS = [line[2:] for block in re.findall(r"```console\n(.*?)```", README, re.S) for line in block.splitlines()]
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.S)
#: Exit statuses that a shown command may end in on 36 pictures: 4 is a certificate that wants more of them.
FINE = {"verify": (0, 4), "export": (0,), "run": (0, 4)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with ``photos/`` in it."""
    folder = tmp_path_factory.mktemp("readme")
    for hue, name in enumerate(("red", "green", "blue")):
        for index in range(12):
            paint(folder / "photos" / name / f"{index:02d}.png", hue, index)
    rows = [f"photos/{name}/{index:02d}.png,{name},{index}" for name in ("red", "green", "blue") for index in range(12)]
    (folder / "several.csv").write_text("\n".join(["path,label:colour,target:number", *rows]) + "\n")
    for index in range(40):
        paint(folder / "from-the-line" / f"{index:02d}.png", index % 3, 100 + index)
    write_foreign(folder / "model.onnx", folder / "prep.json")
    draw = np.random.default_rng(0)
    planes = [{"input": draw.uniform(0, 1, (1, 3, 32, 32)).astype(np.float32)} for _ in range(8)]
    by_ort(folder / "model.onnx", folder / "theirs-int8.onnx", planes)
    (journey,) = re.findall(r"```toml\n(.*?)```", README, re.S)
    (folder / "journey.toml").write_text(journey)
    return folder


def write_foreign(model: Path, prep: Path) -> None:
    """A model of somebody else's, which tells colours by their mean, and how its pictures were prepared."""
    value, numpy_helper = onnx.helper.make_tensor_value_info, onnx.numpy_helper
    turned = np.ascontiguousarray(np.eye(3, dtype=np.float32)[::-1].T * 20)
    kernel = numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "kernel")
    nodes = [
        onnx.helper.make_node("Conv", ["input", "kernel"], ["same"]),
        onnx.helper.make_node("GlobalAveragePool", ["same"], ["pooled"]),
        onnx.helper.make_node("Flatten", ["pooled"], ["flat"]),
        onnx.helper.make_node("Gemm", ["flat", "head"], ["scores"]),
        onnx.helper.make_node("Softmax", ["scores"], ["output"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "elsewhere",
        [value("input", onnx.TensorProto.FLOAT, [1, 3, 32, 32])],
        [value("output", onnx.TensorProto.FLOAT, [1, 3])],
        [kernel, numpy_helper.from_array(turned, "head")],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), model)
    fields = {"height": 32, "width": 32, "mode": "squash", "interpolation": "bilinear", "mean": [0] * 3, "std": [1] * 3}
    prep.write_text(json.dumps(fields))


def own(place: Path) -> dict[str, str]:
    """The environment of a reader who has nothing of edgetl's yet."""
    named = {"EDGETL_HOME": str(place / "home"), "XDG_DATA_HOME": str(place / "data"), "PYTHONPATH": str(ROOT)}
    return {**os.environ, **named}


def run(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, env=own(place))


def test_the_readme_shows_every_verb() -> None:
    shown = {shlex.split(command)[1] for command in COMMANDS}
    assert shown >= {
        "finetune",
        "adopt",
        "export",
        "verify",
        "bench",
        "predict",
        "report",
        "tasks",
        "targets",
        "backbones",
        "doctor",
        "devices",
        "run",
        "advise",
        "rank",
        "shift",
        "lr-find",
    }
    assert all(command.startswith("edgetl ") for command in COMMANDS)
    assert len(EXAMPLES) == 3


def test_shown_commands_run(place: Path, warm: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    begun = set[str]()
    for command in COMMANDS:
        arguments = shlex.split(command)[1:]
        # Each verb is started as a reader starts it, once; what imports torch again is a fork that has done so.
        if arguments[0] in HEAVY & begun:
            done = warm(arguments, own(place), place)
        else:
            done = run(place, sys.executable, "-c", "from edgetl.cli import main; main()", *arguments)
        begun.add(arguments[0])
        assert done.returncode in FINE.get(arguments[0], (0,)), f"{command}\n{done.stderr}"
    assert (place / "report.html").is_file()


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_shown_python_runs(place: Path, index: int) -> None:
    done = run(place, sys.executable, "-c", EXAMPLES[index])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
