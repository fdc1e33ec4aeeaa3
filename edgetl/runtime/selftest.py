"""Golden vectors: does this machine read samples, compute and name answers as the machine did that made the bundle?

in.NAME, out.NAME    a few samples as the network's inputs, (n, …), and the outputs that the artifact gave for them
answers              what those outputs mean, in the words of ``labels.json``, text (n,); where answers have labels
probe                the bytes of a made-up sample file, uint8; ``probe_suffix`` is the ending of its name
probe.NAME           the network's inputs for it, (1, …)
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BundleError, DataError
from edgetl.base.wording import percent
from edgetl.core.bundle import GOLDEN, Bundle
from edgetl.core.npz import NUMBERS, read_npz
from edgetl.core.tensors import Arrays, count, joined, rows
from edgetl.inputs import input_of
from edgetl.runtime.installed import SelfTest
from edgetl.runtime.predict import infer, open_role, output_specs, task_of
from edgetl.runtime.predictor import described
from edgetl.runtime.sessions import Session
from edgetl.tasks import Task

#: Of a file's name.
_ENDING = r"\.[A-Za-z0-9]{1,8}"
#: Largest share of an output's range by which a golden vector may differ from one machine to the next. Other
#: ISAs round integers differently: 1 to 2 % between x86-64 and aarch64 was measured.
GOLDEN_TOLERANCE = 0.05
#: Largest mean difference of the probe's inputs, as a share of their range: decoders of JPEG differ by a level
#: of 256; another interpolation, crop or order of channels by far more. Whole numbers that are no pixels must be equal.
INPUT_TOLERANCE = 0.006
_IN, _OUT, _PROBE, _ANSWERS = "in.", "out.", "probe.", "answers"
_FILE, _SUFFIX = "probe", "probe_suffix"
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Golden:
    """What ``golden.npz`` holds.

    Attributes:
        feeds: of each sample, first axes of 1.
        outputs: that are expected for them, (n, …).
        answers: that are expected, one for each sample; none where nobody wrote them down.
        file, suffix: of the probe; no bytes where there is none.
        probe: inputs that are expected for it.
    """

    feeds: tuple[Arrays, ...]
    outputs: Arrays
    answers: tuple[str, ...] = ()
    file: bytes = b""
    suffix: str = ""
    probe: Arrays = field(default_factory=dict)


def golden(
    named: tuple[Task, Sequence[str]], feeds: Arrays, outputs: Arrays, probe: tuple[str, bytes, Arrays] | None = None
) -> dict[str, Any]:
    """What golden.npz holds, by key, of n samples and the network's outputs for them.

    Args:
        named: the task and the labels that name the answers.
        feeds, outputs: of the samples, (n, …).
        probe: ending, bytes and expected inputs of a made-up sample file.
    """
    held: dict[str, Any] = {f"{_IN}{name}": value for name, value in feeds.items()}
    held |= {f"{_OUT}{name}": value for name, value in outputs.items()}
    if answers := _answers(*named, outputs):
        held[_ANSWERS] = np.array(answers)
    if probe is not None:
        suffix, content, inputs = probe
        held |= {_FILE: np.frombuffer(content, np.uint8), _SUFFIX: np.array(suffix)}
        held |= {f"{_PROBE}{name}": value for name, value in inputs.items()}
    return held


def read_golden(bundle: Bundle, name: str = GOLDEN) -> Golden:
    """A bundle's golden vectors.

    Args:
        bundle: opened and checked.
        name: of the file.

    Raises:
        BundleError: it has none, or they would unpack to more than is allowed, or are malformed.
    """
    file = bundle.file(name, "golden vectors")
    try:
        stored = read_npz(file)
    except OSError as error:
        raise BundleError(f"{bundle.path} has no golden vectors", "export it again") from error
    except ValueError as error:
        raise BundleError(f"{file} is refused: {error}", "export the bundle again") from error
    inputs, outputs, probe = (
        {key.removeprefix(kind): values for key, values in stored.items() if key.startswith(kind)}
        for kind in (_IN, _OUT, _PROBE)
    )
    answers = stored.get(_ANSWERS, np.empty(0, "<U1"))
    numbers = (*inputs.values(), *outputs.values())
    whole = all(values.ndim and values.dtype.kind in NUMBERS for values in numbers)
    whole = whole and all(values.dtype != np.bool_ for values in outputs.values())
    columns = (*numbers, *([answers] if answers.size else []))
    if not inputs or not outputs or not whole or len({len(np.atleast_1d(values)) for values in columns}) != 1:
        raise BundleError(f"{file} holds no golden vectors that this edgetl reads", "export the bundle again")
    samples = tuple(rows(inputs, slice(row, row + 1)) for row in range(count(inputs)))
    words = tuple(map(str, np.atleast_1d(answers).tolist()))
    content = stored.get(_FILE, np.empty(0, np.uint8)).tobytes()
    return Golden(samples, outputs, words, content, str(stored.get(_SUFFIX, "")), probe)


def selftest(
    bundle: Bundle, *, threads: int | None = None, simulated: bool = False, session: Session | None = None
) -> SelfTest:
    """Does this machine read the probe, compute the golden outputs, and name the answers, as is expected?

    Args:
        bundle: opened and checked.
        threads, simulated: of the session that is opened for it.
        session: of the deployed artifact, which stays open; tested in the stead of a new one.

    Raises:
        BundleError: the bundle has no golden vectors, or they are another network's.
    """
    known = read_golden(bundle)
    opened = closing(open_role(bundle, "deployed", threads, simulated)) if session is None else nullcontext(session)
    with opened as used:
        found = joined([infer(used, sample) for sample in known.feeds])
    shapes = [{name: x.shape for name, x in outputs.items()} for outputs in (known.outputs, found)]
    if shapes[0] != shapes[1]:
        raise BundleError(f"{bundle.path} has golden vectors of another network", "export it again")
    difference, agreement, reading = _difference(known.outputs, found), _agreement(bundle, known, found), None
    problems = [*_numbers(difference), *_names(bundle, found, agreement)]
    if known.file and known.probe:
        try:
            reading = _reading(bundle, known)
        except DataError as error:
            problems.append(f"the probe cannot be read ({error.what})")
        else:
            problems += _preprocessing(reading)
    return SelfTest(
        passed=not problems,
        max_difference=difference if math.isfinite(difference) else None,
        tolerance=GOLDEN_TOLERANCE,
        n=len(known.feeds),
        agreement=agreement,
        input_difference=reading if reading is not None and math.isfinite(reading) else None,
        problems=tuple(problems),
    )


def _difference(expected: Arrays, found: Arrays) -> float:
    """The greatest of all outputs, as a share of an output's range."""
    shares = [
        float(np.abs(found[name] - x).max()) / (float(np.ptp(x)) or 1.0) for name, x in expected.items() if x.size
    ]
    # NaN passes no test, and max() would drop it behind a number.
    return float(np.max(shares, initial=0.0))


