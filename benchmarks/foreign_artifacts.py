"""The same network compressed by other tools, well and badly, and given to ``edgetl export --artifact``.

    python benchmarks/foreign_artifacts.py RUN OTHER [--part verdicts|planted|honest] [--work DIR] [--out FILE]

RUN is a finished run of images with a class each, OTHER another one of the same classes and size, whose file is taken
for RUN's. Other tools get RUN's float ONNX file as ``export --precision fp32`` writes it. Each part replaces its own
rows in FILE.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nncf
import numpy as np
from onnxruntime.quantization import CalibrationMethod, QuantType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import edgetl
from edgetl.base.extras import version
from edgetl.base.storage import read_json, write_json
from edgetl.core.run import Run, load_run
from edgetl.inputs import input_of
from edgetl.runtime.machine import machine
from tests.adoption.compressors import (
    PER_CHANNEL,
    by_nncf,
    by_ort,
    ended_by,
    otherwise_scaled,
    permuted_head,
    swapped_stem,
    tampered,
)

CALIBRATED = 48
#: Of some hundred samples, honest artifacts pass.
MARGIN = 0.03
Rows = Iterator[dict[str, Any]]
Feeds = Sequence[Mapping[str, Any]]
#: Options of ONNX Runtime's quantizer that its users choose from, and of NNCF's.
ORT: Mapping[str, Mapping[str, Any]] = {
    "ORT, its defaults": {},
    "ORT, per channel": {"per_channel": True},
    "ORT, per channel, symmetric int8": PER_CHANNEL,
    "ORT, entropy": {"per_channel": True, "calibrate_method": CalibrationMethod.Entropy},
    "ORT, percentile": {"per_channel": True, "calibrate_method": CalibrationMethod.Percentile},
    "ORT, 7-bit weights": {"per_channel": True, "reduce_range": True},
    "ORT, int8 activations": {"activation_type": QuantType.QInt8},
}
NNCF: Mapping[str, Mapping[str, Any]] = {
    "NNCF, its defaults": {},
    "NNCF, mixed preset": {"preset": nncf.QuantizationPreset.MIXED},
    "NNCF, slow bias correction": {"fast_bias_correction": False},
}
PLANTED: Mapping[str, Callable[[Any], None]] = {
    "BGR": swapped_stem,
    "wrong std": otherwise_scaled,
    "permuted labels": permuted_head,
    "doubled Softmax": ended_by("Softmax", "Softmax"),
}


@dataclass(frozen=True)
class Job:
    """A run, its float file, another run's, and where files are put."""

    run: Run
    floating: Path
    other: Path
    work: Path

    @property
    def feeds(self) -> Feeds:
        """What the float file takes, of calibration images."""
        return [input_of(self.run).feeds(path) for path in self.run.dataset.paths("calibration")[:CALIBRATED]]

    def given(self, what: str, file: Path, target: str) -> dict[str, Any]:
        """What becomes of a file."""
        began = time.process_time()
        row: dict[str, Any] = {"artifact": what, "target": target, "bytes": file.stat().st_size}
        try:
            out = Path(tempfile.mkdtemp(dir=self.work))
            (made,) = edgetl.export(self.run, targets=target, out=out, artifact=file, margin=MARGIN, bench=False)
        except edgetl.EdgetlError as error:
            row |= {"verdict": "refused", "told": str(error).replace(str(file), file.name), "findings": []}
        else:
            of = made.certificate
            row |= {
                "verdict": of.verdict,
                "executed": of.executed,
                "reference": of.reference_score,
                "deployed": of.deployed_score,
                "ci_low": of.ci_low,
                "ci_high": of.ci_high,
                "n": of.n,
                "first_divergence": of.first_divergence,
                "findings": [finding.kind for finding in of.findings],
                "told": "; ".join(finding.what for finding in of.findings),
                "check": edgetl.check(made.bundle.path),
            }
        row["cpu_seconds"] = round(time.process_time() - began, 1)
        print(row, flush=True)
        return row

    def by_ort(self, what: str, target: str, feeds: Feeds, model: Path | None = None, **options: Any) -> dict[str, Any]:
        """The row of a file that ONNX Runtime quantizes."""
        file = by_ort(model or self.floating, self.work / "theirs.onnx", feeds, **options)
        return self.given(what, file, target)

    def by_nncf(self, what: str, feeds: Feeds, model: Path | None = None, **options: Any) -> dict[str, Any]:
        """The row of a file that NNCF quantizes."""
        return self.given(
            what, by_nncf(model or self.floating, self.work / "theirs.xml", feeds, **options), "intel-cpu"
        )


