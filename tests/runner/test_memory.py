"""A warm handle asks for no memory of its own, and a process that answers for long does not grow."""

from __future__ import annotations

import subprocess
from pathlib import Path

import onnx
import pytest

from edgetl.core.bundle import Artifact
from tests.runner import ugly
from tests.runner.built import Runner
from tests.runner.test_answers import LABELS, colour_bundle
from tests.runtime.tiny import model, seal

#: What a process may grow over the frames: a heap settles late.
_SETTLING = 256 << 10


@pytest.fixture
def program(runner: Runner, tmp_path: Path) -> Path:
    """The counting program, linked with the shared library."""
    source = Path(__file__).with_name("allocations.cpp")
    header = Path(__file__).parents[2] / "runner/include"
    flags = ["-std=c++17", "-O1", "-g", "-rdynamic", f"-I{header}", f"-Wl,-rpath,{runner.folder}"]
    command = ["c++", *flags, str(source), str(runner.library), "-ldl", "-o", str(tmp_path / "allocations")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tmp_path / "allocations"


def measured(program: Path, runner: Runner, bundle: Path, tmp_path: Path, frames: int) -> tuple[int, int, int]:
    """Allocations of the runner's own code and of others, and how many bytes the process grew."""
    files = []
    for kind, orientation in (("JPEG", 6), ("PNG", 1)):
        files.append(tmp_path / f"picture.{kind.lower()}")
        files[-1].write_bytes(ugly.saved(ugly.noise(90, 70), kind, exif=ugly.exif(orientation)))
    library = runner.start[runner.start.index("--library") + 1]
    command = [str(program), library, str(bundle), *map(str, files), str(frames)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    own, others, grown = map(int, done.stdout.split())
    return own, others, grown


def test_onnxruntime(program: Path, ort: Runner, tmp_path: Path) -> None:
    bundle = colour_bundle(tmp_path / "bundle", "classification", {"logits": 4}, LABELS)
    own, others, grown = measured(program, ort, bundle.path, tmp_path, 400)
    assert own == 0
    assert others > 0, "the runtime and the image libraries allocate: they are to be seen"
    assert grown <= _SETTLING


def test_openvino(program: Path, openvino: Runner, tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino", reason="openvino (edgetl[openvino]) makes and runs these")
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    onnx.save(model(), tmp_path / "model.onnx")
    ov.save_model(ov.convert_model(tmp_path / "model.onnx"), folder / "model/model.xml", compress_to_fp16=False)
    bundle = seal(folder, Artifact("openvino", folder / "model/model.xml", "fp32", "CPU"))
    own, others, grown = measured(program, openvino, bundle.path, tmp_path, 400)
    assert own == 0
    assert others > 0
    assert grown <= _SETTLING
