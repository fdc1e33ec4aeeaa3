"""Records of a wrong shape, sealed again with every hash set right: bad input in one line, never a bug in edgetl.

Each mutation takes out one value of one record or puts another kind of value in its place.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.base.errors import EdgetlError
from edgetl.base.schema import to_json
from edgetl.base.storage import read_json, sha256_file, sha256_json, write_json, write_sealed
from edgetl.cli import run as command_line
from edgetl.core.bench import Energy
from edgetl.core.bundle import (
    BENCH,
    CALIBRATION,
    CERTIFICATE,
    LABELS,
    LAYERS,
    MANIFEST,
    PREPROCESS_FILE,
    REPAIR,
    SPLITS_FILE,
    load_bundle,
)
from edgetl.core.data import Dataset, Sample
from edgetl.core.run import HISTORY, WEIGHTS, load_run, write_run, write_val_outputs
from edgetl.core.run import MANIFEST as RUN
from edgetl.core.run_record import Baseline, RunMetrics
from edgetl.inputs import input_of
from edgetl.latency import bench_record
from edgetl.runtime.measurement import Cold, Measurement, Schedule, Scheduled, Spent
from edgetl.runtime.plan import Plan
from edgetl.runtime.sessions import Executed

GOLDEN = Path(__file__).with_name("golden") / "bundle"
#: Mutations of each record that are tried, drawn from all of them, always the same ones; ``EDGETL_MUTATIONS`` asks
#: for more. A command runs on every so many of those that are read.
TRIED, COMMANDS_EACH = int(os.environ.get("EDGETL_MUTATIONS", "24")), 6
#: What a command may end in: done, bad input, a certificate that fails or is underpowered.
STATUSES = {0, 2, 3, 4}
GONE = object()
VALUES: tuple[Any, ...] = (GONE, None, True, -3, 0.5, 10**30, "", "text", [], [None], {}, {"a": [1]})


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where each value of a record stands; of a list the first and the last entry."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    if isinstance(value, list) and value:
        for index in sorted({0, len(value) - 1}):
            yield from places(value[index], (*path, index))


def mutated(record: Any, path: tuple[str | int, ...], value: Any) -> Any:
    changed = copy.deepcopy(record)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    if value is GONE:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return changed


def mutations(record: Any, most: int) -> Iterator[tuple[str, Any]]:
    """Some mutations of a record: what was done, and the outcome."""
    every = [((), value) for value in VALUES[1:]] + [(p, v) for p in places(record) if p != ("digest",) for v in VALUES]
    for path, value in random.Random(0).sample(every, min(most, len(every))):
        told = "removed" if value is GONE else json.dumps(value)
        yield f"{'.'.join(map(str, path)) or 'the whole'}: {told}", mutated(record, path, value) if path else value


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden bundle with every record that one can have."""
    folder = Path(shutil.copytree(GOLDEN, tmp_path_factory.mktemp("mutated") / "bundle"))
    opened = load_bundle(folder)
    rng, roles = np.random.default_rng(0), ("deployed", "float", "against")
    measured = Measurement(
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
    opened.write_bench(bench_record(measured))
    assert opened.manifest.repair is not None
    opened.write_record(REPAIR, to_json(opened.manifest.repair))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three classes, with a history, answers on val and a baseline; its weights are never opened."""
    folder = tmp_path_factory.mktemp("mutated") / "run"
    folder.mkdir()
    samples = [Sample(f"{i}.png", i % 3, f"{i:064x}", f"{i:064x}", "train" if i % 2 else "val") for i in range(24)]
    (folder / WEIGHTS).write_bytes(b"tensors")
    rows = [{"epoch": i, "val": {"accuracy": 0.5 + i / 10, "loss": 1.0 - i / 10, "n": 12}} for i in range(3)]
    (folder / HISTORY).write_text("".join(f"{json.dumps({**row, 'train_loss': 0.9})}\n" for row in rows))
    write_val_outputs(folder, {"logits": np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)})
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


def seal(file: Path, record: Any) -> None:
    """Write a record with its digest, whatever shape it has."""
    if isinstance(record, dict):
        write_sealed(file, record)
    else:
        write_json(file, record)


def put_into_bundle(folder: Path, name: str, record: Any) -> None:
    """Put a record into a bundle and set every hash right that speaks of it."""
    if name in (BENCH, REPAIR, CERTIFICATE):
        seal(folder / name, record)
        return
    manifest = read_json(folder / MANIFEST) if name != MANIFEST else record
    if name != MANIFEST:
        write_json(folder / name, record)
        entry = {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size}
        manifest = {**manifest, "files": {**manifest["files"], name: entry}}
    seal(folder / MANIFEST, manifest)
    digest = read_json(folder / MANIFEST)["digest"] if isinstance(manifest, dict) else sha256_json(manifest)
    for other in (CERTIFICATE, BENCH, REPAIR):
        known = {**read_json(folder / other), "manifest": digest}
        if other == CERTIFICATE:
            known["hashes"] = {**known["hashes"], "manifest": digest}
        write_sealed(folder / other, known)


def read_bundle(folder: Path) -> None:
    """Everything that a bundle is asked for."""
    opened = load_bundle(folder)
    assert all((opened.labels, opened.dataset, opened.splits, opened.calibration, opened.layers, opened.repair))
    assert all((opened.bench, opened.certificate, input_of(opened), opened.artifact(), opened.exported, opened.source))


def read_run(folder: Path) -> None:
    """Everything that a run is asked for."""
    opened = load_run(folder)
    assert all((opened.to_json(), opened.digest, input_of(opened)))
    assert opened.history is not opened.val_outputs


def put_into_run(folder: Path, name: str, record: Any) -> None:
    """Put a record into a run and set every hash right that speaks of it."""
    if name == RUN:
        seal(folder / RUN, record)
        return
    write_json(folder / name, record)
    known = read_json(folder / RUN)
    write_sealed(folder / RUN, {**known, "files": {**known["files"], name: sha256_file(folder / name)}})


@pytest.mark.parametrize(
    "name", [MANIFEST, CERTIFICATE, BENCH, REPAIR, SPLITS_FILE, PREPROCESS_FILE, CALIBRATION, LAYERS, LABELS]
)
def test_a_bundle(name: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = ["report", str(bundle), "--out", str(tmp_path / "report.html")]
    judged = [["verify", str(bundle), "--check"], ["verify", str(bundle), "--quiet"]]
    commands = [report] if name in (BENCH, REPAIR, CALIBRATION) else [report, *judged]
    survive(bundle, name, put_into_bundle, read_bundle, commands, capsys)


@pytest.mark.parametrize("name", [RUN, SPLITS_FILE, PREPROCESS_FILE])
def test_a_run(name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [
        ["report", str(run), "--out", str(tmp_path / "report.html")],
        ["export", str(run), "--target", "moon", "--out", str(tmp_path / "out")],
    ]
    survive(run, name, put_into_run, read_run, commands, capsys)


def survive(
    folder: Path,
    name: str,
    put: Callable[[Path, str, Any], None],
    read: Callable[[Path], None],
    commands: Sequence[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every mutation is read, or refused in one line; so says the command line of some."""
    kept = {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    refused = accepted = 0
    for told, record in mutations(read_json(folder / name), TRIED):
        try:
            put(folder, name, record)
            try:
                read(folder)
            except EdgetlError:
                refused += 1
                wanted = refused % COMMANDS_EACH == 1
            else:
                accepted += 1
                wanted = accepted % COMMANDS_EACH == 1
            if wanted:
                status = command_line(commands[(refused + accepted) % len(commands)])
                said = capsys.readouterr().err.strip()
                assert status in STATUSES, f"{name}: {told}: {said}"
                assert status != 2 or len(said.splitlines()) == 1, f"{name}: {told}: {said}"
        finally:
            for file, content in kept.items():
                if not file.is_file() or file.read_bytes() != content:
                    file.write_bytes(content)
    assert refused, "nothing of what was changed was looked at"
