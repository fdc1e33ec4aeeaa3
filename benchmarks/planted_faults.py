"""Seventeen faults planted in exported bundles, and honest exports that must raise no alarm.

    python benchmarks/planted_faults.py --run digits=RUN --run magnetic-tile=RUN [--target T …] [--honest 20]
        [--data magnetic-tile=FOLDER] [--work DIR] [--out FILE]

Every fault is planted for real (tests/diagnosis/faults.py), diagnosed, and named; another run's bundle lends its
ranges. Honest exports are linear probes with a seed each, for the targets in turn. Results are added to FILE part by
part, so that parts can be made one after another.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl import finetune, pipeline
from edgetl.base.storage import read_json, write_json
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.run import Run, load_run
from edgetl.diagnosis import diagnose
from edgetl.inputs import preprocess_of
from edgetl.runtime.machine import machine
from edgetl.transfer.model import load_model
from tests.diagnosis.catalogue import Fault, planted
from tests.diagnosis.healthy import healthy_bundle, observed

TARGETS = ("x86-generic", "intel-cpu", "jetson-orin-nano")
CERTIFIED = 40
SIZES = {"digits": 64, "magnetic-tile": 96}


def bundles(runs: Mapping[str, Run], targets: Sequence[str], work: Path) -> dict[tuple[str, str], Bundle]:
    """A healthy bundle for each run and target, made if it is not there yet."""
    made = {}
    for name, run in runs.items():
        model = load_model(run)
        for target in targets:
            folder = work / f"{name}-{target}"
            there = (folder / "manifest.json").is_file()
            made[name, target] = (
                load_bundle(folder) if there else healthy_bundle(model, run.dataset, preprocess_of(run), target, folder)
            )
    return made


def caught(fault: Fault, healthy: Bundle, work: Path) -> dict[str, Any]:
    """Plant and diagnose one fault."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        faulty, deployed = fault.plant(Path(folder) / "faulty")
        seen = observed(faulty, healthy, deployed, most=CERTIFIED)
        started = time.perf_counter()
        findings = diagnose(faulty, seen, root=healthy.dataset.root)
    kinds = [finding.kind for finding in findings]
    # On grey pictures a runner that swaps red and blue gives the very answers of one that does not.
    harmless = (
        deployed is not None
        and not kinds
        and np.array_equal(deployed, observed(healthy, healthy, most=CERTIFIED).logits["deployed"])
    )
    return {
        "number": fault.number,
        "fault": fault.name,
        "expected": fault.kind,
        "found": kinds,
        "right": kinds == [fault.kind],
        "caught": fault.kind in kinds,
        "harmless": harmless,
        "seconds": round(time.perf_counter() - started, 1),
        "what": [finding.what for finding in findings],
    }


def unharmed(healthy: Bundle) -> dict[str, Any]:
    """Diagnose the bundle as it is."""
    seen = observed(healthy, healthy, most=CERTIFIED)
    started = time.perf_counter()
    kinds = [finding.kind for finding in diagnose(healthy, seen, root=healthy.dataset.root)]
    told = {"number": 0, "fault": "none", "expected": "", "harmless": False, "what": []}
    seconds = round(time.perf_counter() - started, 1)
    return {**told, "found": kinds, "right": not kinds, "caught": not kinds, "seconds": seconds}


def plant_all(runs: Mapping[str, Run], targets: Sequence[str], work: Path) -> list[dict[str, Any]]:
    """Every fault in every bundle."""
    made = bundles(runs, targets, work)
    rows = []
    for (name, target), healthy in made.items():
        other = next(bundle for key, bundle in made.items() if key[1] == target and key[0] != name)
        rows.append({"data": name, "target": target, **unharmed(healthy)})
        shown(rows[-1])
        for fault in planted(healthy, other, load_model(runs[name]), CERTIFIED):
            rows.append({"data": name, "target": target, **caught(fault, healthy, work)})
            shown(rows[-1])
    return rows


def shown(row: Mapping[str, Any]) -> None:
    """One line of the table."""
    mark = "ok   " if row["right"] else "named" if row["caught"] else "equal" if row["harmless"] else "MISS "
    fault = f"{row['number']:>3} {row['fault']:<36}"
    kinds = f"{', '.join(row['found']):<40}{row['seconds']:>6.1f} s"
    print(f"{mark} {row['data']:<14}{row['target']:<18}{fault}{kinds}", flush=True)


def honest(data: Mapping[str, str], targets: Sequence[str], count: int, work: Path) -> Iterator[dict[str, Any]]:
    """Linear probes, each with a seed of its own, exported and verified by the pipeline."""
    for number in range(count):
        name = list(data)[number % len(data)]
        target = targets[number // len(data) % len(targets)]
        out, size = work / f"probe-{name}-{number}", SIZES.get(name, 96)
        run = finetune(data[name], out, strategy="linear-probe", image_size=size, seed=number)
        (done,) = pipeline.export(run, targets=[target], out=work / f"honest-{number}", bench=False)
        kinds = [f.kind for f in done.certificate.findings]
        repair, certificate = done.bundle.manifest.repair, done.certificate
        mended = repair.chosen if repair and repair.needed else "not needed"
        told = f"{', '.join(kinds) or 'no alarm'}; {certificate.verdict}; repair: {mended}"
        print(f"{name:<14}{target:<18} seed {number:>2}: {told}", flush=True)
        yield {
            "data": name, "target": target, "seed": number, "found": kinds, "verdict": certificate.verdict,
            "difference": certificate.difference, "n": certificate.n, "repair": mended,
        }  # fmt: skip


def pairs(values: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE arguments."""
    return {name: value for name, _, value in (text.partition("=") for text in values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", action="append", default=[], help="NAME=RUN: finished runs to plant faults in, two at least"
    )
    parser.add_argument("--data", action="append", default=[], help="NAME=DATA: for the honest exports")
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--honest", type=int, default=0, help="how many honest exports")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "planted-faults")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "planted_faults.json")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    targets = chosen.target or list(TARGETS)
    done: dict[str, Any] = read_json(chosen.out) if chosen.out.is_file() else {"planted": [], "honest": []}
    if chosen.run:
        runs = {name: load_run(path) for name, path in pairs(chosen.run).items()}
        fresh = plant_all(runs, targets, chosen.work)
        kept = [row for row in done["planted"] if row["target"] not in targets or row["data"] not in runs]
        done["planted"] = kept + fresh
        write(chosen.out, done)
    if chosen.honest:
        done["honest"] = []
        for row in honest(pairs(chosen.data) or {"digits": "digits"}, targets, chosen.honest, chosen.work):
            done["honest"].append(row)
            write(chosen.out, done)


def write(out: Path, done: dict[str, Any]) -> None:
    """Write all rows and what they come to."""
    faulty = [row for row in done["planted"] if row["number"] and not row["harmless"]]
    alarms = [row for row in (*done["honest"], *(r for r in done["planted"] if not r["number"])) if row["found"]]
    done["summary"] = {
        "planted": len(faulty),
        "right": sum(row["right"] for row in faulty),
        "caught": sum(row["caught"] for row in faulty),
        "without_effect": sum(row["harmless"] for row in done["planted"]),
        "honest_exports": len(done["honest"]),
        "false_alarms": len(alarms),
    }
    write_json(out, {**done, "machine": {**machine(), "cores_used": os.cpu_count()}})
    print(done["summary"])


if __name__ == "__main__":
    main()
