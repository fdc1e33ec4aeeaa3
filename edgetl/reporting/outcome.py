"""A certificate on the terminal: the verdict, what is wrong and what to do, and the figures behind it, in short."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from edgetl.base.wording import bounds, count, difference, figure, fixed, number, percent, printable, small
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import Rung
from edgetl.core.compression import LayerNoise, RepairRecord
from edgetl.core.findings import Finding
from edgetl.reporting import metrics, sentences, tables
from edgetl.reporting.console import STYLES, print_table
from edgetl.reporting.terms import EXECUTED, VERDICTS

#: Layers that a terminal shows; the page has all.
WORST = 5


def print_certificate(console: Console, certificate: Certificate) -> None:
    """Print what a certificate says, in lines as long as the console is wide."""
    _verdict(console, certificate)
    for finding in certificate.findings:
        _finding(console, finding)
    _parts(console, certificate)
    _scores(console, certificate)
    _ladder(console, certificate)
    _layers(console, certificate.layers)
    if certificate.repair:
        _repair(console, certificate.repair)
    robustness = certificate.robustness
    for sentence in (
        sentences.gain_sentence(certificate),
        sentences.probability_sentence(certificate),
        printable(robustness.summary.sentence) if robustness else "",
    ):
        if sentence:
            console.print(Text(sentence))


def _verdict(console: Console, certificate: Certificate) -> None:
    verdict = Text(VERDICTS[certificate.verdict], STYLES[certificate.verdict])
    console.print(Text.assemble(verdict, "  ", sentences.verdict_sentence(certificate)))
    console.print(Text(sentences.measured_sentence(certificate)))
    parts = (certificate.runtime, certificate.precision, certificate.isa)
    runtime = " ".join(printable(part) for part in parts if part)
    where = EXECUTED[certificate.executed]
    console.print(Text(f"Executed: {where}{f' ({runtime})' if runtime else ''}.", "dim"))
    # A finding is printed below with its remedy, and the sentence above is the first reason already.
    printed = tuple(finding.what for finding in certificate.findings)
    for lines, style in ((certificate.reasons, ""), (certificate.notes, "dim")):
        for line in lines:
            if not line.startswith(printed):
                console.print(Text(f"- {printable(line)}", style))


def _finding(console: Console, finding: Finding) -> None:
    fatal = finding.severity == "fatal"
    name = Text("fatal  " if fatal else "warning", "bold red" if fatal else "bold yellow")
    console.print(Text.assemble(name, "  ", (f"{printable(finding.title)}: ", "bold"), printable(finding.what)))
    if finding.remedy:
        console.print(Text(f"         remedy: {printable(finding.remedy)}"))


def _parts(console: Console, certificate: Certificate) -> None:
    """The verdict on each of several tasks."""
    if (found := tables.parts(certificate)) is not None:
        console.print()
        print_table(console, ["task", "verdict", "samples"], [list(row[:3]) for row in found.rows])


def _scores(console: Console, certificate: Certificate) -> None:
    """Every metric, where there are others than the one of the sentence above."""
    if len(certificate.scores) < 2:
        return
    rows = [
        [
            metrics.short(certificate.task, name),
            figure(score.reference, score.unit),
            figure(score.deployed, score.unit),
            difference(score.difference, score.unit),
            bounds(score.ci_low, score.ci_high, score.unit),
            score.verdict,
        ]
        for name, score in tables.ordered(certificate)
    ]
    console.print()
    print_table(console, ["metric", "before", "after", "change", "interval", "by itself"], rows)


def _ladder(console: Console, certificate: Certificate) -> None:
    rungs, unit = certificate.ladder, certificate.unit
    if not rungs:
        return
    logits = any(rung.logit_distance is not None for rung in rungs)
    metric = metrics.short(certificate.task, certificate.metric)
    distances = ["logits", "KL"] if logits else ["divergence"]
    named = tables.difference_heading(unit).lower()

    def cells(rung: Rung) -> list[str]:
        return [
            rung.name,
            figure(rung.score, unit),
            percent(rung.agreement),
            difference(rung.difference, unit),
            *([small(rung.logit_distance), small(rung.kl)] if logits else [small(rung.divergence)]),
            "first" if rung.name == certificate.first_divergence else "yes" if rung.diverges else "",
        ]

    console.print()
    print_table(console, ["rung", metric, "agreement", named, *distances, "diverges"], [cells(r) for r in rungs])


def _layers(console: Console, layers: Sequence[LayerNoise]) -> None:
    if not layers:
        return
    rows = [[layer.name, layer.cause, fixed(layer.sqnr_db, 1), percent(layer.share, 1)] for layer in layers[:WORST]]
    console.print()
    print_table(console, [f"noisiest of {count(len(layers))} layers", "quantized", "SQNR dB", "of the noise"], rows)


def _repair(console: Console, repair: RepairRecord) -> None:
    console.print()
    console.print(Text(sentences.repair_sentence(repair)))
    if not repair.needed:
        return
    rows = [
        [
            f"{index} kept" if trial.kept else index,
            trial.remedy,
            trial.change or trial.note,
            difference(trial.difference, repair.unit),
            percent(trial.integer_macs, 1),
            number(trial.ms),
            number(trial.seconds),
        ]
        for index, trial in enumerate(repair.trials, 1)
    ]
    named = tables.difference_heading(repair.unit).lower()
    print_table(console, ["trial", "remedy", "change", named, "integer", "ms", "s"], rows)
    console.print()
