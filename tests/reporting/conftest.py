"""Bundles on disk with real, sealed records, but without a model: reporting reads records and images only."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import sha256_file, write_json
from edgetl.certify import Baseline, certify
from edgetl.certify.predictions import Predictions
from edgetl.compress.outcome import Outcome
from edgetl.compress.recipes import Recipe, load_recipe
from edgetl.compress.repair import Attempt, Repair, Trial
from edgetl.core.bench import Energy
from edgetl.core.bundle import BENCH, CERTIFICATE, PREDICTIONS, Artifact, Bundle, load_bundle, write_manifest
from edgetl.core.certificate_parts import Robustness
from edgetl.core.compression import Calibration, CalibrationSample, LayerNoise, Quantization, RepairRecord
from edgetl.core.data import Dataset
from edgetl.core.findings import Finding
from edgetl.core.manifest import Manifest
from edgetl.core.targets import find_target
from edgetl.inputs import load_dataset
from edgetl.inputs.image import Preprocess
from edgetl.latency import bench_record
from edgetl.robustness import CORRUPTIONS, SEVERITIES, Row, excess_loss
from edgetl.runtime.measurement import Cold, Measurement, Schedule, Scheduled, Spent
from edgetl.runtime.plan import Plan
from edgetl.runtime.sessions import Executed

HOSTILE = "<img src=x onerror=alert(1)><script>\"'&"
CLASSES = ("blowhole", "crack", HOSTILE, "free")
PER_CLASS = 20
MakeBundle = Callable[..., Bundle]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four classes of 20 pictures; one class is named to break pages."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index, name in enumerate(CLASSES):
        (root / name).mkdir()
        for i in range(PER_CLASS):
            picture = rng.integers(0, 60, (120, 200, 3)) + np.array([40 * index, 60, 150 - 30 * index])
            picture[20 + 3 * i : 40 + 3 * i, 30 + 5 * i : 60 + 5 * i] = 240
            Image.fromarray(picture.astype(np.uint8)).save(root / name / f"{i:02d}.png")
    return load_dataset(root, seed=0)


@pytest.fixture
def make_bundle(tmp_path: Path, dataset: Dataset) -> MakeBundle:
    """Writes a bundle for a target, with or without certificate and benchmark."""

    def make(
        target: str = "x86-generic",
        *,
        backend: str = "onnxruntime",
        executed: str | None = "host",
        bench: bool = True,
        data: Dataset = dataset,
        certificate: dict[str, Any] | None = None,
        timing: dict[str, Any] | None = None,
        timed: int = 400,
    ) -> Bundle:
        folder = tmp_path / target
        _write_files(folder, target, backend, data)
        bundle = load_bundle(folder)
        if executed is not None:
            _write_certificate(bundle, data, executed, certificate or {})
        if bench:
            bundle.write_record(BENCH, {**_bench(timed), **(timing or {})})
        return bundle

    return make


def _write_files(folder: Path, target: str, backend: str, data: Dataset) -> None:
    for role, size in (("model", 36_000), ("float", 134_000)):
        (folder / role).mkdir(parents=True)
        (folder / role / "model.onnx").write_bytes(b"\x10\x01" * (size // 2))
    write_json(folder / "labels.json", list(data.classes))
    write_json(folder / "splits.json", data.to_json())
    preprocess = Preprocess(96, 96, 110, "bicubic", (0.485, 0.456, 0.406), (0.5, 0.5, 0.5))
    write_json(folder / "preprocess.json", preprocess.to_json())
    samples = tuple(CalibrationSample(s.path, s.sha256, s.label) for s in data.split("calibration"))
    write_json(folder / "calibration.json", to_json(Calibration(selection="class-balanced", samples=samples)))
    manifest = Manifest(
        target=dataclasses.replace(find_target("x86-generic"), name=target),
        quantization=Quantization("int8", "onnxruntime 1.32", load_recipe("ort-x86-int8").to_json()),
        lineage={"backbone": "efficientnet_lite0", "seed": 0, "versions": {"numpy": "2.0"}},
    )
    write_manifest(
        folder,
        manifest,
        {
            "deployed": Artifact(backend, folder / "model" / "model.onnx", "int8"),
            "float": Artifact(backend, folder / "float" / "model.onnx", "fp32"),
        },
    )


def _write_certificate(bundle: Bundle, data: Dataset, executed: str, changes: dict[str, Any]) -> None:
    samples, labels = data.split("certify"), data.labels("certify")
    reference, deployed = labels.copy(), labels.copy()
    reference[0] = (labels[0] + 1) % len(CLASSES)
    deployed[[3, 9]] = (labels[[3, 9]] + 1) % len(CLASSES)
    saved = Predictions(
        task="classification",
        labels=labels,
        models={"reference": {"class": reference}, "deployed": {"class": deployed}},
        paths=tuple(s.path for s in samples),
        sha256=tuple(s.sha256 for s in samples),
        class_names=data.classes,
    )
    saved.save(bundle.path / PREDICTIONS)
    arrays = tuple(tuple(values.tolist()) for values in (reference, deployed, labels))
    hashes = {"predictions": sha256_file(bundle.path / PREDICTIONS), "splits": data.digest}
    record = _certified(*arrays, data.classes)
    bundle.write_record(CERTIFICATE, {**record, "executed": executed, "hashes": hashes, **changes})


@functools.cache
def _certified(
    reference: tuple[int, ...], deployed: tuple[int, ...], labels: tuple[int, ...], classes: tuple[str, ...]
) -> dict[str, Any]:
    told = {"runtime": "onnxruntime 1.32", "isa": "x86-64", "precision": "int8"}
    rungs = [("float ONNX", reference)]
    return certify(reference, deployed, labels, classes, rungs=rungs, **told).to_json()


@functools.cache
def _bench(timed: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    fast, slow = (np.round(b + rng.gamma(2, s, timed), 4).tolist() for b, s in ((2, 0.1), (4.6, 0.2)))
    fast[7] = 9.5
    roles = ("deployed", "float")
    measured = Measurement(
        samples_ms={"deployed": tuple(fast), "float": tuple(slow)},
        executed={"deployed": Executed("int8", 1.0, {"int8": 49}), "float": Executed("fp32", 0.0, {"fp32": 49})},
        cold=dict.fromkeys(roles, Cold(140.0, 81.5)),
        schedules=dict.fromkeys(roles, Scheduled(schedule=Schedule())),
        energy=dict.fromkeys(roles, Spent(energy=Energy(reason="no energy sensor here"))),
        plan=Plan(),
        stopped="duration",
        warmup=20,
        watch=(),
        device={"cpu_model": "Some CPU <b>", "cores": 2, "governor": None},
        before={"clock_mhz": [2100.0, 2100.5]},
        after={"clock_mhz": [2100.0, 2099.5]},
    )
    record: dict[str, Any] = to_json(bench_record(measured))
    return record


@pytest.fixture(scope="session")
def full() -> dict[str, Any]:
    """A certificate with everything that one can hold: int8 failed, was mended to all but two layers, and passed."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, len(CLASSES), 1240)
    sure = rng.normal(0, 1, (1240, len(CLASSES))) + 4.2 * np.eye(len(CLASSES))[labels]
    logits = {"reference": sure}
    for name, noise in (("float ONNX", 1e-6), ("Q/DQ in float", 1.1), ("deployed", 0.05)):
        logits[name] = list(logits.values())[-1] + rng.normal(0, noise, sure.shape)
    weak = (sure + rng.normal(0, 2.4, sure.shape)).argmax(axis=1)
    classes = {name: values.argmax(axis=1) for name, values in logits.items()}
    overlap = "3 of 64 calibration images are certify images as well: crack/07.png and 2 more."
    noisy = "9 of 49 layers make 92% of the noise that quantization adds, as the rung 'Q/DQ in float' shows."
    layers = [f"blocks.{i // 4}.{i % 4}.conv_dw" for i in range(9)]
    return certify(
        classes["reference"],
        classes["deployed"],
        labels,
        CLASSES,
        rungs=[(name, classes[name]) for name in ("float ONNX", "Q/DQ in float")],
        executed="host",
        runtime="onnxruntime 1.32.0",
        isa="x86-64",
        precision="int8",
        executed_on={"device": "local", "arch": "x86_64", "cpu_model": "Some CPU <b>"},
        logits=logits,
        baseline=Baseline("probe", weak),
        findings=(
            Finding("quantization-noise", noisy, (*layers, HOSTILE), {"rung": "Q/DQ in float", "share": 0.92}),
            Finding("calibration-overlap", overlap, (), {"images": 3, "first": "crack/07.png"}),
        ),
        layers=from_json(tuple[LayerNoise, ...], _layers(2.0), "layers"),
        robustness=from_json(Robustness, _robustness(), "robustness"),
        repair=from_json(RepairRecord, _repair(), "repair"),
    ).to_json()


