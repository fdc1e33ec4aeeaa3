"""What a run's model answers on the val split, for each kind of label: charts, tables, and its worst mistakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.wording import ABSENT, count, number, percent, printable, signed
from edgetl.core.tensors import Arrays
from edgetl.reporting.runs import charts, rates
from edgetl.reporting.views import Fact, Plot, TableView
from edgetl.tasks.logits import sigmoid, softmax

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
#: Classes in a confusion matrix and in a chart of labels; the tables have all.
CHARTED_CLASSES = 30
#: Mistakes and confusions that are listed.
MISTAKES, CONFUSIONS = 24, 10
#: Labels that are named of one sample.
LABELS = 6
#: Points in a scatter plot.
POINTS = 1500
BINS = 24
_RATES = "Precision is the share of right ones among what was answered, recall among what is true, of"


@dataclass(frozen=True)
class Val:
    """A model's answers on the val split.

    Attributes:
        answers: as the task decodes them.
        truth: the labels' array, as :data:`edgetl.core.data.labels.LABEL_KINDS` makes it.
        classes: names.
        noun: what samples are called, such as images.
        identity: prefix that makes ids unique in the page.
    """

    answers: Arrays
    truth: npt.NDArray[Any]
    classes: Sequence[str]
    noun: str
    identity: str


@dataclass(frozen=True)
class Mistake:
    """One wrong answer, of the sample in this row of the val split."""

    row: int
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Answers:
    """Everything about the answers on val.

    Attributes:
        sentence: in words.
        figures: charts.
        tables: (caption, table).
        mistakes: the first of them.
        mistakes_total: how many there are.
        mistakes_title: what counts as one.
        mistakes_order: how they are ordered.
    """

    sentence: str
    figures: tuple[Plot, ...]
    tables: tuple[tuple[str, TableView], ...]
    mistakes: tuple[Mistake, ...]
    mistakes_total: int
    mistakes_title: str
    mistakes_order: str


def of_class(val: Val) -> Answers:
    """One class a sample: ``logits``, float [n, k], and ``class``, int64 [n]; truth, int64 [n]."""
    probabilities, answer, truth = softmax(val.answers["logits"]), val.answers["class"], val.truth
    matrix = np.zeros((len(val.classes), len(val.classes)), np.int64)
    np.add.at(matrix, (truth, answer), 1)
    by_class = rates.rates(val.classes, matrix.sum(1), matrix.sum(0), np.diagonal(matrix))
    sure = probabilities[np.arange(len(truth)), answer]
    wrong = np.flatnonzero(answer != truth)
    ranked = wrong[np.argsort(-sure[wrong], kind="stable")]
    right = len(truth) - len(wrong)
    return Answers(
        f"{count(right)} of {count(len(truth))} {val.noun} are right ({percent(right / len(truth))}).",
        (_confusion(matrix, val.classes, f"{val.identity}-confusion"),),
        (
            (f"{_RATES} a class; true and answered count {val.noun}", rates.table("Class", by_class)),
            *_confusions(matrix, val.classes),
        ),
        tuple(
            _mistaken_class(int(row), float(sure[row]), val.classes[truth[row]], val.classes[answer[row]])
            for row in ranked[:MISTAKES]
        ),
        len(wrong),
        "Most confident mistakes",
        "Wrong answers, those with the highest probability first.",
    )


def _mistaken_class(row: int, confidence: float, true: str, answered: str) -> Mistake:
    facts = (
        Fact("true", printable(true), "right"),
        Fact("answered", printable(answered), "wrong"),
        Fact("confidence", percent(confidence, 1)),
    )
    return Mistake(row, facts)


def _confusion(matrix: Integers, classes: Sequence[str], chart_id: str) -> Plot:
    errors = matrix.sum(0) + matrix.sum(1) - 2 * np.diagonal(matrix)
    chosen = _foremost(errors)
    chart = charts.confusion(chart_id, [classes[i] for i in chosen], matrix[np.ix_(chosen, chosen)])
    shade = "Shaded by the share of the true class."
    return Plot("Confusion matrix", chart, f"{shade}{_limited(len(classes), 'classes with the most errors')}")


def _confusions(matrix: Integers, classes: Sequence[str]) -> tuple[tuple[str, TableView], ...]:
    """The pairs of classes that are confused most; nothing without a mistake."""
    off = matrix - np.diag(np.diagonal(matrix))
    order = [divmod(int(cell), len(classes)) for cell in np.argsort(-off, axis=None, kind="stable")[:CONFUSIONS]]
    rows = tuple(
        (printable(classes[i]), printable(classes[j]), count(int(off[i, j])), percent(off[i, j] / matrix[i].sum(), 1))
        for i, j in order
        if off[i, j]
    )
    view = TableView(("True", "Answered", "Times", "Of the true class"), rows, numbers_from=2)
    return (("What is taken for what, the most frequent first", view),) if rows else ()


def of_classes(val: Val) -> Answers:
    """Labels of a sample: ``logits``, float [n, k], and ``present``, bool [n, k]; truth, uint8 [n, k]."""
    probabilities, answer = sigmoid(val.answers["logits"]), val.answers["present"]
    true = val.truth.astype(bool)
    wrong = answer != true
    confidence = np.where(answer, probabilities, 1 - probabilities)
    rows = np.flatnonzero(wrong.any(1))
    ranked = rows[np.argsort(-np.where(wrong, confidence, 0.0).max(1)[rows], kind="stable")]
    by_label = rates.rates(val.classes, true.sum(0), answer.sum(0), (answer & true).sum(0))
    chosen = _foremost(-np.array([min(rate.precision or 0.0, rate.recall or 0.0) for rate in by_label]))
    limited = _limited(len(val.classes), "labels that are lowest")
    right = len(true) - len(rows)
    return Answers(
        f"All labels are right on {count(right)} of {count(len(true))} {val.noun} ({percent(right / len(true))}); "
        f"of {count(wrong.size)} single labels {count(int(wrong.sum()))} are wrong.",
        (
            Plot(
                "Precision and recall",
                charts.rates(f"{val.identity}-rates", [by_label[i] for i in chosen]),
                f"At the threshold that decides whether a label is present.{limited}",
                (("ring", "precision"), ("ring full", "recall")),
            ),
        ),
        ((f"{_RATES} a label; true and answered count {val.noun}", rates.table("Label", by_label)),),
        tuple(_mistaken_labels(int(row), probabilities, answer, true, val.classes) for row in ranked[:MISTAKES]),
        len(rows),
        "Most confident mistakes",
        f"{val.noun.capitalize()} with a wrong label, the most confident wrong answer first.",
    )


def _mistaken_labels(
    row: int, probabilities: Floats, answer: Booleans, true: Booleans, classes: Sequence[str]
) -> Mistake:
    def named(chosen: Booleans) -> str:
        labels = np.flatnonzero(chosen)
        listed = [f"{printable(classes[i])} ({percent(float(probabilities[row, i]), 1)})" for i in labels[:LABELS]]
        more = [f"{count(len(labels) - LABELS)} more"] if len(labels) > LABELS else []
        return ", ".join(listed + more) or ABSENT

    missed, false = true[row] & ~answer[row], answer[row] & ~true[row]
    facts = [Fact("true", named(true[row]))]
    facts += [Fact("missed", named(missed), "wrong")] if missed.any() else []
    facts += [Fact("false", named(false), "wrong")] if false.any() else []
    return Mistake(row, tuple(facts))


def of_number(val: Val) -> Answers:
    """A number a sample: ``values``, float [n, 1]; truth, float64 [n]."""
    predicted, truth = val.answers["values"].astype(np.float64).reshape(len(val.truth)), val.truth
    error = predicted - truth
    mean = float(np.abs(error).mean())
    ranked = np.argsort(-np.abs(error), kind="stable")
    # Evenly over the sorted truth, so that the thinned picture keeps its shape.
    every = np.unique(np.linspace(0, len(truth) - 1, min(len(truth), POINTS)).astype(int))
    drawn = np.argsort(truth, kind="stable")[every]
    thinned = f"{count(len(drawn))} of {count(len(truth))} {val.noun}. " if len(drawn) < len(truth) else ""
    edges = np.histogram_bin_edges(error, min(BINS, max(5, len(error) // 4)))
    residuals = {"val": np.histogram(error, edges)[0]}
    scatter = charts.scatter(f"{val.identity}-scatter", "Predicted against true", truth[drawn], predicted[drawn])
    spread = charts.histogram(f"{val.identity}-residuals", "Residuals", "predicted minus true", edges, residuals)
    return Answers(
        f"The predictions for {count(len(truth))} {val.noun} are off by {number(mean)} on average.",
        (
            Plot("Predicted against true", scatter, f"{thinned}On the line the two are equal."),
            Plot("Residuals", spread, f"How many {val.noun} have each error."),
        ),
        (("Errors in the unit of the labels", _errors(error)),),
        tuple(_mistaken_number(int(row), predicted, truth) for row in ranked[:MISTAKES]),
        len(truth),
        "Largest errors",
        "Those furthest from the truth first.",
    )


def _errors(error: Floats) -> TableView:
    size = np.abs(error)
    quantiles = (("half of the errors are at most", 0.5), ("90 % are at most", 0.9), ("the largest is", 1.0))
    return TableView(
        ("Figure", "Value"),
        (
            ("mean residual (bias)", number(float(error.mean()))),
            ("standard deviation of the residuals", number(float(error.std()))),
            *((words, number(float(np.quantile(size, q)))) for words, q in quantiles),
        ),
    )


def _mistaken_number(row: int, predicted: Floats, truth: Floats) -> Mistake:
    return Mistake(
        row,
        (
            Fact("true", number(float(truth[row]))),
            Fact("predicted", number(float(predicted[row]))),
            Fact("error", signed(float(predicted[row] - truth[row]))),
        ),
    )


#: Kind of label → what is shown of the answers.
VIEWS: Mapping[str, Callable[[Val], Answers]] = {
    "class": of_class,
    "classes": of_classes,
    "number": of_number,
}


def _foremost(values: npt.NDArray[Any]) -> list[int]:
    """Indexes of the classes with the highest values, as many as are charted, in the classes' order."""
    return sorted(int(i) for i in np.argsort(-values, kind="stable")[:CHARTED_CLASSES])


def _limited(classes: int, which: str) -> str:
    return f" The {CHARTED_CLASSES} {which}, of {count(classes)}." if classes > CHARTED_CLASSES else ""
