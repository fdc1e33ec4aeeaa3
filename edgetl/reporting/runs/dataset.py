"""The data set at a glance: how many samples of which label are in which split, and what was left out and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgetl.base.wording import ABSENT, count, number, printable
from edgetl.core.data import SPLITS, Dataset, Skipped
from edgetl.core.data.several import CLASS_OF
from edgetl.reporting.runs import charts
from edgetl.reporting.views import Plot, TableView

#: Classes in the chart: the largest; the table has all.
CHARTED_CLASSES = 30
#: Files that are named of those left out.
LISTED = 200
BINS = 24
_KEYS = tuple((f"part {split}", split) for split in SPLITS)


@dataclass(frozen=True)
class DataView:
    """The data set.

    Attributes:
        sentence: how many samples, labels and splits.
        plot: counts by class and split, or the distribution of numbers.
        table: the same, exact.
        left_out: reasons with how many files each has; None where nothing was left out.
        files: those files, as far as they are listed, with how many more there are.
    """

    sentence: str
    plot: Plot
    table: TableView
    left_out: TableView | None
    files: TableView | None
    more: int


def data_view(dataset: Dataset, noun: str, identity: str) -> DataView:
    """Prepare a data set; ``noun`` is what its samples are called."""
    plot, table = VIEWS.get(dataset.label_kind, _by_task)(dataset, noun, identity)
    skipped = dataset.skipped
    listed = tuple((printable(item.path), printable(item.reason)) for item in skipped[:LISTED])
    return DataView(
        sentence=_sentence(dataset, noun),
        plot=plot,
        table=table,
        left_out=_reasons(skipped) if skipped else None,
        files=TableView(("File", "Why"), listed, numbers_from=9) if skipped else None,
        more=max(len(skipped) - LISTED, 0),
    )


def _sentence(dataset: Dataset, noun: str) -> str:
    kinds = {"class": f" of {count(len(dataset.classes))} classes", "number": ", each with a number"}
    if dataset.parts:
        kinds[dataset.label_kind] = f" with labels of {count(len(dataset.parts))} tasks, or of some of them"
    of = kinds.get(dataset.label_kind, f" with any of {count(len(dataset.classes))} labels")
    left = f" {count(len(dataset.skipped))} files were left out." if dataset.skipped else " Nothing was left out."
    return f"{count(len(dataset.samples))} {noun}{of}, read from {printable(dataset.root)}.{left}"


def _by_class(dataset: Dataset, noun: str, identity: str) -> tuple[Plot, TableView]:
    counted: Counter[tuple[str, int]] = Counter()
    for sample in dataset.samples:
        counted.update((sample.split, label) for label in _labels(sample.label))
    splits = {split: [counted[split, i] for i in range(len(dataset.classes))] for split in SPLITS}
    totals = np.sum(list(splits.values()), axis=0)
    chosen = sorted(int(i) for i in np.argsort(-totals, kind="stable")[:CHARTED_CLASSES])
    chart = charts.stacked(
        f"{identity}-classes",
        f"{noun.capitalize()} by class and split",
        [dataset.classes[i] for i in chosen],
        {split: [numbers[i] for i in chosen] for split, numbers in splits.items()},
    )
    limited = f"The {CHARTED_CLASSES} largest of {count(len(totals))}." if len(totals) > CHARTED_CLASSES else ""
    rows = [
        (printable(name), *(count(splits[split][i]) for split in SPLITS), count(int(totals[i])))
        for i, name in enumerate(dataset.classes)
    ]
    whole = Counter(sample.split for sample in dataset.samples)
    last = (f"all {noun}", *(count(whole[split]) for split in SPLITS), count(len(dataset.samples)))
    plot = Plot("Samples by class", chart, limited, _KEYS)
    return plot, TableView(("Class", *SPLITS, "All"), (*rows, last))


def _labels(label: Any) -> Sequence[int]:
    return label if isinstance(label, tuple | list) else (label,)


def _by_task(dataset: Dataset, noun: str, identity: str) -> tuple[Plot, TableView]:
    """Classes of all tasks side by side; of a task with numbers, how many samples have one."""
    numbers = [f"{part.name} (a number)" for part in dataset.parts if part.kind == "number"]
    names = (*dataset.classes, *numbers)
    places = {name: i for i, name in enumerate(names)}

    def marks(label: Any) -> tuple[int, ...]:
        found: list[int] = []
        for part, own in zip(dataset.parts, label, strict=True):
            if own is not None and part.kind == "number":
                found.append(places[f"{part.name} (a number)"])
            elif own is not None:
                found += [places[f"{part.name}{CLASS_OF}{part.classes[i]}"] for i in _labels(own)]
        return tuple(sorted(found))

    samples = tuple(replace(sample, label=marks(sample.label)) for sample in dataset.samples)
    return _by_class(replace(dataset, classes=names, samples=samples, label_kind="classes"), noun, identity)


def _by_number(dataset: Dataset, noun: str, identity: str) -> tuple[Plot, TableView]:
    values = {split: dataset.labels(split) for split in SPLITS}
    every = np.concatenate(list(values.values()))
    edges = np.histogram_bin_edges(every, min(BINS, max(5, len(every) // 4)))
    counts = {split: np.histogram(part, edges)[0] for split, part in values.items()}
    chart = charts.histogram(f"{identity}-labels", "Distribution of the labels", "label", edges, counts)
    rows = tuple((name, *_moments(part)) for name, part in (*values.items(), (f"all {noun}", every)))
    columns = ("Split", noun.capitalize(), "Mean", "Standard deviation", "Lowest", "Median", "Highest")
    return Plot("Labels", chart, "", _KEYS), TableView(columns, rows)


def _moments(values: charts.Values) -> tuple[str, ...]:
    if not len(values):
        return (count(0), *[ABSENT] * 5)
    figures = (values.mean(), values.std(), values.min(), np.median(values), values.max())
    return (count(len(values)), *(number(float(figure)) for figure in figures))


#: Kind of label → plot and table of its counts.
VIEWS: Mapping[str, Callable[[Dataset, str, str], tuple[Plot, TableView]]] = {
    "class": _by_class,
    "classes": _by_class,
    "number": _by_number,
}


def _reasons(skipped: Sequence[Skipped]) -> TableView:
    """Reasons that differ only in the names or details they mention count as one, with the first example."""
    grouped: dict[str, list[Skipped]] = {}
    for item in skipped:
        reason = re.sub(r" \(.*\)", "", re.sub(r"a copy of .*, which", "a copy of another, which", item.reason))
        grouped.setdefault(reason, []).append(item)
    ordered = sorted(grouped.items(), key=lambda group: (-len(group[1]), group[0]))
    rows = tuple((printable(reason), printable(items[0].path), count(len(items))) for reason, items in ordered)
    return TableView(("Why", "Such as", "Files"), rows, numbers_from=2)
