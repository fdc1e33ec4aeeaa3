"""What a run tells of its transfer, in sentences: for the terminal and for the page."""

from __future__ import annotations

from edgetl.base.wording import amount, bounds, change, counted, figure, percent
from edgetl.core.run import Run
from edgetl.core.transfer_outcome import RetentionRecord, TransferGap, TransferOutcome
from edgetl.reporting import metrics

#: What each gap is measured against.
AGAINST = {
    "start": "its linear start",
    "scratch": "the same network trained from scratch",
    "probe": "a linear probe",
}
#: What to do where the interval lies below 0.
REMEDIES = {
    "start": "Keep the start: --strategy linear-probe; or move less: a lower --learning-rate, --set freeze=0.5, "
    "--strategy lora.",
    "probe": "Keep the probe: --strategy linear-probe; or move less: a lower --learning-rate, --set freeze=0.5, "
    "--strategy lora.",
    "scratch": "Start from other weights (edgetl rank tells which suit), or from none: --weights none.",
}


def sentences(run: Run, outcome: TransferOutcome) -> tuple[str, ...]:
    """All that is told, a sentence or two each; nothing of a run that was not trained and has no baseline."""
    # Of several tasks a run that keeps its start says so once.
    gaps = list(dict.fromkeys(_gap(run, gap) for gap in outcome.gaps))
    told = [*filter(None, (outcome.absent,)), *gaps, *filter(None, (outcome.frozen,))]
    if outcome.retention is not None:
        told.append(_retention(outcome.retention))
    elif outcome.earlier:
        of = f"edgetl retention {run.path} --of {outcome.earlier}"
        told.append(f"How much it forgot of what its start knew was not measured: {of}")
    return tuple(told)


def is_negative(outcome: TransferOutcome) -> bool:
    """Whether some gap lies below 0."""
    return any(gap.helped == "worse" for gap in outcome.gaps)


def _gap(run: Run, gap: TransferGap) -> str:
    if gap.kept:
        return (
            "No epoch was better than the linear start, which the run keeps: training gained nothing and lost nothing."
        )
    of = "of the source" if run.adaptation is not None else ""
    samples = f"{counted(gap.n, 'validation sample')} {of}".strip()
    interval = f"{percent(gap.level, 0)} interval {bounds(gap.ci_low, gap.ci_high, gap.unit)}, {samples}"
    flatters = "; the epoch was chosen on the same samples, so the figure flatters it" if gap.chosen else ""
    metric = metrics.title(run.task, gap.metric)
    size, verb = amount(abs(round(gap.difference, 6)), gap.unit), "gained" if gap.difference >= 0 else "lost"
    scores = f"{metric} {figure(gap.before, gap.unit)} before and {figure(gap.after, gap.unit)} after"
    other = AGAINST[gap.against]
    if gap.against != "start":
        scores = f"{metric} {figure(gap.before, gap.unit)} there and {figure(gap.after, gap.unit)} here"
    told = f"training {verb} {size} over {other} ({interval}; {scores}{flatters})."
    if gap.helped == "worse":
        return f"Negative transfer: {told} {REMEDIES[gap.against]}"
    unsure = " The interval holds 0: whether it helps is not shown." if gap.helped == "not shown" else ""
    return f"{told[:1].upper()}{told[1:]}{unsure}"


def _retention(record: RetentionRecord) -> str:
    kept = record.retained
    before, after = (figure(score, kept.unit) for score in (kept.before, kept.after))
    interval = bounds(kept.ci_low, kept.ci_high, kept.unit)
    return (
        f"Of what {record.name} knew: {kept.metric} {before} before and {after} with this backbone, "
        f"{change(kept.difference, kept.unit)} ({interval}), on {counted(kept.n, 'sample')} of its task."
    )