def _layers(worst: float) -> list[dict[str, Any]]:
    """Thirty layers like those of an EfficientNet, the noisiest with a signal of so many decibels over its noise."""
    ratios = [10 ** (-(worst + 1.3 * i) / 10) for i in range(30)]
    return [
        {
            "node": f"node_conv2d_{7 * i % 49}",
            "module": f"blocks.{i % 7}.{i % 3}.conv_{'dw' if i % 2 else 'pwl'}" if i else HOSTILE,
            "cause": "activations" if i % 3 == 1 else "weights",
            "sqnr_db": worst + 1.3 * i,
            "share": ratio / sum(ratios),
            "saturated": 0.0121 if i == 1 else 0.0,
            "consumer": f"node_conv2d_{7 * i % 49 + 1}",
        }
        for i, ratio in enumerate(ratios)
    ]


def _repair() -> dict[str, Any]:
    recipe = load_recipe("ort-x86-int8")
    tried = (
        ("default", "recipe ort-x86-int8", 0.8125, 1.0, 3.9, True),
        ("calibration samples", "256 images, k-centre", 0.8281, 1.0, 3.9, True),
        ("range estimator", "ranges hold 99.99 % of the values", 0.8047, 1.0, 3.8, False),
        ("range estimator", "ranges of least squared error", 0.8516, 1.0, 3.9, True),
        ("asymmetric activations", "activations are asymmetric already", None, None, None, False),
        ("bias correction", "fast bias correction", 0.9023, 1.0, 3.9, True),
        ("cross-layer equalization", "channels equalized across layers", 0.9531, 1.0, 4.0, True),
        ("mixed precision", "1 layer in float: node_conv2d_3", 0.9609, 0.984, 4.1, True),
        ("mixed precision", "2 layers in float: node_conv2d_3, node_conv2d_7", 0.9727, 0.971, 4.3, True),
    )
    trials = tuple(_trial(recipe, *item) for item in tried)
    chosen = trials[-1].attempt
    assert chosen is not None
    stopped = "mixed precision: 2 layers in float: node_conv2d_3, node_conv2d_7 is good enough on the search split."
    record = Repair(True, chosen, True, stopped, trials, 412.7, 20.0, 0.01).record("accuracy", "share")
    return {**to_json(record), "layers": _layers(-6.0)}


