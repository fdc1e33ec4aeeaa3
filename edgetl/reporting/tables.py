"""The tables of the page, as text."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.base.wording import (
    ABSENT,
    bounds,
    change,
    count,
    difference,
    figure,
    fixed,
    number,
    percent,
    points,
    printable,
    shifted,
    small,
    span,
)
from edgetl.core.bundle import Bundle
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import ClassRecord, CorruptedRow, Probabilities, Rung, Score
from edgetl.core.compression import NETWORK_INPUT, LayerNoise, RepairRecord
from edgetl.reporting import metrics
from edgetl.reporting.views import TableView


def scores(certificate: Certificate) -> TableView:
    """Every metric of the task; the one that decides is marked."""
    return TableView(
        ("Metric", "Before", "After", "Difference", "Interval", "Margin", "By itself"),
        tuple(_score(certificate, name, score) for name, score in ordered(certificate)),
    )


def parts(certificate: Certificate) -> TableView | None:
    """The certificate of each task, the one that decides marked; None of a single task."""
    if not certificate.parts:
        return None
    decides = certificate.metric.partition(".")[0]
    return TableView(
        ("Task", "Verdict", "Samples", "Metric", "Before", "After", "Difference", "Interval", "Margin"),
        tuple(_part(name, part, name == decides) for name, part in certificate.parts.items()),
        numbers_from=4,
    )


def _part(name: str, part: Certificate, decides: bool) -> tuple[str, ...]:
    return (
        f"{name} (decides)" if decides else name,
        part.verdict,
        count(part.n),
        metrics.title(part.task, part.metric),
        figure(part.reference_score, part.unit),
        figure(part.deployed_score, part.unit),
        change(part.difference, part.unit),
        bounds(part.ci_low, part.ci_high, part.unit),
        change(-part.margin, part.unit),
    )


def ordered(certificate: Certificate) -> list[tuple[str, Score]]:
    """The scores by name, in the order of the task's metrics: JSON keeps none."""
    return [(name, certificate.scores[name]) for name in metrics.ordered(certificate.task, certificate.scores)]


def _score(certificate: Certificate, name: str, score: Score) -> tuple[str, ...]:
    decides = " (decides)" if name == certificate.metric and len(certificate.scores) > 1 else ""
    return (
        f"{metrics.title(certificate.task, name)}{decides}",
        figure(score.reference, score.unit),
        figure(score.deployed, score.unit),
        change(score.difference, score.unit),
        bounds(score.ci_low, score.ci_high, score.unit),
        change(-score.margin, score.unit),
        score.verdict,
    )


def ladder(certificate: Certificate) -> TableView | None:
    """Each step from the trained model to the artifact, against the step above it; None without a ladder."""
    rungs, unit = certificate.ladder, certificate.unit
    if not rungs:
        return None
    title = metrics.title(certificate.task, certificate.metric)
    accuracy = certificate.metric != "accuracy" and any(rung.accuracy is not None for rung in rungs)
    flips = any(rung.lost is not None for rung in rungs)
    logits = any(rung.logit_distance is not None or rung.kl is not None for rung in rungs)
    outputs = not logits and any(rung.divergence is not None for rung in rungs)
    columns = (
        "Rung",
        title[:1].upper() + title[1:],
        *(("Accuracy",) if accuracy else ()),
        "Agreement",
        difference_heading(unit),
        "Interval",
        *(("Lost", "Gained") if flips else ()),
        *(("Logit distance", "KL, nats") if logits else ("Divergence",) if outputs else ()),
        "Diverges",
    )

    def cells(rung: Rung) -> tuple[str, ...]:
        return (
            printable(rung.name),
            figure(rung.score, unit),
            *((percent(rung.accuracy),) if accuracy else ()),
            percent(rung.agreement),
            difference(rung.difference, unit),
            bounds(rung.ci_low, rung.ci_high, unit),
            *((count(rung.lost), count(rung.gained)) if flips else ()),
            *((small(rung.logit_distance), small(rung.kl)) if logits else (small(rung.divergence),) if outputs else ()),
            "yes" if rung.diverges else "no",
        )

    return TableView(columns, tuple(map(cells, rungs)))


def difference_heading(unit: str) -> str:
    """Above differences that are printed without their unit."""
    return "Points" if unit == "share" else "Difference"


def layers(rows: Sequence[LayerNoise]) -> TableView:
    """The noise that quantization makes in each layer by itself, the worst first."""
    return TableView(
        ("Module", "Node", "Quantized", "Measured at", "SQNR, dB", "Of the noise", "Saturated"),
        tuple(
            (
                printable(row.module or ABSENT),
                printable(row.node or NETWORK_INPUT),
                row.cause,
                printable(row.consumer or ABSENT),
                fixed(row.sqnr_db, 1),
                percent(row.share, 1),
                percent(row.saturated),
            )
            for row in rows
        ),
        numbers_from=4,
    )


