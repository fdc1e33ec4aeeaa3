"""A bundle deployed to fifty devices at once, fifteen of which are sick.

    python benchmarks/fleet_fifty.py BUNDLE [--jobs 8] [--timeout 60] [--out FILE]

Every device is a real sshd on a port of this machine, with a host key and a home of its own. Five are dead (nobody
listens), three accept and never answer, two hang in the middle (their ONNX Runtime never finishes its import), and the
homes of five are file systems too small for the bundle. Afterwards each home is searched for processes that still run
and for anything that is not whole. Needs root, for the small file systems; times are told for information only.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.base.extras import version
from edgetl.base.progress import Progress
from edgetl.base.storage import write_json
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.devices import add_device
from edgetl.devices.payload import payload
from edgetl.reporting.console import console_progress
from edgetl.runtime.machine import machine
from edgetl.workflow import fleet
from tests.devices.real_sshd import (
    free_ports,
    hanging_python,
    running_in,
    running_sshd,
    silent_port,
    small_disk,
    wait_for,
)

CONDITIONS = {"healthy": 35, "dead": 5, "silent": 3, "hangs": 2, "full": 5}
RESULTS = Path(__file__).parent / "results" / "fleet_fifty.json"


@dataclass(frozen=True)
class Patient:
    """A device of the fleet: what it suffers from, and its home where it has one."""

    name: str
    condition: str
    home: Path | None


def fleet_of_fifty(bundle: Bundle, work: Path, stack: ExitStack) -> list[Patient]:
    """Start and add every device, in a mixed order."""
    sent = sum(len(data) for data in payload().values())
    room = sent + sum(entry.bytes for entry in bundle.manifest.files.values()) // 2
    hangs, _ = hanging_python(work / "hanging")
    dead = iter(free_ports(CONDITIONS["dead"]))
    patients = []
    for condition, count in CONDITIONS.items():
        for index in range(count):
            name, folder = f"{condition}-{index:02d}", work / f"{condition}-{index:02d}"
            if condition in ("dead", "silent"):
                port = next(dead) if condition == "dead" else stack.enter_context(silent_port())
                add_device(name, f"ssh://127.0.0.1:{port}")
                patients.append(Patient(name, condition, None))
                continue
            home = folder / "home"
            home.mkdir(parents=True)
            if condition == "full":
                stack.enter_context(small_disk(home, room))
            server = stack.enter_context(running_sshd(folder, home))
            config = server.client("client")
            add_device(name, server.url(config, str(hangs)) if condition == "hangs" else server.url(config))
            patients.append(Patient(name, condition, home))
    random.Random(50).shuffle(patients)
    return patients


def left_behind(bundle: Bundle, patient: Patient) -> dict[str, Any]:
    """What still runs in a home, and what lies there that is not whole; whether the bundle is in charge."""
    home = patient.home
    if home is None:
        return {"processes": 0, "unfinished": 0, "in_charge": False}
    wait_for(lambda: not running_in(home), 10)
    place = home / ".local/share/edgetl"
    current = place / bundle.target / "current"
    in_charge = current.exists() and load_bundle(current).digest == bundle.digest
    scratch = list((home / ".cache/edgetl/calls").glob("*")) + list(home.rglob(".partial*"))
    unfinished = [] if in_charge else [p for p in place.glob("*") if p.is_dir()]
    return {"processes": len(running_in(home)), "unfinished": len(scratch + unfinished), "in_charge": in_charge}


def measure(bundle: Bundle, jobs: int, timeout: float, progress: Progress) -> dict[str, Any]:
    """Deploy to all; the table of outcomes."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, ExitStack() as stack:
        work = Path(folder)
        os.environ["EDGETL_HOME"] = str(work / "edgetl-home")
        patients = fleet_of_fifty(bundle, work, stack)
        began = time.monotonic()
        names = [patient.name for patient in patients]
        outcomes = fleet.deploy(bundle, names, force=True, jobs=jobs, timeout=timeout, progress=progress)
        seconds = time.monotonic() - began
        rows = [
            {
                "device": patient.name,
                "condition": patient.condition,
                "state": outcome.state,
                "reason": outcome.reason.replace(folder, "FOLDER").replace(str(bundle.path), "BUNDLE"),
                "seconds": round(outcome.seconds, 2),
                **left_behind(bundle, patient),
            }
            for patient, outcome in zip(patients, outcomes, strict=True)
        ]
    return {"seconds": round(seconds, 1), "devices": sorted(rows, key=lambda row: str(row["device"]))}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """For each condition: how many, in which states they ended, what was left."""
    return {
        condition: {
            "devices": sum(row["condition"] == condition for row in rows),
            "deployed": sum(row["condition"] == condition and row["state"] == "deployed" for row in rows),
            "with_a_reason": sum(row["condition"] == condition and bool(row["reason"]) for row in rows),
            "processes_left": sum(row["processes"] for row in rows if row["condition"] == condition),
            "unfinished_left": sum(row["unfinished"] for row in rows if row["condition"] == condition),
            "slowest_seconds": max(row["seconds"] for row in rows if row["condition"] == condition),
        }
        for condition in CONDITIONS
    }


def main() -> None:
    """Run it once and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="made by edgetl export, for this machine")
    parser.add_argument("--jobs", type=int, default=fleet.JOBS)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    with console_progress() as progress:
        found = measure(bundle, options.jobs, options.timeout, progress)
    about = {
        "bundle": {
            "target": bundle.target,
            "precision": bundle.precision,
            "bytes": sum(entry.bytes for entry in bundle.manifest.files.values()),
        },
        "jobs": options.jobs,
        "timeout_seconds": options.timeout,
        "machine": machine(),
        "onnxruntime": version("onnxruntime"),
    }
    table = summary(found["devices"])
    write_json(options.out, {**about, "summary": table, **found})
    for condition, row in table.items():
        print(f"{condition:8}", *(f"{key}={value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