def _trial(
    recipe: Recipe, remedy: str, words: str, accuracy: float | None, macs: float | None, ms: float | None, kept: bool
) -> Trial:
    if accuracy is None:
        return Trial(remedy, None, None, 0.0, False, words)
    lost = round((0.9766 - accuracy) * 256) + 2
    outcome = Outcome(
        256, accuracy, accuracy - 0.9766, 0.9 * (accuracy - 0.9766), lost, 2, 0.9 * (1 - accuracy) ** 1.5, (), macs, ms
    )
    return Trial(remedy, Attempt(words, "int8", recipe, remedy=remedy), outcome, 31.4, kept)


def _robustness() -> dict[str, Any]:
    """Losses that grow with the severity, as a table of :func:`edgetl.robustness.measure`."""
    rng, n = np.random.default_rng(8), 400
    clean, totals, rows = np.zeros(n, np.int64), np.zeros(n), []
    for name, depth in zip(("none", *CORRUPTIONS), (0.0, 0.5, 0.7, 0.25, 0.2, 0.6), strict=True):
        for severity in SEVERITIES if depth else (0,):
            before = rng.random(n) < 0.96 - depth * (severity / 5) ** 1.5
            after = before & (rng.random(n) > 0.004 + 0.02 * depth * severity)
            change = after.astype(np.int64) - before
            clean, totals = (totals.astype(np.int64) + change, totals) if not depth else (clean, totals + change)
            lost = float(change.mean())
            verdict = "fail" if lost < -0.03 else "underpowered" if lost < -0.015 else "pass"
            rows.append(
                Row(name, severity, before.mean(), after.mean(), lost, lost - 0.013, min(lost + 0.01, 0.0),
                    int(-change.sum()), 0, n, verdict)
            )  # fmt: skip
    plain = [{**asdict(row), "reference_accuracy": float(row.reference_accuracy),
              "deployed_accuracy": float(row.deployed_accuracy)} for row in rows]  # fmt: skip
    worst = min(plain[1:], key=lambda row: float(row["difference"]))
    means = {
        key: {"clean": plain[0][key], "corrupted": float(np.mean([row[key] for row in plain[1:]]))}
        for key in ("reference_accuracy", "deployed_accuracy")
    }
    return {"n": n, "available": 1240, "severities": list(SEVERITIES), "clean": plain[0], "rows": plain[1:],
            "worst": worst, "summary": {**means, **excess_loss(clean, totals / 25)}}  # fmt: skip


@pytest.fixture(scope="session")
def hostile() -> str:
    """The name of the class that would run a script in a page that does not escape it."""
    return HOSTILE
