"""A bundle and a run with every record that one can have, and putting another record into them, sealed again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.base.schema import to_json
from edgetl.base.storage import read_json, sha256_file, sha256_json, write_bytes, write_json, write_sealed
from edgetl.core.bench import Energy
from edgetl.core.bundle import (
    BENCH,
    BILL,
    CERTIFICATE,
    MANIFEST,
    MODEL_CARD,
    PREPROCESS_FILE,
    REPAIR,
    load_bundle,
)
from edgetl.core.data import Dataset, Sample
from edgetl.core.run import HISTORY, WEIGHTS, write_run
from edgetl.core.run import MANIFEST as RUN
from edgetl.core.run_record import Baseline, RunMetrics
from edgetl.core.val_outputs import START_OUTPUTS, VAL_OUTPUTS, write_val_outputs
from edgetl.latency import bench_record
from edgetl.runtime.measurement import Cold, Measurement, Schedule, Scheduled, Spent
from edgetl.runtime.plan import Plan
from edgetl.runtime.sessions import Executed

GOLDEN = Path(__file__).with_name("golden") / "bundle"
#: Records that name their bundle, and are not in its manifest.
RECORDS = (CERTIFICATE, BENCH, REPAIR)


def measurement() -> Measurement:
    """What a device answers to ``bench``, with everything that it may hold."""
    rng, roles = np.random.default_rng(0), ("deployed", "float", "against")
    return Measurement(
        samples_ms={role: tuple(rng.gamma(100, 0.01, 400).tolist()) for role in roles},
        executed=dict.fromkeys(roles, Executed("int8", 0.9, {"int8": 4, "fp32": 1})),
        cold=dict.fromkeys(roles, Cold(120.0, 80.0)),
        schedules=dict.fromkeys(roles, Scheduled(schedule=Schedule())),
        energy=dict.fromkeys(roles, Spent(energy_mj=2.0, energy=Energy(sensor="a sensor", idle_w=1.0))),
        plan=Plan(until=0.02),
        stopped="duration",
        warmup=10,
        watch=(),
        device={"cpu_model": "a CPU", "isa_features": ["avx2"]},
        before={"clock_mhz": [2000.0]},
        after={"clock_mhz": [1900.0]},
    )


def whole_bundle(folder: Path) -> Path:
    """The golden bundle with every record that one can have."""
    shutil.copytree(GOLDEN, folder)
    opened = load_bundle(folder)
    opened.write_bench(bench_record(measurement()))
    assert opened.manifest.repair is not None
    opened.write_record(REPAIR, to_json(opened.manifest.repair))
    return folder


def whole_run(folder: Path) -> Path:
    """A run of three classes, with a history, answers on val and a baseline; its weights are none."""
    folder.mkdir()
    samples = [Sample(f"{i}.png", i % 3, f"{i:064x}", f"{i:064x}", "train" if i % 2 else "val") for i in range(24)]
    (folder / WEIGHTS).write_bytes(b"tensors")
    rows = [{"epoch": i, "val": {"accuracy": 0.5 + i / 10, "loss": 1.0 - i / 10, "n": 12}} for i in range(3)]
    (folder / HISTORY).write_text("".join(f"{json.dumps({**row, 'train_loss': 0.9})}\n" for row in rows))
    for seed, name in enumerate((VAL_OUTPUTS, START_OUTPUTS)):
        logits = np.random.default_rng(seed).normal(size=(12, 3)).astype(np.float32)
        write_val_outputs(folder, {"logits": logits}, name)
    metrics = RunMetrics(
        val={"accuracy": 0.7, "loss": 0.8, "n": 12}, start={"accuracy": 0.5}, best_epoch=2, epochs_run=2
    )
    write_run(
        folder,
        backbone="resnet18",
        strategy="fine-tune",
        dataset=Dataset(folder / "photos", ("blue", "green", "red"), tuple(samples)),
        input_record=read_json(GOLDEN / PREPROCESS_FILE),
        settings={"seed": 0, "epochs": 2, "details": {"head": {"kind": "linear"}}},
        metrics=metrics,
        lineage={"licence": "Apache-2.0", "versions": {"torch": "2.15"}, "command": "edgetl finetune photos"},
    )
    record = read_json(folder / RUN)
    baseline = Baseline(kind="probe", metrics=metrics, settings={"seed": 0}, sha256=sha256_file(folder / WEIGHTS))
    write_sealed(folder / RUN, {**record, "baseline": to_json(baseline)})
    return folder


def encoded(record: Any) -> bytes:
    """A record as a file's content, not sealed."""
    return json.dumps(record).encode()


def seal(file: Path) -> None:
    """Give a record its digest, if it is one that can have it."""
    try:
        record = json.loads(file.read_bytes())
        if isinstance(record, dict):
            write_sealed(file, record)
        else:
            write_json(file, record)
    except (ValueError, RecursionError):  # no JSON, or a value that none may hold: it stays as it is
        return


def put_into_bundle(folder: Path, name: str, content: bytes) -> None:
    """Put another content into a whole bundle, and set every hash right that speaks of it."""
    write_bytes(folder / name, content)
    for paper in (BILL, MODEL_CARD):  # a command wrote them of another certificate
        (folder / paper).unlink(missing_ok=True)
    if name in RECORDS:
        seal(folder / name)
        return
    if name != MANIFEST:
        manifest, files = read_json(folder / MANIFEST), read_json(folder / MANIFEST)["files"]
        if name in files:
            entry = {"sha256": sha256_file(folder / name), "bytes": len(content)}
            write_sealed(folder / MANIFEST, {**manifest, "files": {**files, name: entry}})
    seal(folder / MANIFEST)
    _name_bundle(folder)


def _name_bundle(folder: Path) -> None:
    """Let every record name the bundle as it is now."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        digest = manifest["digest"] if isinstance(manifest, dict) else sha256_json(manifest)
    except (ValueError, RecursionError, KeyError):
        return
    for other in (name for name in RECORDS if (folder / name).is_file()):
        known = {**read_json(folder / other), "manifest": digest}
        if other == CERTIFICATE:
            predictions = sha256_file(folder / "predictions.npz")
            known["hashes"] = {**known["hashes"], "manifest": digest, "predictions": predictions}
        write_sealed(folder / other, known)


def put_into_run(folder: Path, name: str, content: bytes) -> None:
    """Put another content into a run, and set every hash right that speaks of it."""
    write_bytes(folder / name, content)
    if name == RUN:
        seal(folder / RUN)
        return
    known = read_json(folder / RUN)
    write_sealed(folder / RUN, {**known, "files": {**known["files"], name: sha256_file(folder / name)}})
