"""What the page shows of one run: everything computed here, so that the template only lays it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetl.base.errors import RunError
from edgetl.base.schema import from_json, to_json
from edgetl.base.wording import count, printable
from edgetl.core.run import PREPROCESS_FILE, Run
from edgetl.core.transfer_outcome import TransferOutcome
from edgetl.core.val_outputs import VAL_OUTPUTS
from edgetl.reporting import metrics
from edgetl.reporting.facts import facts
from edgetl.reporting.runs.answers import VIEWS, Answers, Mistake, Val
from edgetl.reporting.runs.dataset import DataView, data_view
from edgetl.reporting.runs.learning import NO_METRICS, Learning, learning
from edgetl.reporting.runs.several import of_several
from edgetl.reporting.samples import Card, Previews
from edgetl.reporting.terms import noun
from edgetl.reporting.transfer import is_negative, sentences
from edgetl.tasks import find_task

Facts = list[tuple[str, str]]
_AGAIN = "train the run again"


@dataclass(frozen=True)
class Score:
    """A metric on val; ``detail`` says what it was at the start of training, or what the baseline has."""

    title: str
    value: str
    detail: str


@dataclass(frozen=True)
class RunSection:
    """One run.

    Attributes:
        id: unique in the page.
        name: of the run's folder.
        backbone, strategy, task: names.
        nouns: what samples are called.
        train, val: how many samples; the second of the split that it is scored on, whose name is ``split``.
        lead: what it was trained and scored on, in a sentence.
        scores: the task's metrics on val.
        learning: curves.
        transfer: what it tells of its transfer, in sentences; ``negative`` says whether that cost something.
        answers: on val; None where the run did not keep them, and ``absent`` says so.
        cards: the first of the mistakes, with their samples.
        data: the data set at a glance.
        input: how a file becomes the network's input; ``input_sentence`` says what arrives there.
        provenance: everything else that the run records, as (title, facts).
    """

    id: str
    name: str
    backbone: str
    strategy: str
    task: str
    nouns: str
    train: int
    val: int
    split: str
    lead: str
    scores: tuple[Score, ...]
    learning: Learning
    transfer: tuple[str, ...]
    negative: bool
    answers: Answers | None
    absent: str
    cards: tuple[Card, ...]
    data: DataView
    input_sentence: str
    input: Facts
    provenance: tuple[tuple[str, Facts], ...]


def run_section(
    run: Run, index: int, *, data_root: Path | None = None, transfer: TransferOutcome | None = None
) -> RunSection:
    """Prepare one run; ``index`` makes its ids unique in the page, ``data_root`` says where the samples lie now.

    Raises:
        RunError: a file of the run holds something else than it should.
        UnknownNameError: its task is unknown.
    """
    identity = f"run-{index}"
    task, kind = find_task(run.task), str(run.input_record.get("kind", "image"))
    nouns, previews = f"{noun(kind)}s", Previews(run.dataset, kind, data_root)
    answers = _answers(run, nouns, identity)
    return RunSection(
        id=identity,
        name=printable(run.path.resolve().name),
        backbone=printable(run.backbone),
        strategy=printable(run.strategy),
        task=task.name,
        nouns=nouns,
        train=len(run.dataset.split("train")),
        val=len(run.dataset.split(run.dataset.measured)),
        split=run.dataset.measured,
        lead=_lead(run, nouns),
        scores=_scores(run),
        learning=learning(run, identity),
        transfer=tuple(map(printable, sentences(run, transfer or TransferOutcome()))),
        negative=is_negative(transfer or TransferOutcome()),
        answers=answers,
        absent="" if answers else _absent(run),
        cards=_cards(run, answers.mistakes if answers else (), previews),
        data=data_view(run.dataset, nouns, identity),
        input_sentence=_input_sentence(run),
        input=facts(run.input_record),
        provenance=_provenance(run),
    )


def _lead(run: Run, nouns: str) -> str:
    if run.adaptation is not None:
        of = f"{count(len(run.dataset.split('train')))} {nouns} of a source and {count(run.adaptation.samples)}"
        return f"trained on {of} of the target without labels, scored on others of the source, the val split"
    scored = f"{count(len(run.dataset.split(run.dataset.measured)))}"
    if run.adoption is not None:
        return f"trained elsewhere, scored on {scored} {nouns}, the {run.dataset.measured} split"
    return f"trained on {count(len(run.dataset.split('train')))} {nouns}, scored on {scored} others, the val split"


def _answers(run: Run, nouns: str, identity: str) -> Answers | None:
    outputs = run.val_outputs
    if outputs is None:
        return None
    task = find_task(run.task)
    if run.dataset.label_kind != task.labels:
        raise RunError(f"{run.path} has labels of the kind '{run.dataset.label_kind}' for {task.name}", _AGAIN)
    for spec in task.outputs(run.classes):
        values = outputs.get(spec.name)
        if values is None or not spec.accepts(values) or not np.isfinite(values).all():
            raise RunError(f"{run.path / VAL_OUTPUTS} holds no finite {spec}", _AGAIN)
    truth = run.dataset.labels(run.dataset.measured)
    val = Val(task.decode(outputs, task.options), truth, run.classes, nouns, identity)
    return of_several(val, task) if task.parts else VIEWS[task.labels](val)


def _absent(run: Run) -> str:
    command = printable(run.lineage.get("command") or "edgetl finetune DATA --out RUN")
    return f"The run holds no {VAL_OUTPUTS}: it was made before runs kept it. Make it again with: {command} --fresh"


def _cards(run: Run, mistakes: Sequence[Mistake], previews: Previews) -> tuple[Card, ...]:
    paths = [sample.path for sample in run.dataset.split(run.dataset.measured)]
    return tuple(Card(paths[m.row], previews.of(paths[m.row]), m.facts) for m in mistakes)


def _scores(run: Run) -> tuple[Score, ...]:
    start = run.metrics.start if run.metrics.epochs_run else {}
    baseline, kind = (run.baseline.metrics.val, run.baseline.kind) if run.baseline else ({}, "")
    scores = []
    for name in metrics.ordered(run.task, [name for name in run.metrics.val if name not in NO_METRICS]):
        figure = run.metrics.val[name]
        others = ((baseline, f"baseline ({kind})"), (start, "at the start"))
        detail = [f"{metrics.value(run.task, name, of[name])} {words}" for of, words in others if name in of]
        metric = metrics.title(run.task, name)
        scores.append(Score(metric[:1].upper() + metric[1:], metrics.value(run.task, name, figure), ", ".join(detail)))
    return tuple(scores)


@dataclass(frozen=True)
class _Array:
    name: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class _Size:
    """What the definition of an input says of its size, whatever its kind."""

    height: int | None = None
    width: int | None = None
    length: int | None = None
    arrays: tuple[_Array, ...] = ()


def _input_sentence(run: Run) -> str:
    """The size of what arrives at the network."""
    size = from_json(_Size, dict(run.input_record), run.path / PREPROCESS_FILE, RunError, "train the run again")
    if size.arrays:
        arrays = (f"{printable(array.name)} ({_sizes(array.shape)})" for array in size.arrays)
        return f"Arrays of single precision: {', '.join(arrays)}."
    if size.length is not None:
        return f"At most {count(size.length)} tokens of a text; what is longer is cut."
    return f"Pictures of {_sizes((size.height, size.width))} pixels, height by width."


def _sizes(shape: Sequence[int | None]) -> str:
    return " x ".join("any" if size is None else str(size) for size in shape) or "a single value"


def _provenance(run: Run) -> tuple[tuple[str, Facts], ...]:
    hashes = {"run": run.digest, **run.hashes}
    listed: Sequence[tuple[str, Facts]] = (
        ("Settings", facts(run.settings)),
        ("Lineage", facts(run.lineage)),
        ("Metrics", facts(to_json(run.metrics))),
        ("Baseline", facts(to_json(run.baseline))),
        ("Adoption", facts(to_json(run.adoption))),
        ("Adaptation", facts(to_json(run.adaptation))),
        ("Hashes (SHA-256)", facts(hashes)),
    )
    return tuple((title, pairs) for title, pairs in listed if pairs)
