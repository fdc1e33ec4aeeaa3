"""How a bundle is to be timed: one value that travels from the command line to the device."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Literal, get_args

from edgetl.base.errors import EdgetlError

#: As in MLPerf Inference: one query after another, several at once, or as many images a second as can be.
Scenario = Literal["single-stream", "multi-stream", "offline"]
#: Who asks the queries and holds the clock.
Harness = Literal["edgetl", "loadgen"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
HARNESSES: tuple[Harness, ...] = get_args(Harness)
#: A runtime that is told to start more brings the machine down.
MOST_THREADS = 1024


@dataclass(frozen=True)
class Plan:
    """How to time.

    Attributes:
        seconds: how long to measure; with ``until``, the longest.
        threads: worker threads of each session.
        until: stop once the interval of the deployed artifact's p90 is narrower than this share of it.
        scenario: what a query is.
        streams: sessions at work at once; None lets the device choose by its cores (always 1 in a single stream).
        harness: ``edgetl``, or MLPerf's LoadGen.

    Raises:
        EdgetlError: a value makes no sense, or does not go with another.
    """

    seconds: float = 10.0
    threads: int = 1
    until: float | None = None
    scenario: Scenario = "single-stream"
    streams: int | None = None
    harness: Harness = "edgetl"

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        for what, number in (("threads", self.threads), ("streams", self.streams or 1)):
            if number > MOST_THREADS:
                raise EdgetlError(f"{number} {what} are more than any device has", f"give at most {MOST_THREADS}")
        if not (0 <= self.seconds < math.inf and self.threads >= 1):
            raise EdgetlError(f"cannot time for {self.seconds} s with {self.threads} threads", "give positive numbers")
        if self.until is not None and not 0 < self.until < 1:
            raise EdgetlError(f"an interval of {self.until:%} of p90 is no goal", "give a share such as 2%")
        if self.scenario not in SCENARIOS or self.harness not in HARNESSES:
            known = f"scenarios: {', '.join(SCENARIOS)}; harnesses: {', '.join(HARNESSES)}"
            raise EdgetlError(f"there is no '{self.scenario}' timed by '{self.harness}'", f"choose among {known}")
        if self.streams is not None and self.streams < 1:
            raise EdgetlError(f"{self.streams} streams cannot work", "give a positive number")
        if self.scenario == "single-stream" and self.streams not in (None, 1):
            raise EdgetlError(f"a single stream is not {self.streams}", "add --scenario multi-stream, or offline")
        if self.harness == "loadgen" and (self.scenario == "multi-stream" or self.until is not None):
            raise EdgetlError(
                "LoadGen is run here for a fixed time, in a single stream or offline", "leave --until out, or --harness"
            )

    def options(self) -> list[str]:
        """As arguments of ``python -m edgetl.runtime bench``."""
        return [f"--{name}={value}" for name, value in vars(self).items() if value is not None]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what :meth:`Plan.options` writes, but for ``--threads``, which every verb has."""
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--until", type=float)
    parser.add_argument("--scenario", choices=SCENARIOS, default=SCENARIOS[0])
    parser.add_argument("--streams", type=int)
    parser.add_argument("--harness", choices=HARNESSES, default=HARNESSES[0])


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that parsed options name."""
    return Plan(
        seconds=options.seconds,
        threads=options.threads or 1,
        until=options.until,
        scenario=options.scenario,
        streams=options.streams,
        harness=options.harness,
    )