def trials(repair: RepairRecord, task: str) -> TableView:
    """Everything that repair tried, on search samples; what was not measured has its note."""
    unit, title = repair.unit, metrics.title(task, repair.metric)
    return TableView(
        ("Trial", "Remedy", "Change", "Kept", title[:1].upper() + title[1:], difference_heading(unit), "Lost", "Gained",
         "Divergence", "Integer MACs", "ms", "Seconds"),
        tuple(
            (
                str(position),
                printable(trial.remedy),
                "; ".join(printable(words) for words in (trial.change, trial.note) if words) or ABSENT,
                "yes" if trial.kept else "no",
                ABSENT if trial.score is None else figure(trial.score, unit),
                difference(trial.difference, unit),
                count(trial.lost),
                count(trial.gained),
                small(trial.divergence),
                percent(trial.integer_macs, 1),
                number(trial.ms),
                number(trial.seconds),
            )
            for position, trial in enumerate(repair.trials, 1)
        ),
        numbers_from=4,
    )  # fmt: skip


def corruptions(rows: Sequence[CorruptedRow]) -> TableView:
    """The paired test on clean samples and under each corruption."""
    return TableView(
        ("Corruption", "Severity", "Reference", "Deployed", "Difference", "Interval", "Lost", "Gained", "Verdict"),
        tuple(
            (
                printable(row.corruption) if row.severity else "clean",
                count(row.severity) if row.severity else ABSENT,
                percent(row.reference_accuracy),
                percent(row.deployed_accuracy),
                points(row.difference),
                span(row.ci_low, row.ci_high),
                count(row.lost),
                count(row.gained),
                row.verdict,
            )
            for row in rows
        ),
    )


def probabilities(shift: Probabilities) -> TableView:
    """Calibration before and after, and a threshold that was set on the trained model."""
    ece, nll = (shift.reference_ece, shift.deployed_ece), (shift.reference_nll, shift.deployed_nll)
    threshold, brier_bounds = (
        shift.threshold,
        f"\n{shifted(shift.brier_ci_low, 4)}\nto {shifted(shift.brier_ci_high, 4)}",
    )
    kept = percent(threshold.kept, 0)
    selected = (threshold.reference_accuracy, threshold.deployed_accuracy)
    selected_change = None if selected[1] is None else selected[1] - selected[0]
    brier = shifted(shift.brier_difference, 4) + brier_bounds
    return TableView(
        ("", "Before", "After", "Change"),
        (
            ("calibration error (ECE)", *map(percent, ece), points(ece[1] - ece[0])),
            ("Brier score", number(shift.reference_brier), number(shift.deployed_brier), brier),
            ("negative log-likelihood", *map(number, nll), shifted(nll[1] - nll[0], 4)),
            (f"threshold that keeps {kept}", fixed(threshold.reference, 3), fixed(threshold.deployed, 3),
             shifted(threshold.shift, 4)),
            ("kept at the threshold from before", percent(threshold.kept, 1), percent(threshold.deployed_kept, 1),
             points(threshold.deployed_kept - threshold.kept)),
            ("accuracy of what it keeps", *map(percent, selected), points(selected_change)),
        ),
    )  # fmt: skip


def recall(classes: Sequence[tuple[str, ClassRecord]], what: str, samples: str) -> TableView | None:
    """Every class or label (``what``) before and after; ``samples`` is what they are called."""
    if not classes:
        return None
    return TableView(
        (what, samples, "Before", "After", "Difference", "Adj. p"),
        tuple(
            (
                printable(name),
                count(entry.n),
                percent(entry.reference_recall, 1),
                percent(entry.deployed_recall, 1),
                points(entry.difference, 1),
                ABSENT if entry.difference is None else fixed(entry.adjusted_p, 3),
            )
            for name, entry in classes
        ),
    )


def sizes(bundle: Bundle) -> TableView:
    """The model files of a bundle."""
    named = {"float": "float twin"}
    return TableView(
        ("Artifact", "File", "Runtime", "Precision", "Megabytes"),
        tuple(
            (
                named.get(role, printable(role)),
                *(printable(text) for text in (entry.file, entry.backend, entry.precision)),
                number(entry.bytes / 1e6),
            )
            for role, entry in sorted(bundle.manifest.artifacts.items())
        ),
        numbers_from=4,
    )


def files(bundle: Bundle) -> TableView:
    """Every file of a bundle with its hash."""
    listed = sorted(bundle.manifest.files.items())
    rows = tuple((printable(name), count(entry.bytes), entry.sha256) for name, entry in listed)
    return TableView(("File", "Bytes", "SHA-256"), rows, numbers_from=9)
