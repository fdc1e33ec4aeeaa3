"""How often macro-AP and micro-F1 pass a true loss of the margin, and how often none; see ``size_simulation.py``.

Each cell names how many samples there are, which labels, how well the reference tells them apart, and what is wrong
with the deployed model. The margin is the true loss, from a million samples of the same kind. A data set whose
observed loss is the margin or more never passes, so it is not resampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.certify import paired_test
from edgetl.tasks import TASKS, Evidence, Metric

ALPHA = 0.05
REPLICATES = 300

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]

TASK = TASKS["multi-label"]
#: How many samples in a hundred have each label.
LABELS = {
    "5 labels of 20 %": (20,) * 5,
    "4 labels of 10 to 50 %": (50, 30, 20, 10),
    "10 labels of 3 to 50 %": (50, 40, 30, 20, 20, 10, 10, 5, 5, 3),
}
#: Distance of the means of a label's logits, in their standard deviations: average precisions of 0.8 to 0.9, and of 1.
REFERENCE = {"good": 2.5, "near-ideal": 8.0}


@dataclass(frozen=True)
class Cell:
    """What is simulated; ``share`` is that of the samples that are hit, or the standard deviation of a noise."""

    metric: str
    labels: str
    reference: str
    fault: str
    share: float
    n: int
    trials: int = 1000

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, Labels]:
        """Logits of the reference and of the deployed model, and labels, each [n, labels]."""
        apart = REFERENCE[self.reference]
        labels = rng.random((n, len(LABELS[self.labels]))) < np.array(LABELS[self.labels]) / 100
        logits = apart * (labels - 0.5) + rng.normal(size=labels.shape)
        return logits, spoilt(logits, labels, self.fault, self.share, rng), labels

    def equal(self, rng: np.random.Generator) -> tuple[Floats, Floats, Labels]:
        """The same of a deployed model that differs a little and is just as good."""
        labels = rng.random((self.n, len(LABELS[self.labels]))) < np.array(LABELS[self.labels]) / 100
        first, other = rng.normal(size=(2, *labels.shape))
        means = REFERENCE[self.reference] * (labels - 0.5)
        return means + first, means + 0.995 * first + np.sqrt(1 - 0.995**2) * other, labels


def spoilt(logits: Floats, labels: Labels, fault: str, share: float, rng: np.random.Generator) -> Floats:
    """Logits of the deployed model."""
    if fault == "noise":
        return logits + share * rng.normal(size=logits.shape)
    if fault == "noise in one label":
        return np.asarray(logits + share * rng.normal(size=logits.shape) * (np.arange(logits.shape[1]) == 0))
    loud = 5 + abs(logits).max() + rng.random(logits.shape)
    one = np.arange(logits.shape[1]) == rng.integers(0, logits.shape[1], (len(logits), 1))
    hit = {
        "another sample's answers": np.roll(logits, 1, axis=0),
        "inverted": -logits,
        "random extremes": np.where(rng.random(logits.shape) < 0.5, loud, -loud),
        "one label falsely first": np.where(one & ~labels, loud, logits),
        "all labels first": loud,
    }[fault]
    return np.asarray(np.where(rng.random((len(logits), 1)) < share, hit, logits))


CELLS = (
    Cell("macro-AP", "4 labels of 10 to 50 %", "good", "noise", 0.34, 300),
    Cell("macro-AP", "4 labels of 10 to 50 %", "good", "noise in one label", 1.0, 300),
    Cell("macro-AP", "4 labels of 10 to 50 %", "near-ideal", "another sample's answers", 0.018, 300),
    Cell("macro-AP", "4 labels of 10 to 50 %", "near-ideal", "inverted", 0.0047, 1000, 200),
    Cell("macro-AP", "4 labels of 10 to 50 %", "near-ideal", "one label falsely first", 0.0039, 1000, 200),
    Cell("macro-AP", "5 labels of 20 %", "near-ideal", "all labels first", 0.001, 1000, 200),
    Cell("macro-AP", "5 labels of 20 %", "near-ideal", "all labels first", 0.004, 1000, 200),
    Cell("macro-AP", "5 labels of 20 %", "near-ideal", "all labels first", 0.0135, 300),
    Cell("macro-AP", "5 labels of 20 %", "near-ideal", "random extremes", 0.0275, 300),
    Cell("macro-AP", "10 labels of 3 to 50 %", "near-ideal", "random extremes", 0.001, 300, 500),
    Cell("macro-AP", "4 labels of 10 to 50 %", "near-ideal", "all labels first", 0.001, 5000, 100),
    Cell("micro-F1", "4 labels of 10 to 50 %", "good", "noise", 0.35, 300),
    Cell("micro-F1", "4 labels of 10 to 50 %", "good", "noise in one label", 0.65, 1000, 500),
    Cell("micro-F1", "4 labels of 10 to 50 %", "near-ideal", "inverted", 0.0055, 1000, 500),
    Cell("micro-F1", "4 labels of 10 to 50 %", "near-ideal", "all labels first", 0.0155, 300),
    Cell("micro-F1", "10 labels of 3 to 50 %", "good", "another sample's answers", 0.022, 1000, 500),
    Cell("micro-F1", "10 labels of 3 to 50 %", "near-ideal", "inverted", 0.004, 1000, 500),
    Cell("micro-F1", "10 labels of 3 to 50 %", "near-ideal", "all labels first", 0.005, 1000, 500),
    Cell("micro-F1", "10 labels of 3 to 50 %", "near-ideal", "random extremes", 0.017, 400),
)


def evidence(arrays: tuple[Floats, Floats, Labels]) -> tuple[Evidence, Evidence]:
    before, after = (TASK.evidence(TASK.decode({"logits": logits}, {}), arrays[2]) for logits in arrays[:2])
    return before, after


def true_loss(cell: Cell) -> float:
    """From a million samples, in two parts."""
    rng, metric = np.random.default_rng(99), TASK.metrics[cell.metric]
    parts = (evidence(cell.draw(500_000, rng)) for _ in range(2))
    return float(np.mean([metric.of(before) - metric.of(after) for before, after in parts]))


def plain_bound(metric: Metric, pair: tuple[Evidence, Evidence], n: int, rng: np.random.Generator) -> float:
    """Lower bound of the plain percentile bootstrap."""
    counts = rng.multinomial(n, np.full(n, 1 / n), REPLICATES).astype(np.float32)
    before, after = (metric.score(models, counts) for models in pair)
    return float(np.quantile(after - before, ALPHA))


def size(cell: Cell, margin: float) -> tuple[float, float]:
    """Rates of a pass, by the package's bound and by the plain percentile one."""
    rng, metric, passed, plain = np.random.default_rng(13), TASK.metrics[cell.metric], 0, 0
    for _ in range(cell.trials):
        before, after = evidence(cell.draw(cell.n, rng))
        if metric.of(before) - metric.of(after) < margin:
            passed += paired_test(metric, before, after, margin, ALPHA, REPLICATES).verdict == "pass"
            plain += plain_bound(metric, (before, after), cell.n, rng) > -margin
    return passed / cell.trials, plain / cell.trials


