"""Several things at once give what one after another gives."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from edgetl.base.parallel import in_order


def test_results_come_in_the_order_of_items() -> None:
    def slow(number: int) -> int:
        time.sleep(0.001 * (7 - number % 7))
        return number * number

    assert list(in_order([slow] * 3, range(40))) == [number * number for number in range(40)]
    assert list(in_order([slow], [])) == []


def test_a_worker_has_one_item_at_a_time() -> None:
    busy = [threading.Lock(), threading.Lock()]

    def worker(lock: threading.Lock) -> object:
        def work(number: int) -> int:
            assert lock.acquire(blocking=False)
            time.sleep(0.001)
            lock.release()
            return number

        return work

    assert list(in_order([worker(lock) for lock in busy], range(50), waiting=8)) == list(range(50))  # type: ignore[misc]


def test_no_more_items_are_held_than_was_said() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(30):
            read.append(number)
            yield number

    for done in in_order([lambda number: number] * 2, items(), waiting=5):
        assert len(read) <= done + 6


def test_an_error_comes_at_its_turn_and_ends_the_rest() -> None:
    tried = []

    def work(number: int) -> int:
        tried.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    results = in_order([work] * 2, range(1000))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(tried) < 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgetl_")]
