"""A certificate on the terminal: the verdict, what is wrong and what to do, and the figures behind it, in short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from edgetl.base.wording import count, number, percent, points, printable, signed, small
from edgetl.reporting import sentences
from edgetl.reporting.console import STYLES, print_table
from edgetl.reporting.wording import EXECUTED, VERDICTS, measured_sentence, verdict_sentence

#: Layers and corruptions that a terminal shows; the page has all.
WORST = 5
Record = Mapping[str, Any]


def print_certificate(console: Console, certificate: Record) -> None:
    """Print what a certificate says.

    Args:
        console: where to; lines are as long as it is wide.
        certificate: the record, as :meth:`edgetl.certify.Certificate.to_json` gives it, perhaps of an older version
            that lacks some of it.
    """
    _verdict(console, certificate)
    for found in certificate.get("findings") or ():
        _finding(console, found)
    _ladder(console, certificate)
    _layers(console, certificate.get("layers") or ())
    _repair(console, certificate.get("repair") or {})
    summary = (certificate.get("robustness") or {}).get("summary") or {}
    for sentence in (
        sentences.balanced_sentence(certificate) if certificate.get("metric") != "balanced-accuracy" else "",
        sentences.gain_sentence(certificate),
        sentences.probability_sentence(certificate),
        printable(summary.get("sentence") or ""),
    ):
        if sentence:
            console.print(Text(sentence))


def _verdict(console: Console, certificate: Record) -> None:
    verdict, executed = str(certificate["verdict"]), str(certificate.get("executed") or "")
    named = Text(VERDICTS.get(verdict, printable(verdict)), STYLES.get(verdict, ""))
    console.print(Text.assemble(named, "  ", verdict_sentence(certificate)))
    console.print(Text(measured_sentence(certificate)))
    ran = " ".join(printable(certificate[part]) for part in ("runtime", "precision", "isa") if certificate.get(part))
    if executed:
        console.print(Text(f"Executed: {EXECUTED.get(executed, executed)}{f' ({ran})' if ran else ''}.", "dim"))
    told = tuple(str(found["what"]) for found in certificate.get("findings") or ())
    for name, style in (("reasons", ""), ("notes", "dim")):
        for line in certificate.get(name) or ():
            # A finding is printed below with its remedy, and the sentence above is the first reason already.
            if not str(line).startswith(told):
                console.print(Text(f"- {printable(line)}", style))


def _finding(console: Console, found: Record) -> None:
    fatal = found.get("severity") == "fatal"
    name = Text("fatal  " if fatal else "warning", "bold red" if fatal else "bold yellow")
    title = printable(found.get("title") or found.get("kind"))
    console.print(Text.assemble(name, "  ", (f"{title}: ", "bold"), printable(found.get("what") or "")))
    if found.get("remedy"):
        console.print(Text(f"         remedy: {printable(found['remedy'])}"))


def _ladder(console: Console, certificate: Record) -> None:
    rungs: Sequence[Record] = certificate.get("ladder") or ()
    if not rungs:
        return
    first = certificate.get("first_divergence")
    rows = [
        [
            rung["name"],
            percent(rung["accuracy"]),
            percent(rung["agreement"]),
            points(rung.get("difference")),
            small(rung.get("logit_distance")),
            small(rung.get("kl")),
            "first" if rung["name"] == first else "yes" if rung.get("diverges") else "",
        ]
        for rung in rungs
    ]
    console.print()
    print_table(console, ["rung", "accuracy", "agreement", "points", "logits", "KL", "diverges"], rows)


def _layers(console: Console, layers: Sequence[Record]) -> None:
    if not layers:
        return
    rows = [
        [
            layer.get("module") or layer.get("node") or "the image",
            layer["cause"],
            f"{layer['sqnr_db']:.1f}".replace("-", "−"),
            percent(layer["share"], 1),
        ]
        for layer in layers[:WORST]
    ]
    console.print()
    print_table(console, [f"noisiest of {count(len(layers))} layers", "quantized", "SQNR dB", "of the noise"], rows)


def _repair(console: Console, repair: Record) -> None:
    if not repair:
        return
    console.print()
    console.print(Text(sentences.repair_sentence(repair)))
    if not repair.get("needed"):
        return
    difference, title = (points, "points") if repair.get("unit", "share") == "share" else (signed, "gain")
    rows = [
        [
            f"{index} kept" if trial.get("kept") else index,
            trial["remedy"],
            trial.get("change") or trial.get("note") or "",
            difference(trial.get("difference")),
            percent(trial.get("integer_macs"), 1),
            number(trial.get("ms")),
            number(trial.get("seconds")),
        ]
        for index, trial in enumerate(repair.get("trials") or (), 1)
    ]
    print_table(console, ["trial", "remedy", "change", title, "integer", "ms", "s"], rows)
    console.print()
