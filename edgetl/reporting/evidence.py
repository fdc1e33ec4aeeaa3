"""What a certificate found, measured and repaired, prepared for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetl.base.wording import change, count, figure, percent, printable, small
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import Robustness, Rung
from edgetl.core.compression import LayerNoise, RepairRecord
from edgetl.core.findings import Finding
from edgetl.reporting import diagrams, metrics, sentences, tables
from edgetl.reporting.facts import facts
from edgetl.reporting.views import TableView

#: Layers in the chart; the table has all.
CHARTED_LAYERS = 12
#: Layers named with a finding.
NAMED_LAYERS = 8


@dataclass(frozen=True)
class FindingView:
    """A finding; ``severity`` is fatal or warning, ``more`` counts the layers that are not listed."""

    severity: str
    title: str
    what: str
    remedy: str
    layers: tuple[str, ...]
    more: int
    evidence: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RungView:
    """A model of the parity ladder.

    ``bar`` is a picture of its score, "" where that is no share; ``facts`` compare it with the one above.
    """

    name: str
    score: str
    bar: str
    facts: tuple[tuple[str, str], ...]
    diverges: bool
    first: bool


@dataclass(frozen=True)
class Figure:
    """A chart, which may be "", with a sentence and a table that say the same."""

    sentence: str
    chart: str
    table: TableView | None


@dataclass(frozen=True)
class RobustnessView:
    """Corruptions: a sentence, a caveat, one panel for each corruption as (name, chart), and the table."""

    sentence: str
    tested: str
    panels: tuple[tuple[str, str], ...]
    table: TableView


@dataclass(frozen=True)
class Evidence:
    """Everything beside the verdict itself; None or empty stands for what there is no record of."""

    findings: tuple[FindingView, ...]
    rungs: tuple[RungView, ...]
    divergence: str
    layers: Figure | None
    broken_layers: Figure | None
    repair: Figure | None
    robustness: RobustnessView | None
    probabilities: Figure | None
    gain: Figure | None


def evidence(certificate: Certificate | None, repair: RepairRecord | None, task: str, identity: str) -> Evidence:
    """Prepare a certificate.

    Args:
        certificate: None gives what is known of the repair alone.
        repair: the bundle's own record of its repair, which knows times that certificates leave out.
        task: the bundle's.
        identity: prefix that makes ids unique in the page.
    """
    repaired = repair or (certificate.repair if certificate else None)
    shift = certificate.probabilities if certificate else None
    robustness = certificate.robustness if certificate else None
    return Evidence(
        findings=tuple(map(_finding, certificate.findings)) if certificate else (),
        rungs=tuple(_rung(certificate, rung) for rung in certificate.ladder) if certificate else (),
        divergence=sentences.divergence_sentence(certificate) if certificate else "",
        layers=_layers(certificate.layers if certificate else (), f"{identity}-layers"),
        broken_layers=_layers(repaired.layers if repaired else (), f"{identity}-broken"),
        repair=_repair(repaired, task, f"{identity}-repair") if repaired else None,
        robustness=_robustness(robustness, certificate.sample, f"{identity}-corruption")
        if certificate and robustness
        else None,
        probabilities=Figure(sentences.probability_sentence(certificate), "", tables.probabilities(shift))
        if certificate and shift
        else None,
        gain=_gain(certificate, f"{identity}-gain") if certificate else None,
    )


def _finding(finding: Finding) -> FindingView:
    layers = [printable(layer) for layer in finding.layers]
    return FindingView(
        severity=finding.severity,
        title=printable(finding.title),
        what=printable(finding.what),
        remedy=printable(finding.remedy),
        layers=tuple(layers[:NAMED_LAYERS]),
        more=max(len(layers) - NAMED_LAYERS, 0),
        evidence=tuple(facts(finding.evidence)),
    )


def _rung(certificate: Certificate, rung: Rung) -> RungView:
    named: list[tuple[str, str]] = []
    if rung.difference is not None:
        difference = change(rung.difference, certificate.unit)
        named += [("agreement", percent(rung.agreement)), ("difference", difference)]
    if rung.lost is not None:
        named.append(("lost and gained", f"{count(rung.lost)} and {count(rung.gained)}"))
    if rung.logit_distance is not None:
        named.append(("logit distance", small(rung.logit_distance)))
    if rung.kl is not None:
        named.append(("KL", f"{small(rung.kl)} nats"))
    elif rung.divergence is not None:
        named.append(("divergence", small(rung.divergence)))
    return RungView(
        name=printable(rung.name),
        score=figure(rung.score, certificate.unit),
        bar=diagrams.bar(rung.score) if certificate.unit == "share" else "",
        facts=tuple(named),
        diverges=rung.diverges,
        first=rung.name == certificate.first_divergence,
    )


def _layers(layers: Sequence[LayerNoise], chart_id: str) -> Figure | None:
    if not layers:
        return None
    charted = [diagrams.Noise(layer.name, layer.cause, layer.sqnr_db, layer.share) for layer in layers[:CHARTED_LAYERS]]
    worst = sum(noise.share for noise in charted[:3])
    sentence = (
        f"The {count(min(3, len(layers)))} noisiest of {count(len(layers))} make {percent(worst, 0)} of all noise."
    )
    return Figure(sentence, diagrams.layers(chart_id, charted), tables.layers(layers))


def _repair(repair: RepairRecord, task: str, chart_id: str) -> Figure:
    trials = [(str(i), t) for i, t in enumerate(repair.trials, 1) if t.score is not None]
    chart = ""
    # Its axis is one of shares: of what else a metric may be, the table has the figures.
    if len(trials) > 1 and repair.unit == "share":
        first = trials[0][1]
        trained = (first.score or 0.0) - (first.difference or 0.0)
        steps = [diagrams.Step(label, t.score or 0.0, t.integer_macs, t.kept) for label, t in trials]
        title = metrics.title(task, repair.metric)
        chart = diagrams.repair_trials(chart_id, title, steps, trained, trained - repair.margin)
    return Figure(sentences.repair_sentence(repair), chart, tables.trials(repair, task) if repair.trials else None)


def _robustness(record: Robustness, sample: str, chart_id: str) -> RobustnessView:
    rows, clean = record.rows, record.clean
    levels = [level for row in (clean, *rows) for level in (row.reference_accuracy, row.deployed_accuracy)]
    low, high = max(min(levels) - 0.04, 0.0), min(max(levels) + 0.04, 1.0)
    panels = []
    for panel, name in enumerate(dict.fromkeys(row.corruption for row in rows), 1):
        conditions = [
            diagrams.Condition(row.severity, row.reference_accuracy, row.deployed_accuracy, row.verdict)
            for row in (clean, *(row for row in rows if row.corruption == name))
        ]
        panels.append((printable(name), diagrams.severities(f"{chart_id}-{panel}", name, conditions, low, high)))
    worst = record.worst
    tested = (
        f"{count(record.n)} of {count(record.available)} certify {sample}s, {count(len(rows))} conditions, "
        f"each tested by itself. The greatest loss is under {printable(worst.corruption)} at severity "
        f"{worst.severity}: {change(worst.difference, 'share')}. Where both fail, they differ little."
    )
    return RobustnessView(printable(record.summary.sentence), tested, tuple(panels), tables.corruptions([clean, *rows]))


def _gain(certificate: Certificate, chart_id: str) -> Figure | None:
    gain = certificate.transfer_gain
    if gain is None:
        return None
    chart = "" if gain.retained is None else diagrams.kept(chart_id, gain.retained, gain.ci_low, gain.ci_high)
    return Figure(sentences.gain_sentence(certificate), chart, None)