def power(cell: Cell, margin: float) -> float:
    """Rate of a pass without a loss, from a fifth as many data sets."""
    rng, metric, passed = np.random.default_rng(17), TASK.metrics[cell.metric], 0
    trials = cell.trials // 5
    for _ in range(trials):
        passed += paired_test(metric, *evidence(cell.equal(rng)), margin, ALPHA, REPLICATES).verdict == "pass"
    return passed / trials


def label_set_cells() -> list[dict[str, Any]]:
    """Sizes with their Monte-Carlo error at 5 %, and powers."""
    cells = []
    for cell in CELLS:
        margin = true_loss(cell)
        passed, plain = size(cell, margin)
        cells.append(
            {
                **{name: getattr(cell, name) for name in ("metric", "labels", "reference", "fault", "share", "n")},
                "margin": margin,
                "size": passed,
                "size_plain": plain,
                "power_without_loss": power(cell, margin),
                "trials": cell.trials,
                "error": float(np.sqrt(ALPHA * (1 - ALPHA) / cell.trials)),
            }
        )
    return cells


# --- what the unseen sample costs


def unseen_loss(metric: Metric, labels: Labels) -> float:
    """Loss in the bound of two models that are always right, which nothing but the unseen sample makes."""
    # Equal scores would be one step of the average precision, which a false sample above them costs less.
    logits = 20.0 * labels - 10 + np.random.default_rng(0).random(labels.shape)
    perfect = TASK.evidence(TASK.decode({"logits": logits}, {}), labels)
    if metric.unseen is None:
        raise ValueError(f"the {metric.title} has no unseen sample")
    weights = np.append(np.ones(len(labels)), -np.log(ALPHA))[None]
    before, after = (
        metric.score({name: np.concatenate([perfect[name], values]) for name, values in row.items()}, weights)
        for row in metric.unseen(perfect, perfect)
    )
    return float(before[0] - after[0])


def samples_needed() -> list[dict[str, Any]]:
    """Samples from which two models that are always right pass, in steps of 5 %."""
    found = []
    for metric in ("macro-AP", "micro-F1"):
        for name, shares in LABELS.items():
            chances = np.random.default_rng(3).random((100_000, len(shares)))
            labels = chances < np.array(shares) / 100
            n, needed = 20, {}
            for margin in (0.05, 0.02, 0.01):
                while unseen_loss(TASK.metrics[metric], labels[:n]) >= margin:
                    n = n * 105 // 100 + 1
                needed[f"{margin:g}"] = n
            found.append({"metric": metric, "labels": name, "samples": needed})
    return found
