"""``edgetl export --artifact``: what another tool compressed becomes the deployed artifact, whatever it is worth."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch
from torch import nn

import edgetl
from edgetl.base.errors import CompressionError
from edgetl.core.certificate import Certificate
from edgetl.core.targets import find_target
from edgetl.inputs import input_of
from edgetl.workflow.given_artifact import GivenArtifact
from tests.adoption import compressors
from tests.adoption.foreign import CLASSES, Owned, exported, network, squashed
from tests.cli.test_bad_input import refused

Cli = Callable[..., subprocess.CompletedProcess[str]]
#: Of three classes and some sixty samples, honest artifacts lose less.
MARGIN = 0.2


@dataclass(frozen=True)
class Job:
    """A run, its float ONNX file, and files that other tools made of it or of its owner's own file."""

    owner: Owned
    run: edgetl.Run
    floating: Path
    folder: Path

    @property
    def feeds(self) -> list[dict[str, Any]]:
        """What edgetl's own export takes: bytes of images."""
        return [input_of(self.run).feeds(path) for path in self.calibration]

    @property
    def planes(self) -> list[dict[str, Any]]:
        """What the owner's own file takes."""
        return [{"input": squashed(path)[None]} for path in self.calibration]

    @property
    def calibration(self) -> list[Path]:
        return self.run.dataset.paths("calibration")[:24]


