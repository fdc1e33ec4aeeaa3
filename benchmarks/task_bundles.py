"""What int8 does to texts, arrays, several labels and numbers: certificates, times and sizes of whole bundles.

    python -m benchmarks.task_bundles [RUN …] --runs FOLDER [--arm DEVICE] [--out FILE]

RUN names a folder that ``task_transfer.py`` left in FOLDER, such as ``sst2-fine-tune``; all of ``CASES`` by default.
Each is exported for x86-generic and intel-cpu and certified and timed here; ``--arm`` also makes arm64-generic and
certifies it on a device made with ``edgetl devices create DEVICE --arch arm64``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.certificates import told
from edgetl import pipeline
from edgetl.base.extras import version
from edgetl.base.schema import to_json
from edgetl.base.storage import read_json, write_json
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.certificate import Certificate
from edgetl.runtime.machine import machine
from edgetl.workflow.exported import Exported

RESULT = Path(__file__).parent / "results" / "task_bundles.json"
HOST_TARGETS = ("x86-generic", "intel-cpu")
CASES = (
    "sst2-fine-tune",
    "trec-fine-tune",
    "breast-cancer-linear-probe",
    "diabetes-linear-probe",
    "spoken-mlp-fine-tune",
    "spoken-cnn-fine-tune",
    "digits-several-fine-tune",
    "red-cells-fine-tune",
)
OF_CERTIFICATE = (
    "task", "metric", "verdict", "margin", "n", "n_needed", "reference_score", "deployed_score", "difference",
    "ci_low", "ci_high", "flips", "executed", "runtime", "isa", "precision", "first_divergence", "reasons",
)  # fmt: skip


def bundle_row(bundle: Bundle, certificate: Certificate) -> dict[str, Any]:
    """What a certificate says and what its bundle is made of."""
    manifest = bundle.manifest
    return {
        **{name: to_json(getattr(certificate, name)) for name in OF_CERTIFICATE},
        "scores": {name: to_json(score) for name, score in certificate.scores.items()},
        "ladder": [[rung.name, rung.score] for rung in certificate.ladder],
        "findings": [finding.kind for finding in certificate.findings],
        "repaired_by": manifest.repair.chosen if manifest.repair and manifest.repair.needed else None,
        "recipe": manifest.quantization and (manifest.quantization.recipe or {}).get("name"),
        "bytes": bundle.artifact().size_bytes,
        "float_bytes": bundle.artifact("float").size_bytes,
    }


def timed_row(done: Exported) -> dict[str, Any]:
    """The same with the times of the artifact and its float twin, where they were taken."""
    row = bundle_row(done.bundle, done.certificate)
    if done.bench is None:
        return row
    twin = done.bench.twin
    return {
        **row,
        "p50_ms": done.bench.deployed.p50_ms,
        "float_p50_ms": twin and twin.p50_ms,
        "speedup": to_json(done.bench.speedup),
        "threads": done.bench.deployed.threads,
        "integer_macs": done.bench.deployed.integer_macs,
        "disturbed": list(done.bench.disturbance.reasons) if done.bench.disturbance else None,
    }


def host_rows(run: Path, out: Path, targets: Sequence[str] = HOST_TARGETS) -> dict[str, Any]:
    """Both targets that an x86-64 machine executes."""
    done = pipeline.export(run, targets=targets, out=out, progress=told)
    return {item.bundle.target: timed_row(item) for item in done}


def arm_rows(run: Path, out: Path, device: str) -> dict[str, Any]:
    """64-bit Arm under emulation: an answer for each sample, no time."""
    (done,) = pipeline.export(run, targets=["arm64-generic"], out=out, bench=False, progress=told)
    began = time.monotonic()
    certificate = pipeline.verify(done.bundle, device=device, progress=told)
    row = bundle_row(load_bundle(done.bundle.path), certificate)
    return {"arm64-generic": {**row, "seconds": round(time.monotonic() - began)}}


def measured(run: Path, out: Path, device: str | None) -> dict[str, Any]:
    """One run on every target."""
    rows = host_rows(run, out)
    return rows if device is None else {**rows, **arm_rows(run, out, device)}


def main() -> None:
    """Measure what is asked for, beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="RUN")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--arm", help="name of an emulated device")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    for name in given.names or CASES:
        rows = measured(given.runs / name, given.runs / f"{name}-bundles", given.arm)
        held = read_json(given.out)["cases"] if given.out.is_file() else {}
        versions = {module: version(module) for module in ("edgetl", "onnxruntime", "openvino", "nncf")}
        cases = {**held, name: {**held.get(name, {}), **rows}}
        write_json(given.out, {"machine": machine(), "versions": versions, "cases": cases})


if __name__ == "__main__":
    main()
