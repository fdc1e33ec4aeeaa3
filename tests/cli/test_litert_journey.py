"""From a run to certified and timed LiteRT bundles, as a user does it."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="one target executes here, the other does not")


def test_one_bundle_runs_here_and_the_other_is_simulated(
    edgetl: Callable[..., subprocess.CompletedProcess[str]], tiny_run: Path, tmp_path: Path
) -> None:
    targets = ("--target", "x86-litert", "--target", "arm64-litert")
    done = edgetl("export", tiny_run, *targets, "--out", tmp_path, "--budget-minutes", "0.1", "--json", "--quiet")
    assert done.returncode in (0, 3), done.stderr
    here, elsewhere = json.loads(done.stdout)["bundles"]
    assert {p.name for p in (tmp_path / "x86-litert/model").iterdir()} == {"model.tflite", "model.onnx"}
    assert here["certificate"]["executed"] == "host"
    assert here["certificate"]["runtime"].startswith("litert 2")
    assert [rung["name"] for rung in here["certificate"]["ladder"]][1:3] == ["float ONNX", "Q/DQ in float"]
    assert here["bench"]["precision_executed"] == "int8"
    assert here["bench"]["integer_macs"] > 0.9
    assert elsewhere["certificate"]["executed"] == "simulated"
    assert "its Q/DQ graph in float by onnxruntime" in elsewhere["certificate"]["runtime"]
    assert elsewhere["bench"] is None
    stages = list((tmp_path / ".work").glob("compressed-*"))
    assert stages
    assert not [file for stage in stages for file in stage.rglob("*.tflite")], "a finished stage is not written to"
    again = edgetl("verify", tmp_path / "x86-litert", "--check")
    assert again.returncode == 0, again.stderr
