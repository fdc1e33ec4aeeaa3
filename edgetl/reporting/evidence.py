"""What a certificate found, measured and mended, prepared for the page; everything copes with older certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgetl.base.wording import count, percent, points, printable, small
from edgetl.reporting import diagrams, sentences, tables
from edgetl.reporting.facts import facts
from edgetl.reporting.views import TableView

#: Layers in the chart; the table has all.
CHARTED_LAYERS = 12
#: Layers named with a finding.
NAMED_LAYERS = 8
Record = Mapping[str, Any]


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
class Rung:
    """A model of the parity ladder; ``bar`` is a picture of its accuracy, ``facts`` compare it with the one above."""

    name: str
    accuracy: str
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
class Robustness:
    """Corruptions: a sentence, a caveat, one panel for each corruption as (name, chart), and the table."""

    sentence: str
    tested: str
    panels: tuple[tuple[str, str], ...]
    table: TableView


@dataclass(frozen=True)
class Evidence:
    """Everything beside the verdict itself; None or empty stands for what there is no record of."""

    findings: tuple[FindingView, ...]
    rungs: tuple[Rung, ...]
    divergence: str
    layers: Figure | None
    broken_layers: Figure | None
    repair: Figure | None
    robustness: Robustness | None
    probabilities: Figure | None
    gain: Figure | None


def evidence(certificate: Record, repair: Record | None, identity: str) -> Evidence:
    """Prepare a certificate.

    Args:
        certificate: the record; an empty one gives empty evidence.
        repair: the bundle's own record of its repair, which knows times that certificates leave out.
        identity: prefix that makes ids unique in the page.
    """
    mended = repair or certificate.get("repair") or {}
    return Evidence(
        findings=tuple(_finding(found) for found in certificate.get("findings") or ()),
        rungs=_rungs(certificate),
        divergence=sentences.divergence_sentence(certificate),
        layers=_layers(certificate.get("layers") or (), f"{identity}-layers"),
        broken_layers=_layers(mended.get("layers") or (), f"{identity}-broken"),
        repair=_repair(mended, mended.get("margin"), f"{identity}-repair"),
        robustness=_robustness(certificate.get("robustness") or {}, f"{identity}-corruption"),
        probabilities=_probabilities(certificate),
        gain=_gain(certificate, f"{identity}-gain"),
    )


def _finding(found: Record) -> FindingView:
    layers = [printable(layer) for layer in found.get("layers") or ()]
    return FindingView(
        severity="fatal" if found.get("severity") == "fatal" else "warning",
        title=printable(found.get("title") or found.get("kind")),
        what=printable(found.get("what") or ""),
        remedy=printable(found.get("remedy") or ""),
        layers=tuple(layers[:NAMED_LAYERS]),
        more=max(len(layers) - NAMED_LAYERS, 0),
        evidence=tuple(facts(found.get("evidence") or {})),
    )


def _rungs(certificate: Record) -> tuple[Rung, ...]:
    first = certificate.get("first_divergence")
    return tuple(_rung(rung, rung["name"] == first) for rung in certificate.get("ladder") or ())


def _rung(rung: Record, first: bool) -> Rung:
    told: list[tuple[str, str]] = []
    if rung.get("difference") is not None:
        told += [("agreement", percent(rung["agreement"])), ("difference", f"{points(rung['difference'])} points")]
    if rung.get("lost") is not None:
        told.append(("lost and gained", f"{count(rung['lost'])} and {count(rung['gained'])}"))
    if rung.get("logit_distance") is not None:
        told.append(("logit distance", small(rung["logit_distance"])))
    if rung.get("kl") is not None:
        told.append(("KL", f"{small(rung['kl'])} nats"))
    accuracy = rung.get("accuracy")
    bar = "" if accuracy is None else diagrams.bar(accuracy)
    return Rung(printable(rung["name"]), percent(accuracy), bar, tuple(told), bool(rung.get("diverges")), first)


def _name(layer: Record) -> str:
    return str(layer.get("module") or layer.get("node") or "the image")


def _layers(layers: Sequence[Record], chart_id: str) -> Figure | None:
    if not layers:
        return None
    shown = [
        diagrams.Noise(_name(layer), str(layer["cause"]), layer["sqnr_db"], layer["share"])
        for layer in layers[:CHARTED_LAYERS]
    ]
    worst = sum(noise.share for noise in shown[:3])
    sentence = (
        f"The {count(min(3, len(layers)))} noisiest of {count(len(layers))} make {percent(worst, 0)} of all noise."
    )
    return Figure(sentence, diagrams.layers(chart_id, shown), tables.layers(layers))


def _repair(repair: Record, margin: float | None, chart_id: str) -> Figure | None:
    trials = repair.get("trials") or ()
    if not repair:
        return None
    measured = [(str(i), t) for i, t in enumerate(trials, 1) if t.get("score") is not None]
    chart = ""
    unit = str(repair.get("unit", "share"))
    if len(measured) > 1 and unit == "share":
        trained = measured[0][1]["score"] - measured[0][1]["difference"]
        steps = [diagrams.Step(label, t["score"], t.get("integer_macs"), bool(t.get("kept"))) for label, t in measured]
        chart = diagrams.climb(chart_id, steps, trained, None if margin is None else trained - margin)
    return Figure(sentences.repair_sentence(repair), chart, tables.trials(trials, unit) if trials else None)


def _robustness(record: Record, chart_id: str) -> Robustness | None:
    rows = record.get("rows") or ()
    if not rows:
        return None
    clean, names = record["clean"], list(dict.fromkeys(row["corruption"] for row in rows))
    levels = [row[f"{model}_accuracy"] for row in (clean, *rows) for model in ("reference", "deployed")]
    low, high = max(min(levels) - 0.04, 0.0), min(max(levels) + 0.04, 1.0)
    panels = []
    for panel, name in enumerate(names, 1):
        found = [
            diagrams.Condition(
                row["severity"], row["reference_accuracy"], row["deployed_accuracy"], str(row["verdict"])
            )
            for row in (clean, *(row for row in rows if row["corruption"] == name))
        ]
        panels.append((printable(name), diagrams.severities(f"{chart_id}-{panel}", name, found, low, high)))
    worst = record["worst"]
    tested = (
        f"{count(record['n'])} of {count(record['available'])} certify images, {count(len(rows))} conditions, "
        f"each tested by itself. The greatest loss is under {printable(worst['corruption'])} at severity "
        f"{worst['severity']}: {points(worst['difference'])} points. Where both fail, they differ little."
    )
    return Robustness(
        printable(record["summary"]["sentence"]), tested, tuple(panels), tables.corruptions([clean, *rows])
    )


def _probabilities(certificate: Record) -> Figure | None:
    found = certificate.get("probabilities")
    if not found:
        return None
    return Figure(sentences.probability_sentence(certificate), "", tables.probabilities(found))


def _gain(certificate: Record, chart_id: str) -> Figure | None:
    gain = certificate.get("transfer_gain")
    if not gain:
        return None
    chart = ""
    if gain.get("retained") is not None:
        chart = diagrams.kept(chart_id, gain["retained"], gain.get("ci_low"), gain.get("ci_high"))
    return Figure(sentences.gain_sentence(certificate), chart, None)
