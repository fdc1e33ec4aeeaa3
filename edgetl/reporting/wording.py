"""Numbers and verdicts in words, the same on the console and in the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: Stands wherever nothing was measured.
ABSENT = "—"

VERDICTS: Mapping[str, str] = {
    "pass": "pass",
    "fail": "fail",
    "underpowered": "underpowered",
    "": "not verified",
}
EXECUTED: Mapping[str, str] = {
    "device": "on the device",
    "host": "on the host",
    "simulated": "simulated",
    "": "not executed",
}


def percent(share: float | None, digits: int = 2) -> str:
    """A share from 0 to 1 as a percentage."""
    return ABSENT if share is None else f"{100 * share:.{digits}f} %"


def points(difference: float | None, digits: int = 2) -> str:
    """A difference of two shares in percentage points, with its sign."""
    if difference is None:
        return ABSENT
    text = f"{100 * difference:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def span(low: float | None, high: float | None) -> str:
    """An interval of a difference, in percentage points."""
    return ABSENT if low is None or high is None else f"{points(low)} to {points(high)}"


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits, never in scientific notation."""
    if value is None:
        return ABSENT
    if value == 0:
        return f"0 {unit}".strip()
    digits = max(0, min(6, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{digits}f}" + (f" {unit}" if unit else "")


def count(value: int | None) -> str:
    """A whole number with thousands separated."""
    return ABSENT if value is None else f"{value:,}"


def times(value: float | None) -> str:
    """A ratio, such as a speed-up."""
    return ABSENT if value is None else f"{value:.2f}x"


def megabytes(size: int | None) -> float | None:
    """Bytes as megabytes of 10^6 bytes."""
    return None if size is None else size / 1e6


def printable(text: object) -> str:
    """``text`` with every control character replaced, so that a file name cannot steer a terminal or a page."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(text))


def verdict_sentence(certificate: Mapping[str, Any]) -> str:
    """What the verdict means, in one sentence with its numbers."""
    margin = f"{100 * certificate['margin']:.2f} points"
    confidence = f"{100 * (1 - certificate['alpha']):g} %"
    if certificate["margin"] == 0 and certificate["verdict"] != "fail":
        better = f"With {confidence} confidence the deployed model is better than the one that was trained."
        worse = f"These {count(certificate['n'])} images do not prove the deployed model better, as a margin of 0 asks."
        return better if certificate["verdict"] == "pass" else worse
    if certificate["verdict"] == "pass":
        return (
            f"With {confidence} confidence the deployed model loses less than {margin} of accuracy "
            "to the model that was trained."
        )
    if certificate["verdict"] == "fail":
        if certificate["ci_high"] < -certificate["margin"]:
            return f"With {confidence} confidence the deployed model loses more than {margin} of accuracy."
        if certificate["difference"] <= -certificate["margin"]:
            return f"The loss that was observed is not below {margin}, the greatest that was accepted."
        return "The transfer did not survive, for the reasons below."
    needed = certificate.get("n_needed")
    enough = f" About {count(needed)} images would be needed." if needed else ""
    return f"These {count(certificate['n'])} images cannot tell a loss of {margin} from none.{enough}"


def measured_sentence(certificate: Mapping[str, Any]) -> str:
    """Both accuracies and the interval of their difference."""
    flips = certificate.get("flips") or {}
    moved = ""
    if "lost" in flips and "gained" in flips:
        moved = f" It lost {count(flips['lost'])} images that were right before and gained {count(flips['gained'])}."
    return (
        f"On {count(certificate['n'])} held-out images the trained model is right on "
        f"{percent(certificate['reference_accuracy'])} and the deployed one on "
        f"{percent(certificate['deployed_accuracy'])}: a difference of {points(certificate['difference'])} points, "
        f"interval {span(certificate['ci_low'], certificate['ci_high'])} "
        f"({100 * (1 - certificate['alpha']):g} % confidence at each end).{moved}"
    )


def executed_sentences(certificate: Mapping[str, Any], target: str) -> tuple[str, str]:
    """What was executed to get the deployed predictions, and what was not."""
    executed, place = certificate["executed"], certificate.get("executed_on") or {}
    where = place.get("cpu_model") if place.get("device") == "local" else place.get("device")
    name = f" ({printable(where)})" if where else ""
    if executed == "device":
        return f"The artifact ran on a {target} device{name}, from image file to label, with its own runtime.", ""
    if executed == "host":
        return (
            "The artifact itself ran, from image file to label, with its own runtime, on the machine that wrote the "
            f"certificate{name}.",
            f"No other {target} machine was tried. Verify it there with: edgetl verify BUNDLE --device NAME",
        )
    emulated = f"The artifact itself ran, with its own runtime, but on an emulated CPU{name}."
    arithmetic = f"The artifact's arithmetic was simulated on another machine{name}."
    return (
        emulated if place.get("kind") == "emulated" else arithmetic,
        f"The artifact did not run on a {target}: its accuracy there may differ, and no time was measured. "
        "Certify it on the device with: edgetl verify BUNDLE --device NAME",
    )
