"""Files that somebody else might have made, for as long as it is told: how many questions, and how each ended.

    python benchmarks/fuzz.py [--minutes 30] [--seed 0] [--only WORDS] [--on DEVICE] [--failures DIR] [--out FILE]

Each turn takes the next kind of file (``tests/fuzzing/doors.py``), draws a content that is a little wrong, puts it
where it belongs with every hash that speaks of it set right, and asks one of the questions that read it: the command
line, a function of edgetl's, or the device runtime, which is the share of edgetl that goes to devices in a Python that
can import nothing but what a device has, or that of an emulated device (``--on``). An ending is well if it is done, or
bad input told in one line of printable characters with status 2. What is not is kept in ``--failures``, once for each
file, question and complaint.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.base.extras import version
from edgetl.base.storage import write_json
from edgetl.devices import find_device
from edgetl.devices.emulated import EmulatedDevice
from edgetl.devices.rootfs import emulated_environment, emulated_python, read_marker
from edgetl.runtime.machine import machine
from tests.fuzzing.doors import Door, doors
from tests.fuzzing.endings import DeviceEnd, objection

#: Contents of one kind of file that are drawn before the next kind's turn.
TURN = 40


class Found:
    """What came of all questions."""

    def __init__(self, failures: Path | None) -> None:
        self.endings: dict[str, Counter[str]] = {}
        self.failures: dict[str, str] = {}
        self.slowest: tuple[float, str] = (0.0, "")
        self.kept = failures

    def add(self, door: Door, asked: str, content: bytes) -> None:
        """Ask, and count how it ended."""
        began = time.perf_counter()
        ended = door.asks[asked](door.enter(content))
        took = time.perf_counter() - began
        where, said = f"{door.name}: {asked}", objection(ended)
        crashed = door.native and ended.status < 0
        how = "the runtime crashed" if crashed else "not well" if said else "refused" if ended.refused else "done"
        self.endings.setdefault(where, Counter())[how] += 1
        self.slowest = max(self.slowest, (took, where))
        key = f"{where}: {re.sub(r'[0-9]+|/[^ ]*', '…', said)[:160]}"
        if how == "not well" and key not in self.failures:
            self.failures[key] = said
            print(f"{key}\n    {said}", file=sys.stderr, flush=True)
            if self.kept is not None:
                self.kept.mkdir(parents=True, exist_ok=True)
                (self.kept / f"{len(self.failures):03d}").write_bytes(content)

    def record(self) -> dict[str, Any]:
        """As plain JSON values."""
        total = Counter[str]()
        for counted in self.endings.values():
            total += counted
        return {
            "executions": sum(total.values()),
            "ended": dict(total),
            "by_question": {where: dict(counted) for where, counted in sorted(self.endings.items())},
            "failures": self.failures,
            "slowest": {"seconds": round(self.slowest[0], 2), "question": self.slowest[1]},
        }


def turn(door: Door, number: int, found: Found) -> None:
    """Draw some contents of one kind of file."""

    @seed(number)
    @settings(
        max_examples=TURN,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(content=door.contents(door.original), asked=st.sampled_from(sorted(door.asks)))
    def asked_of(content: bytes, asked: str) -> None:
        found.add(door, asked, content)

    asked_of()


def device_end(folder: Path, name: str) -> DeviceEnd:
    """The device runtime: of an emulated device, or in a Python of this machine that has only what a device has."""
    if not name:
        return DeviceEnd(folder)
    device = find_device(name)
    assert isinstance(device, EmulatedDevice), f"{name} is not emulated"
    marker = read_marker(device.root)
    python = emulated_python(device.root, marker["cpu"], marker["python"])
    return DeviceEnd(folder, tuple(python), emulated_environment())


def fuzz(minutes: float, first: int, only: str, on: str, found: Found) -> None:
    """Take the kinds of files in turn until the time is over."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        end = device_end(work / "device", on)
        taken = [door for door in doors(work, end) if only in door.name]
        number, stop = first, time.monotonic() + 60 * minutes
        while time.monotonic() < stop:
            for door in taken:
                if time.monotonic() < stop:
                    turn(door, number, found)
            number += 1
        end.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--on", default="", metavar="DEVICE")
    parser.add_argument("--failures", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "fuzz.json")
    options = parser.parse_args()
    logging.disable()
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    found = Found(options.failures)
    fuzz(options.minutes, options.seed, options.only, options.on, found)
    about = {name: machine()[name] for name in ("cpu_model", "cores", "arch")}
    versions = {"python": sys.version.split()[0], "hypothesis": version("hypothesis"), "PIL": version("PIL")}
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    facts = {
        "device_runtime": options.on or "this machine's",
        "seconds": round(time.perf_counter() - began, 1),
        "seed": options.seed,
        "peak_mb": peak,
    }
    write_json(options.out, {**found.record(), **facts, "machine": about, "versions": versions})
    print(json.dumps(found.record()["ended"]))


if __name__ == "__main__":
    main()
