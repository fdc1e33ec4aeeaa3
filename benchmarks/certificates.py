"""Certificates of EfficientNet-Lite0 with ImageNet weights, and of a copy that is hostile to 8-bit numbers.

    EDGETL_TEST_DATA=DATA python benchmarks/certificates.py [--work DIR] [--out FILE] [--arm DEVICE] [--only PART]

Parts: ``honest`` (x86-generic and intel-cpu on 700 images), ``arm`` (arm64-generic on the same 700, on an emulated
device made with ``edgetl devices create DEVICE --arch arm64``), ``hostile`` (default export, then with repair).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.models import hostile_run, imagenet_run
from edgetl import pipeline
from edgetl.base.schema import to_json
from edgetl.base.storage import read_json, write_json
from edgetl.compress.layers.attribution import responsible
from edgetl.core.bundle import load_bundle
from edgetl.core.manifest import Manifest
from edgetl.core.run import Run
from edgetl.runtime.machine import machine

STAGES = (1, 2, 3, 4)


def told(task: str, done: int, total: int, detail: str = "") -> None:
    """Progress on standard error, one line for each task."""
    if done == 0:
        print(task, file=sys.stderr, flush=True)


def row(certificate: Any, **more: Any) -> dict[str, Any]:
    """What the table shows of a certificate."""
    names = ("verdict", "n", "n_needed", "reference_accuracy", "deployed_accuracy", "difference", "ci_low", "ci_high",
             "first_divergence", "executed", "runtime", "isa", "precision")  # fmt: skip
    rungs = [[r.name, r.accuracy, r.agreement] for r in certificate.ladder]
    kinds = [finding.kind for finding in certificate.findings]
    return {**more, **{name: getattr(certificate, name) for name in names}, "ladder": rungs, "findings": kinds}


def honest(run: Run, work: Path) -> list[dict[str, Any]]:
    """Both targets that this machine executes."""
    done = pipeline.export(run, targets=["x86-generic", "intel-cpu"], out=work / "honest", bench=False, progress=told)
    return [row(d.certificate, target=d.bundle.target, repaired=_needed(d.bundle.manifest)) for d in done]


def arm(run: Run, work: Path, device: str) -> list[dict[str, Any]]:
    """64-bit Arm, under emulation."""
    (done,) = pipeline.export(run, targets=["arm64-generic"], out=work / "arm", bench=False, progress=told)
    there = pipeline.verify(done.bundle, device=device, progress=told)
    return [row(there, target="arm64-generic", repaired=_needed(done.bundle.manifest), device=device)]


def hostile(run: Run, work: Path) -> list[dict[str, Any]]:
    """The rescaled copy: as the recipe gives it, and mended."""
    bad, touched = hostile_run(run, work / "hostile-run", STAGES)
    rows = []
    for name, repair in (("default", False), ("repaired", True)):
        (done,) = pipeline.export(
            bad, targets=["x86-generic"], out=work / f"hostile-{name}", bench=True, repair=repair, progress=told
        )
        named = responsible(load_bundle(done.bundle.path).layers)
        right = sum(noise.module.removeprefix("backbone.") in touched for noise in named)
        more = {
            "target": "x86-generic", "export": name, "named": [n.module for n in named], "named_right": right,
            "rescaled": sorted(touched), "repair": to_json(done.bundle.manifest.repair),
            "integer_macs": done.bench and done.bench.deployed.integer_macs,
            "p50_ms": done.bench and done.bench.deployed.p50_ms,
        }  # fmt: skip
        rows.append(row(done.certificate, **more))
    return rows


def _needed(manifest: Manifest) -> bool:
    return bool(manifest.repair and manifest.repair.needed)


def main() -> None:
    """Run the parts asked for and add them to the file of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "edgetl-certificates")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "certificates.json")
    parser.add_argument("--arm", default="pi", help="name of the emulated device")
    parser.add_argument("--only", choices=("honest", "arm", "hostile"))
    chosen = parser.parse_args()
    data = Path(os.environ["EDGETL_TEST_DATA"]) / "imagenet-sample"
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "honest": lambda: honest(imagenet_run(data, chosen.work / "run", 700), chosen.work),
        "arm": lambda: arm(imagenet_run(data, chosen.work / "run", 700), chosen.work, chosen.arm),
        "hostile": lambda: hostile(imagenet_run(data, chosen.work / "run", 700), chosen.work),
    }
    results = read_json(chosen.out) if chosen.out.is_file() else {}
    for name, part in parts.items():
        if chosen.only in (None, name):
            results[name] = part()
            write_json(chosen.out, {**results, "machine": machine()})
    for rows in results.values():
        for line in rows if isinstance(rows, list) else ():
            print({k: v for k, v in line.items() if k not in ("repair", "rescaled", "ladder")})


if __name__ == "__main__":
    main()
