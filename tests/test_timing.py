"""``edgetl bench`` as a user runs it: two bundles in turn, a goal, scenarios, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import edgetl as library
from edgetl.base.errors import EdgetlError
from edgetl.base.schema import to_json
from edgetl.core.bundle import load_bundle

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def other(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run as a bundle for OpenVINO: another runtime, another artifact."""
    pytest.importorskip("openvino", reason="openvino (edgetl[openvino]) executes the other bundle")
    out = tmp_path_factory.mktemp("other")
    library.export(tiny_run, targets=["intel-cpu"], precision="fp32", out=out, bench=False, repair=False, margin=0.9)
    return out / "intel-cpu"


def test_two_bundles_take_turns(edgetl: Cli, tiny_bundle: Path, other: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    before = sorted(p.name for p in bundle.iterdir())
    done = edgetl("bench", bundle, "--against", other, "--duration", 0.3, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    against = record["against"]
    assert against["manifest"] == load_bundle(other).digest
    assert (against["target"], against["precision"]) == ("intel-cpu", "fp32")
    assert against["n"] == record["n"]
    assert against["ratio"]["ci_low"] <= against["ratio"]["value"] <= against["ratio"]["ci_high"]
    # A float bundle has no twin, so two took turns.
    assert record["float"] is None
    stored = load_bundle(bundle).record("bench.json")
    assert stored is not None
    assert stored["against"]["manifest"] == against["manifest"]
    assert sorted({*before, "bench.json"}) == sorted(p.name for p in bundle.iterdir())
    shown = edgetl("bench", bundle, "--against", other, "--duration", 0.1)
    assert "as fast as the fp32 bundle for intel-cpu" in shown.stdout


def test_what_cannot_be_compared(edgetl: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "copy")
    same = edgetl("bench", tiny_bundle, "--against", tmp_path / "copy")
    assert same.returncode == 2
    assert "itself" in same.stderr
    with pytest.raises(EdgetlError, match="take turns"):
        library.bench(tiny_bundle, against=tiny_bundle, harness="loadgen")


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--until", "soon"), "2%"),
        (("--until", "200%"), "2%"),
        (("--scenario", "server"), "multi-stream"),
        (("--harness", "stopwatch"), "loadgen"),
        (("--streams", "3"), "multi-stream"),
        (("--duration", "-3"), "positive"),
    ],
)
def test_bad_options_are_one_line(edgetl: Cli, tiny_bundle: Path, options: tuple[str, ...], hint: str) -> None:
    done = edgetl("bench", tiny_bundle, "--quiet", *options)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert hint in done.stderr


def test_a_goal_in_per_cent(edgetl: Cli, tiny_bundle: Path) -> None:
    done = edgetl("bench", tiny_bundle, "--until", "50%", "--duration", "5", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["until"]["wanted"] == 0.5
    assert record["stopped"] in ("interval", "duration")
    assert record["until"]["reached"] == (record["stopped"] == "interval")


def test_every_record_says_whether_it_was_disturbed(tiny_bundle: Path) -> None:
    record = to_json(library.bench(tiny_bundle, duration=0.3, scenario="multi-stream", streams=2))
    assert record["disturbance"]["disturbed"] == bool(record["disturbance"]["reasons"])
    evidence = record["disturbance"]["evidence"]
    assert {"others_cores", "steal_cores", "involuntary_per_s", "clock_mhz", "hottest_c", "drift"} <= set(evidence)
    assert record["energy_mj"] is None or record["energy_mj"] > 0
    assert record["energy_mj"] is not None or record["energy"]["reason"]
    assert (record["scenario"], record["streams"], record["harness"]) == ("multi-stream", 2, "edgetl")
    shown = record["block_length"]
    assert shown["p50"] >= 1