def _numbers(difference: float) -> Iterator[str]:
    if not math.isfinite(difference):
        yield "the answers to the golden samples are no numbers"
    elif difference > GOLDEN_TOLERANCE:
        share = f"{percent(difference, 1)} of their range, more than {percent(GOLDEN_TOLERANCE, 0)}"
        yield f"the golden outputs differ by {share}"


def _names(bundle: Bundle, found: Arrays, agreement: float | None) -> Iterator[str]:
    """Whether labels fit the outputs, and name the answers as they did."""
    unfit = [spec for spec in output_specs(bundle) if spec.name not in found or not spec.accepts(found[spec.name])]
    if unfit:
        got = ", ".join(f"{name} {'x'.join(map(str, values.shape))}" for name, values in found.items())
        yield f"the network gives {got}, and {len(bundle.labels)} labels take {unfit[0]}"
    elif agreement is not None and agreement < 1:
        yield f"only {percent(agreement, 0)} of the clear golden answers have the label that they should have"


def _answers(task: Task, labels: Sequence[str], outputs: Arrays) -> tuple[str, ...]:
    """The labels of each sample, in one text; none where answers have no labels, or these do not fit."""
    if task.labels == "number" or not all(
        spec.name in outputs and spec.accepts(outputs[spec.name]) for spec in task.outputs(labels)
    ):
        return ()
    answers = described(task, labels, outputs, top=1)
    return tuple("\n".join(sorted(label.label for label in answer.labels)) for answer in answers)


def _agreement(bundle: Bundle, known: Golden, found: Arrays) -> float | None:
    """Share of the golden samples that get the label that they should: of those whose answer no tolerance can turn."""
    task = task_of(bundle)
    answers = _answers(task, bundle.labels, found) if known.answers else ()
    values = next(iter(known.outputs.values()))
    if not answers or values.ndim != 2 or values.shape[1] < 2:
        return None
    ordered = np.sort(values, axis=1)
    of_one = task.labels == "class"
    lead = ordered[:, -1] - ordered[:, -2] if of_one else np.abs(values).min(axis=1)
    clear = lead > GOLDEN_TOLERANCE * float(np.ptp(values))
    pairs: Sequence[tuple[str, str]] = list(zip(known.answers, answers, strict=True))
    equal = np.array([first == second for first, second in pairs])
    return float(equal[clear].mean()) if clear.any() else None


def _reading(bundle: Bundle, known: Golden) -> float:
    """The greatest mean difference of the probe's inputs from the expected ones, as a share of their range.

    Raises:
        DataError: it cannot be read here.
    """
    with tempfile.TemporaryDirectory(prefix="edgetl-probe-") as folder:
        file = Path(folder) / f"probe{known.suffix if re.fullmatch(_ENDING, known.suffix) else ''}"
        file.write_bytes(known.file)
        found: Mapping[str, Array] = input_of(bundle).feeds(file)
    if set(found) != set(known.probe):
        return math.inf
    return max(_apart(known.probe[name], values) for name, values in found.items())


def _apart(expected: Array, found: Array) -> float:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return math.inf
    if expected.dtype.kind in "iu" and expected.dtype != np.uint8:
        return 0.0 if np.array_equal(expected, found) else math.inf
    apart = np.abs(expected.astype(np.float64) - found.astype(np.float64)).mean() if expected.size else 0.0
    span = 255.0 if expected.dtype == np.uint8 else float(np.ptp(expected)) if expected.size else 1.0
    return float(apart) / (span or 1.0)


def _preprocessing(difference: float) -> Iterator[str]:
    if not math.isfinite(difference):
        yield "a file becomes another input here than where the bundle was made"
    elif difference > INPUT_TOLERANCE:
        most = percent(INPUT_TOLERANCE, 1)
        yield f"a file becomes another input here: off by {percent(difference, 1)} of its range, more than {most}"
