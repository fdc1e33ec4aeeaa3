"""``python -m edgetl.runtime`` on a machine that has numpy, Pillow and ONNX Runtime, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

from edgetl.core.bundle import Bundle

MakeBundle = Callable[..., Bundle]
Device = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]

#: Put on PYTHONPATH as sitecustomize: the child can import the standard library and what a device has.
ONLY_WHAT_A_DEVICE_HAS = """
import os, sys
class Refuse:
    ALLOWED = {"edgetl", "numpy", "onnxruntime", *os.environ.get("ALLOWED", "PIL").split()}
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in sys.stdlib_module_names or top in self.ALLOWED or top.startswith("_"):
            return None
        raise ModuleNotFoundError(f"No module named '{top}': a device does not have it", name=top)
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture
def device(tmp_path: Path) -> Device:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(ONLY_WHAT_A_DEVICE_HAS)
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])

    def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edgetl.runtime", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )

    return call


def listed(tmp_path: Path, files: list[Path]) -> Path:
    names = tmp_path / "samples.txt"
    names.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
    return names


def refused(done: subprocess.CompletedProcess[str], hint: str) -> bool:
    """One line of error that holds ``hint``, exit status 2, nothing on standard output."""
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert hint in lines[0]
    return not done.stdout


def test_the_block_works(device: Device, tmp_path: Path) -> None:
    code = "import importlib.util as u, sys\ntry:\n  import torch\nexcept ImportError as e:\n  print(e)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert "a device does not have it" in done.stdout


def test_machine(device: Device) -> None:
    done = device("machine")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["packages"]["numpy"]
    assert facts["packages"]["onnxruntime"]
    assert facts["arch"]


@pytest.mark.parametrize("locale", ["C.UTF-8", "POSIX"])
def test_predict(
    device: Device, float_bundle: MakeBundle, image_files: list[Path], tmp_path: Path, locale: str
) -> None:
    out = tmp_path / "outputs.npz"
    names = listed(tmp_path, image_files)
    done = device(
        "predict", float_bundle().path, "--samples", names, "--out", out, LC_ALL=locale, PYTHONCOERCECLOCALE="0"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"n": 6, "out": str(out)}
    wanted = tiny.expected(np.stack([tiny.PREPROCESS.apply(file) for file in image_files]))
    assert np.abs(np.load(out)["logits"] - wanted).max() <= 1e-4 * np.ptp(wanted)
    assert not done.stderr


def test_predict_tells_its_progress(
    device: Device, int8_bundle: MakeBundle, image_files: list[Path], tmp_path: Path
) -> None:
    done = device(
        *("predict", int8_bundle().path, "--samples", listed(tmp_path, image_files), "--out", tmp_path / "o.npz"),
        *("--simulated", "--threads", 1),
        EDGETL_PROGRESS="1",
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("progress ") for line in lines)
    told = [json.loads(line.removeprefix("progress ")) for line in lines]
    assert [(step, total) for _, step, total, _ in told] == [(step, 6) for step in range(7)]


def outputs(device: Device, bundle: Bundle, files: list[Path], tmp_path: Path, allowed: str) -> dict[str, np.ndarray]:
    """Predictions by a Python that has numpy, ONNX Runtime and what is ``allowed``, and its self-test."""
    out = tmp_path / "outputs.npz"
    done = device("predict", bundle.path, "--samples", listed(tmp_path, files), "--out", out, ALLOWED=allowed)
    assert done.returncode == 0, done.stderr
    done = device("selftest", bundle.path, ALLOWED=allowed)
    assert json.loads(done.stdout)["passed"], done.stderr
    with np.load(out) as stored:
        return dict(stored)


