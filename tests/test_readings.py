"""Every reading of the certify split is written down, and quoted by the certificates that come after it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import edgetl
from edgetl.base.errors import RunError
from edgetl.core.bundle import load_bundle
from edgetl.workflow.audit import check


@pytest.fixture
def exported(tiny_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the tiny run, and its bundle in float, certified once."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "readings.jsonl").unlink(missing_ok=True)
    edgetl.export(run, targets="x86-generic", precision="fp32", out=tmp_path / "out", bench=False, margin=0.05)
    return run, tmp_path / "out" / "x86-generic"


def ledger(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "readings.jsonl").read_text().splitlines()]


def test_a_look_on_other_terms_is_entered_quoted_and_marked(exported: tuple[Path, Path]) -> None:
    run, bundle = exported
    first = load_bundle(bundle).certificate
    assert first is not None
    assert (first.readings, first.registered) == ((), True)
    assert [entry["margin"] for entry in ledger(run)] == [0.05]
    again = edgetl.verify(bundle, margin=0.05)
    assert (again.readings, len(ledger(run))) == ((), 1), "the same predictions on the same terms are no further look"
    other = edgetl.verify(bundle, margin=0.3)
    assert [reading.margin for reading in other.readings] == [0.05]
    assert not other.registered
    assert any("chosen after the first reading" in note for note in other.notes)
    assert check(bundle) is None
    assert [entry["margin"] for entry in ledger(run)] == [0.05, 0.3]
    assert all(str(entry["when"]).startswith("20") for entry in ledger(run))
    back = edgetl.verify(bundle, margin=0.05)
    assert back.registered
    assert [reading.margin for reading in back.readings] == [0.05, 0.3]
    assert (edgetl.verify(bundle, margin=0.05), len(ledger(run))) == (back, 2)


def test_a_bundle_without_its_run_carries_its_readings(exported: tuple[Path, Path], tmp_path: Path) -> None:
    _, bundle = exported
    moved = Path(shutil.copytree(bundle, tmp_path / "elsewhere" / "bundle"))
    edgetl.verify(moved, margin=0.2)
    last = edgetl.verify(moved, margin=0.3)
    assert [reading.margin for reading in last.readings] == [0.05, 0.2]
    assert not last.registered
    assert check(moved) is None


def test_a_second_export_of_the_run_quotes_the_first(exported: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = exported
    (done,) = edgetl.export(run, targets="x86-generic", out=tmp_path / "more", bench=False, repair=False, margin=0.05)
    assert [reading.artifact for reading in done.certificate.readings] == [ledger(run)[0]["artifact"]]
    assert done.certificate.registered


def test_a_sequential_reading_is_another_look(exported: tuple[Path, Path]) -> None:
    _, bundle = exported
    found = edgetl.verify(bundle, margin=0.05, sequential=True)
    assert found.sequential
    assert [reading.sequential for reading in found.readings] == [False]
    assert check(bundle) is None


def test_a_malformed_ledger_is_refused(exported: tuple[Path, Path]) -> None:
    run, bundle = exported
    (run / "readings.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match="line 1 is malformed"):
        edgetl.verify(bundle, margin=0.4)
