"""Reference against deployed under every corruption, and whether the loss is greater there than on clean images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.base.progress import Progress, silent
from edgetl.base.wording import points
from edgetl.robustness.corruptions import CORRUPTIONS, SEVERITIES, write_corrupted

#: Images whose copies lie on disk at a time; also the most logits that are held.
CHUNK = 256
DRAWS = 10_000
CLEAN = "none"
Classes = npt.NDArray[np.int64]
Logits = npt.NDArray[np.floating[Any]]
Run = Callable[[Sequence[Path]], Logits]
Judge = Callable[[Classes, Classes, Classes], Mapping[str, Any]]


@dataclass(frozen=True)
class Row:
    """The paired test under one corruption.

    Attributes:
        corruption: its name; "none" for the images as they are.
        severity: 1 to 5; 0 without a corruption.
        reference_accuracy, deployed_accuracy: shares that are right, 0 to 1.
        difference: deployed minus reference, with its interval ``ci_low`` to ``ci_high``.
        lost, gained: images that only the reference, or only the deployed model, gets right.
        n: images.
        verdict: what the judge says.
    """

    corruption: str
    severity: int
    reference_accuracy: float
    deployed_accuracy: float
    difference: float
    ci_low: float
    ci_high: float
    lost: int
    gained: int
    n: int
    verdict: str


def measure(
    paths: Sequence[Path],
    labels: npt.ArrayLike,
    run_reference: Run,
    run_deployed: Run,
    judge: Judge,
    *,
    severities: Sequence[int] = SEVERITIES,
    limit: int | None = None,
    alpha: float = 0.05,
    groups: npt.NDArray[np.int64] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run both models on clean and on corrupted copies of the same images, and compare them under each corruption.

    Copies are made some hundred at a time in a temporary folder and removed at once; of each image only the two
    classes are kept, and they only until their corruption is judged.

    Args:
        paths: image files, n of them.
        labels: true class indexes, integers (n,).
        run_reference, run_deployed: from image files to logits, floats (k, classes).
        judge: the paired test; from the classes that the reference and the deployed model predicted and the true ones,
            int64 (n,), to difference, ci_low, ci_high, lost, gained and verdict.
        severities: which of 1 to 5.
        limit: the most images to use, spread evenly over ``paths``; None for all.
        alpha: one-sided level of the excess loss.
        groups: of each image, from 0 up, int64 (n,), which count once; None: every image is independent.
        progress: told of each corruption and severity.

    Returns:
        plain JSON values: ``n`` and ``available`` images; ``clean``, a :class:`Row`; ``rows``, one for each corruption
        and severity; ``worst``, the row with the greatest loss; ``summary``, see :func:`excess_loss`.

    Raises:
        CertifyError: no images, no severities, labels of another length, or logits that are NaN or of another shape.
    """
    truth = np.asarray(labels, np.int64)
    if not len(paths) or truth.shape != (len(paths),):
        raise CertifyError(f"{len(paths)} images and {truth.size} labels do not match", "give a label for each image")
    if not severities or (limit is not None and limit < 1):
        raise CertifyError("there is no severity or no image to test", "choose 1 to 5, and 1 image or more")
    chosen = _spread(len(paths), limit)
    files, truth = [paths[i] for i in chosen], truth[chosen]
    together = None if groups is None else groups[chosen]
    conditions = [(name, severity) for name in CORRUPTIONS for severity in severities]
    rows, totals = [], np.zeros(len(files), np.int64)
    for done, (name, severity) in enumerate([(CLEAN, 0), *conditions]):
        progress("corruptions", done, len(conditions) + 1, f"{name} {severity}" if severity else "clean images")
        before, after = _classes(files, name, severity, (run_reference, run_deployed))
        rows.append(_row(name, severity, before, after, truth, judge))
        change = (after == truth).astype(np.int64) - (before == truth)
        if severity:
            totals += change
        else:
            clean = change
    progress("corruptions", len(conditions) + 1, len(conditions) + 1)
    return {
        "n": len(files),
        "available": len(paths),
        "severities": list(severities),
        "clean": asdict(rows[0]),
        "rows": [asdict(row) for row in rows[1:]],
        "worst": asdict(min(rows[1:], key=lambda row: row.difference)),
        "summary": {**_accuracies(rows), **excess_loss(clean, totals / len(conditions), together, alpha=alpha)},
    }