@pytest.fixture(scope="module")
def job(owner: Owned, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The owner's model, adopted, and quantized by whoever came along."""
    folder = tmp_path_factory.mktemp("given")
    run = edgetl.adopt(owner.onnx, owner.photos, folder / "run", preprocess=owner.folder / "prep.json")
    (made,) = edgetl.export(run, targets="x86-generic", out=folder / "fp32", precision="fp32", bench=False)
    job = Job(owner, run, made.bundle.exported, folder)
    compressors.by_ort(job.floating, folder / "default.onnx", job.feeds)
    compressors.by_ort(job.floating, folder / "channel.onnx", job.feeds, **compressors.PER_CHANNEL)
    compressors.by_ort(owner.onnx, folder / "own.onnx", job.planes)
    compressors.by_nncf(job.floating, folder / "nncf.xml", job.feeds)
    compressors.by_nncf(owner.onnx, folder / "own.xml", job.planes)
    return job


def certified(job: Job, file: Path, out: Path, target: str = "x86-generic") -> Certificate:
    """The certificate of a file, which follows from its bundle."""
    (made,) = edgetl.export(job.run, targets=target, out=out, artifact=file, margin=MARGIN, bench=False)
    assert edgetl.check(made.bundle.path) is None
    return made.certificate


@pytest.mark.parametrize(
    ("name", "target", "who", "change"),
    [
        ("default.onnx", "x86-generic", "onnx.quantize", "nothing"),
        ("channel.onnx", "x86-generic", "onnx.quantize", "nothing"),
        ("channel.onnx", "jetson", "onnx.quantize", "nothing"),
        ("channel.onnx", "intel-cpu", "onnx.quantize", "nothing"),
        ("nncf.xml", "intel-cpu", "NNCF", "nothing"),
        ("own.onnx", "x86-generic", "onnx.quantize", "float32 NCHW"),
        ("own.xml", "intel-cpu", "NNCF", "f32 NCHW"),
    ],
)
def test_an_honest_artifact_passes_and_says_who_made_it(
    name: str, target: str, who: str, change: str, job: Job, tmp_path: Path
) -> None:
    certificate = certified(job, job.folder / name, tmp_path, target)
    assert certificate.precision == "int8"
    assert certificate.verdict != "fail"
    assert [finding.kind for finding in certificate.findings] == []
    (note,) = [note for note in certificate.notes if "another tool" in note]
    assert name in note
    assert who in note
    assert change in note
    assert {"reference", "float ONNX", "deployed"} <= {rung.name for rung in certificate.ladder}


def test_the_same_export_again_does_nothing_and_other_bytes_make_another_bundle(
    job: Job, here: Cli, tmp_path: Path
) -> None:
    file = Path(shutil.copyfile(job.folder / "default.onnx", tmp_path / "theirs.onnx"))
    words = ("export", job.run.path, "--target", "x86-generic", "--artifact", file, "--out", tmp_path / "out")
    told = ("--margin", MARGIN, "--no-bench", "--quiet")
    assert here(*words, *told).returncode == 0
    manifest = tmp_path / "out" / "x86-generic" / "manifest.json"
    first, time = json.loads(manifest.read_text()), manifest.stat().st_mtime_ns
    assert first["quantization"]["foreign"]["file"] == "theirs.onnx"
    assert here(*words, *told).returncode == 0
    assert manifest.stat().st_mtime_ns == time
    shutil.copyfile(job.folder / "channel.onnx", file)
    assert here(*words, *told).returncode == 0
    assert json.loads(manifest.read_text())["key"] != first["key"]


def test_every_verb_takes_such_a_bundle(job: Job, here: Cli, tmp_path: Path) -> None:
    (made,) = edgetl.export(
        job.run, targets="x86-generic", out=tmp_path, artifact=job.folder / "own.onnx", margin=MARGIN, bench=False
    )
    bundle = made.bundle.path
    assert here("verify", bundle, "--margin", MARGIN, "--quiet").returncode == 0
    assert here("verify", "--check", bundle).returncode == 0
    timed = here("bench", bundle, "--duration", 0.2, "--quiet", "--json")
    assert timed.returncode in (0, 3), timed.stderr
    label = edgetl.load_bundle(bundle).predict(job.owner.files[0]).label
    assert label == CLASSES[job.owner.logits[0].argmax()]
    assert here("report", job.run.path, bundle, "--out", tmp_path / "r.html").returncode == 0
    assert "another tool" in (tmp_path / "r.html").read_text()


def test_a_broken_calibration_is_named(job: Job, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    noise = [{"image": draw.integers(0, 2, feeds["image"].shape).astype(np.uint8)} for feeds in job.feeds]
    file = compressors.by_ort(job.floating, tmp_path / "noise.onnx", noise)
    certificate = certified(job, file, tmp_path / "out")
    assert certificate.verdict != "pass"
    assert [finding.kind for finding in certificate.findings if finding.kind.startswith("calibration")] == [
        "calibration-noise"
    ]


#: What was done to the float file before it was compressed → the finding.
PLANTED: dict[str, tuple[Callable[[Any], None], str]] = {
    "BGR": (compressors.swapped_stem, "channel-order"),
    "permuted labels": (compressors.permuted_head, "label-order"),
    "wrong std": (compressors.otherwise_scaled, "normalisation"),
}


@pytest.mark.parametrize("tool", ["ort", "nncf"])
@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_in_what_was_compressed_is_named(fault: str, tool: str, job: Job, tmp_path: Path) -> None:
    change, kind = PLANTED[fault]
    wrong = compressors.tampered(job.floating, tmp_path / "wrong.onnx", change)
    if tool == "ort":
        file, target = compressors.by_ort(wrong, tmp_path / "a.onnx", job.feeds), "x86-generic"
    else:
        file, target = compressors.by_nncf(wrong, tmp_path / "a.xml", job.feeds), "intel-cpu"
    certificate = certified(job, file, tmp_path / "out", target)
    assert kind in [finding.kind for finding in certificate.findings]
    assert certificate.verdict == "fail"


def other_model() -> nn.Module:
    """The same architecture, other weights."""
    model = network()
    draw = torch.Generator().manual_seed(9)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw) * parameter.data.std().nan_to_num(0.1)
    return model.eval()


@pytest.mark.parametrize("tool", ["ort", "nncf"])
def test_another_models_file_is_named(tool: str, job: Job, tmp_path: Path) -> None:
    wrong = exported(other_model(), tmp_path / "other.onnx", torch.zeros(1, 3, 24, 24))
    if tool == "ort":
        file, target = compressors.by_ort(wrong, tmp_path / "a.onnx", job.planes), "x86-generic"
    else:
        file, target = compressors.by_nncf(wrong, tmp_path / "a.xml", job.planes), "intel-cpu"
    certificate = certified(job, file, tmp_path / "out", target)
    assert certificate.verdict == "fail"
    assert "another-model" in [finding.kind for finding in certificate.findings]


@pytest.mark.parametrize("name", ["default.onnx", "nncf.xml"])
def test_what_is_quantized_with_its_softmax_keeps_its_answers(name: str, job: Job, tmp_path: Path) -> None:
    """Logits are made of probabilities, whether these were quantized or not: classes and confidences stay."""
    ended = compressors.tampered(job.floating, tmp_path / "ended.onnx", compressors.ended_by("Softmax"))
    if name.endswith("onnx"):
        file, target = compressors.by_ort(ended, tmp_path / "a.onnx", job.feeds), "x86-generic"
    else:
        file, target = compressors.by_nncf(ended, tmp_path / "a.xml", job.feeds), "intel-cpu"
    certificate = certified(job, file, tmp_path / "out", target)
    assert certificate.verdict != "fail"
    assert any("Softmax" in note for note in certificate.notes)


def test_halves_that_are_only_stored_are_computed_in_float(job: Job, tmp_path: Path) -> None:
    openvino.save_model(compressors.core().read_model(job.floating), tmp_path / "halves.xml")
    certificate = certified(job, tmp_path / "halves.xml", tmp_path / "out", "intel-cpu")
    assert (certificate.precision, certificate.verdict) == ("fp32", "pass")


def test_weights_in_another_file_are_of_the_artifact(job: Job, tmp_path: Path) -> None:
    loaded = onnx.load(str(job.folder / "default.onnx"))
    settings = {"save_as_external_data": True, "location": "theirs.data", "size_threshold": 0}
    onnx.save(loaded, tmp_path / "theirs.onnx", **settings)
    before = GivenArtifact.of(tmp_path / "theirs.onnx")
    assert certified(job, before.path, tmp_path / "out").verdict != "fail"
    data = tmp_path / "theirs.data"
    data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    assert GivenArtifact.of(before.path).sha256 != before.sha256
    with pytest.raises(CompressionError, match="was changed while it was read"):
        before.read(job.run, find_target("x86-generic"), tmp_path)


def test_a_suffix_in_capitals_leaves_no_weights_out(job: Job, tmp_path: Path) -> None:
    capital = Path(shutil.copyfile(job.folder / "nncf.xml", tmp_path / "theirs.XML"))
    weights = Path(shutil.copyfile(job.folder / "nncf.bin", tmp_path / "theirs.bin"))
    before = GivenArtifact.of(capital).sha256
    assert certified(job, capital, tmp_path / "out", "intel-cpu").verdict != "fail"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert GivenArtifact.of(capital).sha256 != before


def test_bad_input_is_refused_in_a_line_and_leaves_nothing(job: Job, here: Cli, tmp_path: Path) -> None:
    out, default, ir = tmp_path / "out", job.folder / "default.onnx", job.folder / "nncf.xml"

    def words(artifact: Path, *more: object, target: str = "x86-generic") -> list[object]:
        return ["export", job.run.path, "--target", target, "--artifact", artifact, "--out", out, "--quiet", *more]

    (tmp_path / "torn.onnx").write_bytes(default.read_bytes()[:1000])
    (tmp_path / "torn.xml").write_bytes(ir.read_bytes()[:1000])
    (tmp_path / "torn.bin").write_bytes(b"")
    shutil.copyfile(ir, tmp_path / "alone.xml")
    (tmp_path / "torn.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    (tmp_path / "folder.onnx").mkdir()
    wide = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5))
    exported(wide, tmp_path / "wide.onnx", torch.zeros(1, 3, 24, 24))
    two = compressors.tampered(job.floating, tmp_path / "two.onnx", compressors.ended_by("Softmax", "Softmax"))
    sigmoid = compressors.tampered(job.floating, tmp_path / "sigmoid.onnx", compressors.ended_by("Sigmoid", "Softmax"))

    refused(here(*words(tmp_path / "none.onnx")), "none.onnx", "No such file")
    refused(here(*words(tmp_path / "torn.onnx")), "no ONNX file that edgetl reads")
    refused(here(*words(tmp_path / "torn.xml", target="intel-cpu")), "cannot read")
    refused(here(*words(tmp_path / "alone.xml", target="intel-cpu")), "alone.bin", "No such file")
    refused(here(*words(tmp_path / "folder.onnx")), "is no file")
    refused(here(*words(tmp_path / "theirs.engine")), "no form of artifact", ".tflite")
    refused(here(*words(ir)), "x86-generic runs onnxruntime", "an ONNX file", "an OpenVINO IR")
    refused(here(*words(tmp_path / "torn.tflite", target="x86-litert")), "LiteRT cannot load")
    refused(here(*words(tmp_path / "wide.onnx")), "5 values", "3 classes")
    refused(here(*words(two)), "ends in Softmax and Softmax")
    refused(here(*words(sigmoid)), "ends in Sigmoid and Softmax")
    refused(here(*words(default, "--samples", "random")), "--samples", "compressed already")
    refused(here(*words(default, "--precision", "fp32")), "is int8, not fp32")
    refused(here(*words(default, target="jetson")), "TensorRT", "refuses")
    assert not out.exists()


