"""What a device answers is not trusted: it may be broken, or somebody else's."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.base.errors import DeviceError
from edgetl.core.bundle import Bundle
from edgetl.devices import bench, install, predict, process, rollback, selftest
from edgetl.devices.local import LocalDevice
from edgetl.devices.process import run_watched


@dataclass(frozen=True)
class Answering(LocalDevice):
    """A device that answers what it likes."""

    outputs: Mapping[str, Any] = field(default_factory=dict)

    def call(self, arguments: Any, **options: Any) -> dict[str, Any]:
        return {"n": len(options["files"]), "outputs": dict(self.outputs)}


@pytest.mark.parametrize(
    "make",
    [
        lambda n, k: {},
        lambda n, k: {"logits": np.zeros((n, k + 1), np.float32)},
        lambda n, k: {"logits": np.zeros((n - 1, k), np.float32)},
        lambda n, k: {"logits": np.zeros((n, k), np.float64)},
        lambda n, k: {"logits": np.zeros((n, k, 1), np.float32)},
        lambda n, k: {"answers": np.zeros((n, k), np.float32)},
        lambda n, k: {"logits": np.zeros((n, k), np.float32), "more\nlines": np.zeros(n, np.float32)},
    ],
)
def test_other_outputs_than_the_bundles_are_refused(
    bundle: Bundle, jpegs: list[Path], make: Callable[[int, int], dict[str, Any]]
) -> None:
    device = Answering("odd", make(3, len(bundle.labels)))
    with pytest.raises(DeviceError, match=r"^odd gave .* instead of logits: float32 3x4") as caught:
        predict(device, bundle, jpegs[:3])
    assert "\n" not in str(caught.value)


def test_the_bundles_outputs_are_taken(bundle: Bundle, jpegs: list[Path]) -> None:
    logits = np.zeros((3, len(bundle.labels)), np.float32)
    assert predict(Answering("fine", {"logits": logits}), bundle, jpegs[:3])["logits"] is logits


@dataclass(frozen=True)
class Telling(LocalDevice):
    """A device that prints what it likes."""

    answer: Any = None

    def call(self, arguments: Any, **options: Any) -> Any:
        return self.answer


SELFTEST = {"passed": True, "max_difference": 0.1, "tolerance": 0.05, "n": 4}
INSTALLED = {"state": "deployed", "release": "a", "previous": None, "path": "/x", "selftest": SELFTEST}


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ({}, "state is missing"),
        ({**INSTALLED, "state": "moon"}, 'state is "moon", not one of'),
        ({**INSTALLED, "selftest": {**SELFTEST, "passed": "yes"}}, 'selftest.passed is "yes"'),
        ({**INSTALLED, "selftest": {**SELFTEST, "max_difference": float("nan")}}, "beyond all bounds"),
        ({**INSTALLED, "path": ["\x1b[2J"]}, "path is a list, not a string"),
        ([INSTALLED], "it is a list, not an object"),
    ],
)
def test_an_installation_that_is_none(bundle: Bundle, answer: Any, what: str) -> None:
    for ask in (lambda device: install(device, bundle, "camera"), lambda device: rollback(device, "camera")):
        with pytest.raises(DeviceError, match=re.escape(what)) as caught:
            ask(Telling("odd", answer))
        assert str(caught.value).startswith("the answer of odd: ")
        assert "\n" not in str(caught.value)


def test_a_self_test_or_a_measurement_that_is_none(bundle: Bundle) -> None:
    with pytest.raises(DeviceError, match="tolerance is missing"):
        selftest(Telling("odd", {"passed": True, "max_difference": 0}), bundle)
    with pytest.raises(DeviceError, match="samples_ms is missing"):
        bench(Telling("odd", {"threads": 1}), bundle)
    assert selftest(Telling("fine", SELFTEST), bundle).n == 4


@pytest.mark.parametrize("answer", [{"packages": []}, {"cores": "two"}, {"sensors": {"power": [{}]}}, "facts"])
def test_a_probe_never_raises(answer: Any) -> None:
    found = Telling("odd", answer).probe()
    assert not found.reachable
    assert found.reason.startswith("the answer of odd: ")


@pytest.mark.parametrize("breaks", ["\\n", ""])
def test_what_writes_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch, breaks: str) -> None:
    monkeypatch.setattr(process, "MOST_BYTES", 1 << 20)
    endless = f"import sys\nwhile True: sys.stdout.write('x' * 999 + '{breaks}')"
    with pytest.raises(DeviceError, match="wrote more than 1048576 bytes and was killed"):
        run_watched([sys.executable, "-c", endless])


def test_an_endless_line_of_complaint_is_kept_in_part() -> None:
    done = run_watched([sys.executable, "-c", "import sys; sys.stderr.write('x' * 50_000_000)"])
    assert len(done.stderr) < 20_000_000