def excess_loss(
    clean: npt.ArrayLike,
    corrupted: npt.ArrayLike,
    groups: npt.NDArray[np.int64] | None = None,
    *,
    alpha: float = 0.05,
) -> dict[str, Any]:
    """How much more is lost under corruption than on clean images, paired over images.

    The interval is a percentile bootstrap by image, clean and corrupted outcomes together (Efron & Tibshirani 1993,
    ch. 13). Few images that differ make it too narrow, so a proof also takes a randomization test: the sign of each
    image's excess is flipped at random, as if it did not matter whether the image is corrupted.

    Args:
        clean: for each image, whether the deployed model is right minus whether the reference is, (n,): -1, 0 or 1.
        corrupted: the mean of the same over all corruptions, (n,).
        groups: of each image, from 0 up, int64 (n,), which are drawn and flipped whole.
        alpha: one-sided level.

    Returns:
        ``clean`` and ``corrupted``: mean differences of accuracy; ``excess``: corrupted minus clean, negative where
        corruption adds to the loss; ``ci_low`` and ``ci_high``: each one-sided 1 - alpha; ``p_value``: one-sided;
        ``proven``: whether compression hurts more off distribution; ``sentence``: the same in words.
    """
    before, after = np.asarray(clean, np.float64), np.asarray(corrupted, np.float64)
    each = after - before
    excess, n = float(each.mean()), len(each)
    # Of groups the mean is taken off first: they differ in size, too.
    sums, centre = (each, 0.0) if groups is None else (np.bincount(groups, each - excess), excess)
    # Images with an equal excess are alike: drawing how often each value comes up is drawing the images.
    values, counts = np.unique(np.round(sums, 9), return_counts=True)
    rng = np.random.default_rng(0)
    drawn = centre + rng.multinomial(counts.sum(), counts / counts.sum(), DRAWS) @ values / n
    low, high = (float(q) for q in np.quantile(drawn, (alpha, 1 - alpha)))
    if groups is not None:
        values, counts = np.unique(np.round(np.bincount(groups, each), 9), return_counts=True)
    flipped = (2 * rng.binomial(counts, 0.5, (DRAWS, len(counts))) - counts) @ values / n
    p_value = float((1 + np.count_nonzero(flipped <= excess + 1e-12)) / (1 + DRAWS))
    proven = high < 0 and p_value <= alpha
    found = {"clean": float(before.mean()), "corrupted": float(after.mean()), "excess": excess}
    found |= {"ci_low": low, "ci_high": high, "p_value": p_value}
    return {**found, "alpha": alpha, "proven": proven, "sentence": _sentence(found, proven)}


def _sentence(found: Mapping[str, float], proven: bool) -> str:
    clean, off, more, low, high = (points(found[x]) for x in ("clean", "corrupted", "excess", "ci_low", "ci_high"))
    change = f"accuracy changes by {off} points on corrupted images and by {clean} on clean ones"
    compared = f"{change}, a difference of {more} (interval {low} to {high})"
    if proven:
        return f"Compression hurts more off distribution: {compared}."
    if found["ci_low"] > 0:
        return f"Compression does not hurt more off distribution, but less: {compared}."
    return f"It is not shown that compression hurts more off distribution: {compared}."


def _accuracies(rows: Sequence[Row]) -> dict[str, Any]:
    clean, off = rows[0], rows[1:]
    return {
        "reference_accuracy": {
            "clean": clean.reference_accuracy,
            "corrupted": float(np.mean([row.reference_accuracy for row in off])),
        },
        "deployed_accuracy": {
            "clean": clean.deployed_accuracy,
            "corrupted": float(np.mean([row.deployed_accuracy for row in off])),
        },
    }


def _spread(n: int, limit: int | None) -> npt.NDArray[np.int64]:
    # Files often lie sorted by class: the first few would be of one.
    return np.linspace(0, n - 1, min(n, limit or n)).round().astype(np.int64)


def _classes(files: Sequence[Path], name: str, severity: int, models: Sequence[Run]) -> list[Classes]:
    found: list[list[Classes]] = [[] for _ in models]
    for start in range(0, len(files), CHUNK):
        with _copies(files[start : start + CHUNK], name, severity) as copies:
            for kept, run in zip(found, models, strict=True):
                kept.append(_argmax(run(copies), len(copies)))
    return [np.concatenate(kept) for kept in found]


@contextmanager
def _copies(files: Sequence[Path], name: str, severity: int) -> Iterator[Sequence[Path]]:
    if name == CLEAN:
        yield files
        return
    with tempfile.TemporaryDirectory(prefix="edgetl-") as folder:
        yield write_corrupted(files, name, severity, Path(folder))


def _argmax(logits: Logits, n: int) -> Classes:
    array = np.asarray(logits)
    if array.ndim != 2 or len(array) != n or np.isnan(array).any():
        raise CertifyError(
            f"a model gave logits of shape {array.shape}, or NaN, for {n} images", "it should give (images, classes)"
        )
    return np.asarray(array.argmax(axis=1), np.int64)


def _row(name: str, severity: int, before: Classes, after: Classes, truth: Classes, judge: Judge) -> Row:
    judged = judge(before, after, truth)
    return Row(
        corruption=name,
        severity=severity,
        reference_accuracy=float(np.mean(before == truth)),
        deployed_accuracy=float(np.mean(after == truth)),
        difference=float(judged["difference"]),
        ci_low=float(judged["ci_low"]),
        ci_high=float(judged["ci_high"]),
        lost=int(judged["lost"]),
        gained=int(judged["gained"]),
        n=len(truth),
        verdict=str(judged["verdict"]),
    )
