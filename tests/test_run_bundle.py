"""Runs and bundles on disk: what is written is read back, and one changed byte anywhere is refused."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.base.errors import BundleError, CertifyError, EdgetlError, RunError
from edgetl.base.schema import to_json
from edgetl.base.storage import canonical_json, read_json, sealed, sha256_file, write_json, write_sealed
from edgetl.certify import verify_arrays
from edgetl.core.bundle import (
    BENCH,
    CERTIFICATE,
    PREDICTIONS,
    Artifact,
    Bundle,
    check_certificate,
    load_bundle,
    write_manifest,
)
from edgetl.core.manifest import Manifest
from edgetl.core.run import Run, load_run, write_run
from edgetl.core.run_record import RunMetrics
from edgetl.core.targets import find_target
from edgetl.inputs import load_dataset, preprocess_of
from edgetl.inputs.image import Preprocess

PREPROCESS = Preprocess(32, 24, 40, "bilinear", (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
FILES = (
    "manifest.json",
    "labels.json",
    "preprocess.json",
    "splits.json",
    "calibration.json",
    "golden.npz",
    "reference.npz",
    "model/model.xml",
    "model/model.bin",
    "float/model.onnx",
    "runner/main.cpp",
    "certificate.json",
    "predictions.npz",
    "bench.json",
)


@pytest.fixture
def bundle(tmp_path: Path, photos: Path) -> Bundle:
    """A bundle with every kind of file and record that a finished one has."""
    folder = tmp_path / "bundle"
    dataset = load_dataset(photos)
    for name in ("model/model.xml", "model/model.bin", "float/model.onnx", "runner/main.cpp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 20)
    # A field of ONNX that holds a text.
    (folder / "float/model.onnx").write_bytes(b"\x12\x7f" + (b"float/model.onnx" * 20)[:127])
    write_json(folder / "labels.json", list(dataset.classes))
    write_json(folder / "preprocess.json", PREPROCESS.to_json())
    write_json(folder / "splits.json", dataset.to_json())
    write_json(folder / "calibration.json", {"seed": 0})
    for name in ("golden.npz", "reference.npz"):
        np.savez(folder / name, logits=np.eye(3, dtype=np.float32))
    deployed = Artifact("openvino", folder / "model" / "model.xml", "int8", "CPU")
    floating = Artifact("onnxruntime", folder / "float" / "model.onnx", "fp32")
    manifest = Manifest(target=find_target("intel-cpu"), parity={"max_abs": 1e-05})
    write_manifest(folder, manifest, {"deployed": deployed, "float": floating})
    made = load_bundle(folder)
    np.savez(folder / PREDICTIONS, labels=np.arange(3))
    hashes = {"predictions": sha256_file(folder / PREDICTIONS)}
    labels = np.arange(3).repeat(20)
    certificate = verify_arrays(reference=labels, deployed=labels, labels=labels, margin=0.9, alpha=1e-05)
    made.write_record(CERTIFICATE, to_json(replace(certificate, hashes=hashes)))
    made.write_record(BENCH, {"p50_ms": 1.25, "samples_ms": [1.0, 1.5]})
    return load_bundle(folder)


def test_round_trip(bundle: Bundle, photos: Path) -> None:
    assert bundle.target == "intel-cpu"
    assert bundle.precision == "int8"
    assert bundle.labels == ("blue", "green", "red")
    assert preprocess_of(bundle) == PREPROCESS
    assert bundle.dataset == load_dataset(photos)
    deployed, floating = bundle.artifact(), bundle.artifact("float")
    assert (deployed.backend, deployed.device, deployed.precision) == ("openvino", "CPU", "int8")
    assert [file.name for file in deployed.files] == ["model.xml", "model.bin"]
    assert deployed.size_bytes == 2 * 20 * len("model/model.xml")
    assert floating.files == (bundle.path / "float" / "model.onnx",)
    assert bundle.manifest.artifacts["deployed"].bytes == deployed.size_bytes
    assert bundle.manifest.parity == {"max_abs": 1e-05}
    record = bundle.record(BENCH)
    assert record is not None
    assert record["p50_ms"] == 1.25
    assert check_certificate(bundle).verdict == "pass"
    assert {*bundle.manifest.files} == {*FILES} - {"manifest.json", CERTIFICATE, PREDICTIONS, BENCH}


def test_a_bundle_may_be_moved(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "else where" / "bündel")
    moved = load_bundle(tmp_path / "else where" / "bündel")
    assert moved.digest == bundle.digest
    assert check_certificate(moved)


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_refused(bundle: Bundle, name: str) -> None:
    file = bundle.path / name
    whole = file.read_bytes()
    step = max(len(whole) // 150, 1)
    for place in [*range(0, len(whole), step), len(whole) - 1]:
        for flip in (0x01, 0x20, 0x80):
            content = bytearray(whole)
            content[place] ^= flip
            file.write_bytes(content)
            with pytest.raises(BundleError) as caught:
                load_bundle(bundle.path)
            assert file.name in str(caught.value)
            assert "\n" not in str(caught.value)
    file.write_bytes(whole)
    load_bundle(bundle.path)


def test_every_byte_of_the_manifest_counts(bundle: Bundle) -> None:
    """Among them the blanks between values, and the case of an exponent."""
    file = bundle.path / "manifest.json"
    whole = file.read_bytes()
    assert b"e-05" in whole
    for place, byte in enumerate(whole):
        changed = {ord("\n"): b" ", ord(" "): b"\t", ord("e"): b"E"}.get(byte)
        if changed is None:
            continue
        file.write_bytes(whole[:place] + changed + whole[place + 1 :])
        with pytest.raises(BundleError, match=r"manifest\.json"):
            load_bundle(bundle.path)


@pytest.mark.parametrize("name", [n for n in FILES if n not in (CERTIFICATE, BENCH)])
@pytest.mark.parametrize("how", ["missing", "longer", "shorter", "folder"])
def test_files_that_are_not_whole(bundle: Bundle, name: str, how: str) -> None:
    file = bundle.path / name
    content = file.read_bytes()
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how != "missing":
        file.write_bytes(content + b"\n" if how == "longer" else content[:-1])
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle.path)
    assert Path(name).name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_records_may_be_absent(bundle: Bundle) -> None:
    for name in (CERTIFICATE, PREDICTIONS, BENCH):
        (bundle.path / name).unlink()
    again = load_bundle(bundle.path)
    assert again.record(CERTIFICATE) is None
    with pytest.raises(CertifyError, match="no certificate"):
        check_certificate(again)


def resealed(file: Path, **changes: Any) -> None:
    write_sealed(file, {**read_json(file), **changes})


@pytest.mark.parametrize("schema", [2, 99, None, [3]])
def test_another_schema_is_refused_in_one_line(bundle: Bundle, schema: Any) -> None:
    resealed(bundle.path / "manifest.json", schema=schema)
    with pytest.raises(BundleError, match=re.escape(f"schema {schema}")) as caught:
        load_bundle(bundle.path)
    assert caught.value.remedy == "export it again"


@pytest.mark.parametrize("name", [CERTIFICATE, BENCH])
def test_the_record_of_another_bundle(bundle: Bundle, name: str) -> None:
    resealed(bundle.path / name, manifest="0" * 64)
    with pytest.raises(BundleError, match="belongs to another bundle") as caught:
        load_bundle(bundle.path)
    assert name in str(caught.value)


def test_records_do_not_outlive_a_new_manifest(bundle: Bundle) -> None:
    resealed(bundle.path / "manifest.json", key="2")
    with pytest.raises(BundleError, match="belongs to another bundle"):
        load_bundle(bundle.path)


@pytest.mark.parametrize("how", ["edited", "foreign", "predictions", "no predictions", "resealed by hand"])
def test_check_certificate(bundle: Bundle, how: str) -> None:
    assert check_certificate(bundle).verdict == "pass"
    file = bundle.path / CERTIFICATE
    if how == "edited":
        write_json(file, {**read_json(file), "verdict": "fail"})
    elif how == "resealed by hand":
        write_bytes = canonical_json(sealed({**read_json(file), "verdict": "fail"}))
        file.write_bytes(write_bytes)
    elif how == "foreign":
        resealed(file, manifest="1" * 64)
    elif how == "predictions":
        np.savez(bundle.path / PREDICTIONS, labels=np.arange(3)[::-1])
    else:
        (bundle.path / PREDICTIONS).unlink()
    with pytest.raises(CertifyError) as caught:
        check_certificate(bundle)
    assert "\n" not in str(caught.value)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(BundleError, match="is not a bundle"):
            load_bundle(path)


def test_a_role_that_is_not_there(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no engine artifact"):
        bundle.artifact("engine")


def test_a_flipped_byte_on_the_command_line(bundle: Bundle, edgetl: Callable[..., Any]) -> None:
    model = bundle.path / "model" / "model.bin"
    content = bytearray(model.read_bytes())
    content[7] ^= 1
    model.write_bytes(content)
    for arguments in (["bench", bundle.path], ["verify", bundle.path], ["report", bundle.path]):
        done = edgetl(*arguments)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "model.bin" in done.stderr


# Runs


@pytest.fixture
def run(tmp_path: Path, photos: Path) -> Run:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"tensors" * 30)
    return write_run(
        folder,
        backbone="resnet18",
        strategy="linear-probe",
        dataset=load_dataset(photos),
        input_record=PREPROCESS.to_json(),
        settings={"seed": 3, "lr": 1e-05},
        metrics=RunMetrics(val={"accuracy": 0.5}),
        lineage={"licence": "Apache-2.0"},
    )


def test_a_run_is_read_back(run: Run, photos: Path) -> None:
    again = load_run(str(run.path))
    assert again == run
    assert again.digest == run.digest
    assert again.classes == ("blue", "green", "red")
    assert again.dataset == load_dataset(photos)
    assert preprocess_of(again) == PREPROCESS
    assert again.settings == {"seed": 3, "lr": 1e-05}
    assert again.weights_sha256 == sha256_file(run.weights)
    assert again.to_json()["digest"] == run.digest


@pytest.mark.parametrize("name", ["run.json", "weights.safetensors", "splits.json", "preprocess.json"])
def test_a_run_with_one_changed_byte_is_refused(run: Run, name: str) -> None:
    file = run.path / name
    whole = file.read_bytes()
    for place in range(0, len(whole), max(len(whole) // 60, 1)):
        for flip in (0x01, 0x20):
            content = bytearray(whole)
            content[place] ^= flip
            file.write_bytes(content)
            with pytest.raises(RunError) as caught:
                load_run(run.path)
            assert name in str(caught.value)
            assert "\n" not in str(caught.value)
    file.unlink()
    with pytest.raises(RunError):
        load_run(run.path)


def test_the_digest_of_a_run_names_its_outcome(run: Run, tmp_path: Path, photos: Path) -> None:
    def other(**changes: Any) -> str:
        folder = tmp_path / f"other-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "weights.safetensors").write_bytes(changes.pop("weights", b"tensors" * 30))
        fields = {
            "backbone": run.backbone,
            "strategy": run.strategy,
            "dataset": run.dataset,
            "input_record": run.input_record,
            "settings": run.settings,
            "metrics": run.metrics,
            "lineage": run.lineage,
        }
        return write_run(folder, **{**fields, **changes}).digest

    assert other() == run.digest
    assert other(lineage={"command": "another"}) == run.digest
    changed = [
        other(weights=b"other"),
        other(dataset=load_dataset(photos, seed=1)),
        other(input_record=Preprocess(24, 24, 40, "bilinear", (0.1, 0.2, 0.3), (0.5, 0.5, 0.5)).to_json()),
        other(backbone="resnet50"),
    ]
    assert len({run.digest, *changed}) == 5


def test_what_is_no_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run"):
        load_run(tmp_path / "gone")
    (run.path / "run.json").unlink()
    with pytest.raises(RunError, match="is not a run"):
        load_run(run.path)
    (run.path / "checkpoint").mkdir()
    with pytest.raises(RunError, match="unfinished"):
        load_run(run.path)


def test_a_run_of_another_schema(run: Run) -> None:
    resealed(run.path / "run.json", schema=0)
    with pytest.raises(EdgetlError, match="schema 0"):
        load_run(run.path)


def test_a_run_of_the_first_schema_is_read_with_defaults(run: Run) -> None:
    record = {**read_json(run.path / "run.json"), "schema": 1, "metrics": {"val": {"accuracy": 0.5}, "best_epoch": 2}}
    write_sealed(run.path / "run.json", {k: v for k, v in record.items() if k not in ("task", "baseline")})
    read = load_run(run.path)
    assert (read.task, read.baseline, read.gain) == ("classification", None, None)
    assert read.metrics == RunMetrics(val={"accuracy": 0.5}, best_epoch=2)
    assert read.digest == run.digest
