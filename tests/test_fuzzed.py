"""A few files of each kind that somebody else might have made: every question ends as it ought to.

``EDGETL_FUZZED`` asks for more of each; ``benchmarks/fuzz.py`` goes on for as long as it is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzzing.doors import Door, doors
from tests.fuzzing.endings import DeviceEnd, objection

EACH = int(os.environ.get("EDGETL_FUZZED", "6"))


@pytest.fixture(scope="module")
def every_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Door]]:
    work = tmp_path_factory.mktemp("fuzzed")
    end = DeviceEnd(work / "device")
    yield doors(work, end)
    end.close()


def test_what_is_well_is_taken(every_door: list[Door]) -> None:
    """Otherwise the refusals below would say nothing."""
    for door in every_door:
        for name, ask in door.asks.items():
            ended = ask(door.enter(door.original))
            assert not objection(ended), f"{door.name}, {name}: {objection(ended)}"
            # A made-up run has no weights, a command line that trains nothing no backbone.
            assert not ended.refused or name in ("export", "finetune"), f"{door.name}, {name}: {ended.err}"


def test_what_is_not_well_ends_in_one_line(every_door: list[Door]) -> None:
    for door in every_door:
        _check(door)


def _check(door: Door) -> None:
    @seed(11)
    @settings(
        max_examples=EACH, database=None, deadline=None, derandomize=False, suppress_health_check=list(HealthCheck)
    )
    @given(content=door.contents(door.original), asked=st.sampled_from(sorted(door.asks)))
    def ends_well(content: bytes, asked: str) -> None:
        ended = door.asks[asked](door.enter(content))
        # A runtime that crashes on a model is ended, and the device's end with it: whoever asked says so in one line.
        assert (door.native and ended.status < 0) or not objection(ended), f"{door.name}, {asked}: {objection(ended)}"

    ends_well()
