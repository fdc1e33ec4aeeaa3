"""Bundles on disk with real, sealed records, but without a model: reporting reads records and images only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgetl.bundle import BENCH, CERTIFICATE, PREDICTIONS, Artifact, Bundle, load_bundle, write_manifest
from edgetl.certify.predictions import Predictions
from edgetl.certify.verdict import certify
from edgetl.data import Dataset, load_dataset
from edgetl.latency import bench_record
from edgetl.preprocess import Preprocess
from edgetl.storage import sha256_file, write_json

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
        (folder / role / "model.onnx").write_bytes(b"\x01" * size)
    write_json(folder / "labels.json", list(data.classes))
    write_json(folder / "splits.json", data.to_json())
    preprocess = Preprocess(96, 96, 110, "bicubic", (0.485, 0.456, 0.406), (0.5, 0.5, 0.5))
    write_json(folder / "preprocess.json", preprocess.to_json())
    images = [[s.path, s.sha256] for s in data.split("calibration")]
    write_json(folder / "calibration.json", {"selection": "class-balanced", "seed": 0, "images": images})
    body = {
        "target": {"name": target, "isa": "x86-64"},
        "quantization": {"recipe": "ort-x86-u8s8", "activation": "uint8", "weight": "int8", "per_channel": True},
        "lineage": {"backbone": "efficientnet_lite0", "seed": 0, "versions": {"numpy": "2.0"}},
    }
    write_manifest(
        folder,
        body,
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
        labels=labels,
        reference=reference,
        deployed=deployed,
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
    return bench_record(
        {
            "samples_ms": {"deployed": fast, "float": slow},
            "executed": {
                "deployed": {"precision": "int8", "integer_macs": 1.0, "layers": {"int8": 49}},
                "float": {"precision": "fp32", "integer_macs": 0.0, "layers": {"fp32": 49}},
            },
            "cold": {role: {"peak_rss_mb": 81.5, "cold_start_ms": 140.0} for role in ("deployed", "float")},
            "warmup": 20,
            "threads": 1,
            "batch": 1,
            "device": {"cpu_model": "Some CPU <b>", "cores": 2, "governor": None},
            "before": {"clock_mhz": [2100.0, 2100.5]},
            "after": {"clock_mhz": [2100.0, 2099.5]},
        }
    )


@pytest.fixture(scope="session")
def hostile() -> str:
    """The name of the class that would run a script in a page that does not escape it."""
    return HOSTILE