def test_texts_need_no_pillow(device: Device, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers (edgetl[text]) cuts texts into tokens")
    bundle = tiny.text_bundle(tmp_path / "bundle")
    files = [tmp_path / f"{index}.txt" for index in range(3)]
    for file, text in zip(files, ("a good film", "bad", "very very bad film"), strict=True):
        file.write_text(text)
    found = outputs(device, bundle, files, tmp_path, "tokenizers")
    tokens = [[6, 2, 4], [3], [5, 5, 3, 4]]
    np.testing.assert_allclose(found["logits"], [tiny.text_scores(np.array(ids)) for ids in tokens], rtol=1e-4)
    done = device("predict", bundle.path, "--samples", listed(tmp_path, files), "--out", tmp_path / "o.npz")
    assert refused(done, "reading text needs the package tokenizers, which is not installed")


def test_arrays_need_neither(device: Device, tmp_path: Path) -> None:
    files = []
    for index in range(3):
        files.append(tmp_path / f"{index}.npz")
        np.savez(files[-1], left=np.full(4, index, np.float32), right=np.ones(3, np.float32))
    found = outputs(device, tiny.tensor_bundle(tmp_path / "bundle"), files, tmp_path, "")
    np.testing.assert_allclose(found["values"], [[6], [10], [14]])


def test_bench_of_texts(device: Device, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers (edgetl[text]) cuts texts into tokens")
    done = device("bench", tiny.text_bundle(tmp_path / "bundle").path, "--seconds", 0.1, ALLOWED="")
    assert done.returncode == 0, done.stderr
    raw = json.loads(done.stdout)
    assert raw["executed"]["deployed"]["layers"] == {"fp32": 1}
    assert len(raw["samples_ms"]["deployed"]) >= 30


def test_bench(device: Device, int8_bundle: MakeBundle) -> None:
    done = device("bench", int8_bundle().path, "--seconds", 0.1, "--threads", 1)
    assert done.returncode == 0, done.stderr
    raw = json.loads(done.stdout)
    assert len(raw["samples_ms"]["deployed"]) == len(raw["samples_ms"]["float"]) >= 30
    assert raw["executed"]["deployed"]["precision"] == "int8"
    assert raw["cold"]["float"]["cold_start_ms"] > 0


def test_cold(device: Device, int8_bundle: MakeBundle) -> None:
    done = device("cold", int8_bundle().path, "--role", "float")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"cold_start_ms", "peak_rss_mb"}


def test_selftest(device: Device, int8_bundle: MakeBundle) -> None:
    done = device("selftest", int8_bundle().path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["n"] == 4
    assert isinstance(answer["passed"], bool)


def test_bad_input_is_one_line(
    device: Device, float_bundle: MakeBundle, image_files: list[Path], tmp_path: Path
) -> None:
    bundle = float_bundle()
    names = listed(tmp_path, image_files)
    assert refused(device("selftest", tmp_path), "is not a bundle")
    assert refused(device("cold", bundle.path, "--role", "float"), "no float artifact")
    gone = tmp_path / "gone.txt"
    assert refused(device("predict", bundle.path, "--samples", gone, "--out", tmp_path / "o.npz"), "gone.txt")
    nowhere = tmp_path / "no" / "o.npz"
    assert refused(device("predict", bundle.path, "--samples", names, "--out", nowhere), "o.npz")
    image_files[0].write_bytes(b"no image")
    done = device("predict", bundle.path, "--samples", names, "--out", tmp_path / "o.npz")
    assert refused(done, image_files[0].name)
    assert not (tmp_path / "o.npz").exists()
    model = bundle.artifact().path
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    assert refused(device("bench", bundle.path), "model.onnx")


def test_openvino_bundle_without_openvino(device: Device, tmp_path: Path) -> None:
    from edgetl.core.bundle import Artifact

    folder = tmp_path / "intel"
    (folder / "model").mkdir(parents=True)
    for ending in ("xml", "bin"):
        (folder / "model" / f"model.{ending}").write_bytes(b"IR")
    tiny.seal(folder, Artifact("openvino", folder / "model" / "model.xml", "int8", "CPU"))
    assert refused(device("selftest", folder), "openvino")


def test_it_ends_itself_wherever_it_hangs(device: Device, float_bundle: MakeBundle, tmp_path: Path) -> None:
    """A runtime that hangs in native code heeds no polite signal, and whoever called may be out of reach."""
    (tmp_path / "site/onnxruntime.py").write_text("import time\ntime.sleep(600)\n")
    done = device("selftest", float_bundle().path, EDGETL_DEADLINE="3")
    assert done.returncode == -signal.SIGALRM