def verdicts(job: Job) -> Rows:
    """Two tools, their common settings, and calibrations that are broken."""
    feeds, draw = job.feeds, np.random.default_rng(0)
    noise = [{"image": draw.integers(0, 256, one["image"].shape).astype(np.uint8)} for one in feeds]
    dark = [{"image": draw.integers(0, 2, one["image"].shape).astype(np.uint8)} for one in feeds]
    inverted = [{"image": 255 - one["image"]} for one in feeds]
    yield job.by_ort("ORT, its defaults", "x86-generic", feeds)
    yield job.by_ort("ORT, per channel", "x86-generic", feeds, **ORT["ORT, per channel"])
    yield job.by_nncf("NNCF, its defaults", feeds)
    yield job.by_ort("ORT, calibrated with noise", "x86-generic", noise, **ORT["ORT, per channel"])
    yield job.by_ort("ORT, calibrated with black noise", "x86-generic", dark, **ORT["ORT, per channel"])
    yield job.by_ort("ORT, calibrated with inverted images", "x86-generic", inverted, **ORT["ORT, per channel"])
    yield job.by_ort("ORT, per channel, symmetric int8", "jetson", feeds, **PER_CHANNEL)


def planted(job: Job) -> Rows:
    """Files of the wrong model, or of a model that somebody changed before it was compressed."""
    feeds = job.feeds
    for fault, change in PLANTED.items():
        wrong = tampered(job.floating, job.work / "wrong.onnx", change)
        yield job.by_ort(fault, "x86-generic", feeds, wrong, per_channel=True)
        yield job.by_nncf(fault, feeds, wrong)
    yield job.by_ort("another model's file", "x86-generic", feeds, job.other, per_channel=True)
    yield job.by_nncf("another model's file", feeds, job.other)


def honest(job: Job) -> Rows:
    """Each setting once: no alarm may be raised."""
    feeds = job.feeds
    for what, options in ORT.items():
        yield job.by_ort(what, "x86-generic", feeds, **options)
    for what, options in NNCF.items():
        yield job.by_nncf(what, feeds, **options)


def summary(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What all parts come to."""
    wrong, fine = rows.get("planted", ()), rows.get("honest", ())
    return {
        "planted": len(wrong),
        "refused_or_failed": sum(row["verdict"] in ("refused", "fail") for row in wrong),
        "named": sum(row["verdict"] == "refused" or bool(row["findings"]) for row in wrong),
        "honest": len(fine),
        "false_alarms": sum(bool(set(row["findings"]) - _true(row["artifact"])) for row in fine),
    }


def _true(what: str) -> set[str]:
    """Findings that are no false alarm: what a tool's setting does by design."""
    per_tensor = what in ORT and not ORT[what].get("per_channel")
    return {"quantization-noise"} | ({"per-tensor-depthwise"} if per_tensor else set())


def floating(run: Run, folder: Path) -> Path:
    """The run's float ONNX file."""
    (made,) = edgetl.export(run, targets="x86-generic", out=folder, precision="fp32", bench=False)
    return made.bundle.exported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--part", action="append", choices=["verdicts", "planted", "honest"])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "foreign-artifacts")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "foreign_artifacts.json")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    run = load_run(chosen.run)
    other = floating(load_run(chosen.other), chosen.work / "other")
    job = Job(run, floating(run, chosen.work / "float"), other, chosen.work)
    parts = {"verdicts": verdicts, "planted": planted, "honest": honest}
    done: dict[str, Any] = read_json(chosen.out) if chosen.out.is_file() else {}
    about = {"data": str(run.settings.get("data", "")).rsplit("/", maxsplit=1)[-1], "backbone": run.backbone}
    for name in chosen.part or list(parts):
        done[name] = []
        for row in parts[name](job):
            done[name].append(row)
            tools = {tool: version(tool) for tool in ("onnxruntime", "nncf", "openvino")}
            whole = {**done, "run": about, "versions": tools, "margin": MARGIN, "summary": summary(done)}
            write_json(chosen.out, {**whole, "machine": {**machine(), "cores_used": os.cpu_count()}})


if __name__ == "__main__":
    main()