def test_an_output_that_has_the_tasks_name_already(job: Job, tmp_path: Path) -> None:
    file = tmp_path / "named.onnx"
    exported(job.owner.model, file, torch.zeros(1, 3, 24, 24), input_names=["image"], output_names=["logits"])
    assert certified(job, file, tmp_path / "out").verdict == "pass"


def test_a_tflite_file_whose_names_are_those_that_are_fed(job: Job, here: Cli, tmp_path: Path) -> None:
    """Nothing lies beside it that tells of its layers: there is no rung between it and the float model."""
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    (own,) = edgetl.export(job.run, targets="x86-litert", out=tmp_path / "own", repair=False, bench=False)
    theirs = Path(shutil.copyfile(own.bundle.artifact().path, tmp_path / "theirs.tflite"))
    certificate = certified(job, theirs, tmp_path / "out", "x86-litert")
    assert (certificate.precision, certificate.executed) == (own.certificate.precision, "host")
    assert certificate.deployed_score == own.certificate.deployed_score
    assert "Q/DQ in float" not in {rung.name for rung in certificate.ladder}
    renamed = tmp_path / "renamed.tflite"
    renamed.write_bytes(theirs.read_bytes().replace(b"image\0", b"photo\0"))
    words = (
        "export",
        job.run.path,
        "--target",
        "x86-litert",
        "--artifact",
        renamed,
        "--out",
        tmp_path / "no",
        "--quiet",
    )
    refused(here(*words), "takes photo: uint8 1x24x24x3", "keeping names and types")
