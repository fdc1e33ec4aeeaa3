"""Records of a wrong shape, sealed again with every hash set right: bad input in one line, never a bug in edgetl.

Each mutation takes out one value of one record or puts another kind of value in its place.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgetl.base.errors import EdgetlError
from edgetl.base.storage import read_json
from edgetl.cli import run as command_line
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
from edgetl.core.run import MANIFEST as RUN
from edgetl.core.run import load_run
from edgetl.inputs import input_of
from tests.fuzzing.contents import GONE, edited, places
from tests.records import encoded, put_into_bundle, put_into_run, whole_bundle, whole_run

#: Mutations of each record that are tried, drawn from all of them, always the same ones; ``EDGETL_MUTATIONS`` asks
#: for more. A command runs on every so many of those that are read.
TRIED, COMMANDS_EACH = int(os.environ.get("EDGETL_MUTATIONS", "24")), 6
#: What a command may end in: done, bad input, a certificate that fails or is underpowered.
STATUSES = {0, 2, 3, 4}
VALUES: tuple[Any, ...] = (GONE, None, True, -3, 0.5, 10**30, "", "text", [], [None], {}, {"a": [1]})


def mutations(record: Any, most: int) -> Iterator[tuple[str, Any]]:
    """Some mutations of a record: what was done, and the outcome."""
    every = [((), value) for value in VALUES[1:]] + [(p, v) for p in places(record) if p != ("digest",) for v in VALUES]
    for path, value in random.Random(0).sample(every, min(most, len(every))):
        told = "removed" if value is GONE else json.dumps(value)
        yield f"{'.'.join(map(str, path)) or 'the whole'}: {told}", edited(record, path, value) if path else value


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_bundle(tmp_path_factory.mktemp("mutated") / "bundle")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(tmp_path_factory.mktemp("mutated") / "run")


def read_bundle(folder: Path) -> None:
    """Everything that a bundle is asked for."""
    opened = load_bundle(folder)
    assert [opened.labels, opened.dataset, opened.splits, opened.calibration, opened.layers, opened.repair]
    assert [opened.bench, opened.certificate, input_of(opened), opened.artifact(), opened.exported, opened.source]


def read_run(folder: Path) -> None:
    """Everything that a run is asked for."""
    opened = load_run(folder)
    assert [opened.to_json(), opened.digest, input_of(opened)]
    assert opened.history is not opened.val_outputs


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
    put: Callable[[Path, str, bytes], None],
    read: Callable[[Path], None],
    commands: Sequence[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every mutation is read, or refused in one line; so says the command line of some."""
    kept = {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    refused = accepted = 0
    for told, record in mutations(read_json(folder / name), TRIED):
        try:
            put(folder, name, encoded(record))
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
