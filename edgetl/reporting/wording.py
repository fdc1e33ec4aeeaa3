"""Numbers and verdicts in words, the same on the console and in the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgetl.base.wording import count, number, percent, points, printable
from edgetl.inputs import INPUTS

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

METRICS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "balanced-accuracy": "balanced accuracy",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R²",
}
#: Metrics that are a share of images, so that differences are percentage points.
SHARES = ("accuracy", "balanced-accuracy")


def nouns(kind: str) -> str:
    """What samples of a kind of input are called: images, texts, arrays; samples where the kind is unknown."""
    return f"{INPUTS[kind].noun}s" if kind in INPUTS else "samples"


def megabytes(size: int | None) -> float | None:
    """Bytes as megabytes of 10^6 bytes."""
    return None if size is None else size / 1e6


def lines(text: str) -> str:
    """A text of several lines with every other control character replaced."""
    return "\n".join(printable(line) for line in text.splitlines())


def metric_of(certificate: Mapping[str, Any]) -> str:
    """The key in :data:`METRICS` of what the verdict is about."""
    return str(certificate.get("metric") or "accuracy")


def verdict_sentence(certificate: Mapping[str, Any]) -> str:
    """What the verdict means, in one sentence with its numbers."""
    metric = metric_of(certificate)
    of = f" of {METRICS.get(metric, metric)}"
    limit = certificate["margin"]
    margin = f"{100 * limit:.2f} points" if metric in SHARES else number(limit)
    confidence = f"{100 * (1 - certificate['alpha']):g} %"
    if limit == 0 and certificate["verdict"] != "fail":
        better = f"With {confidence} confidence the deployed model is better than the one that was trained."
        worse = f"These {count(certificate['n'])} images do not prove the deployed model better, as a margin of 0 asks."
        return better if certificate["verdict"] == "pass" else worse
    if certificate["verdict"] == "pass":
        return f"With {confidence} confidence the deployed model loses less than {margin}{of} to the trained model."
    if certificate["verdict"] == "fail":
        if certificate["ci_high"] < -limit:
            return f"With {confidence} confidence the deployed model loses more than {margin}{of}."
        if certificate["difference"] <= -limit:
            return f"The loss that was observed is not below {margin}, the greatest that was accepted."
        return "The transfer did not survive, for the reasons below."
    needed = certificate.get("n_needed")
    enough = f" About {count(needed)} images would be needed." if needed else ""
    return f"These {count(certificate['n'])} images cannot tell a loss of {margin} from none.{enough}"


def measured_sentence(certificate: Mapping[str, Any]) -> str:
    """The metric of both models and the interval of its difference."""
    flips, metric = certificate.get("flips") or {}, metric_of(certificate)
    moved = ""
    if "lost" in flips and "gained" in flips:
        moved = f" It lost {count(flips['lost'])} images that were right before and gained {count(flips['gained'])}."
    bounds = (certificate["difference"], certificate["ci_low"], certificate["ci_high"])
    if metric in SHARES:
        difference, low, high = (points(value) for value in bounds)
    else:
        difference, low, high = (number(value) for value in bounds)
    return (
        f"On {count(certificate['n'])} held-out images {_both(certificate, metric)}: a difference of {difference}"
        f"{' points' if metric in SHARES else ''}, interval {low} to {high} "
        f"({100 * (1 - certificate['alpha']):g} % confidence at each end).{moved}"
    )


def _both(certificate: Mapping[str, Any], metric: str) -> str:
    if metric == "accuracy":
        before, after = (percent(certificate[f"{model}_accuracy"]) for model in ("reference", "deployed"))
        return f"the trained model is right on {before} and the deployed one on {after}"
    told = percent if metric in SHARES else number
    before, after = (told(certificate.get(f"{model}_score")) for model in ("reference", "deployed"))
    return f"the trained model has a {METRICS.get(metric, metric)} of {before} and the deployed one of {after}"


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
