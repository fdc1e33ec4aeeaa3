"""What may be wrong with a transfer: the kinds, how grave each is, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from edgetl.base.errors import UnknownNameError

Severity = Literal["fatal", "warning"]


class Kind(NamedTuple):
    """A kind of fault: its severity, a title, and what to do about it.

    ``fatal`` means that the comparison or the deployment is wrong by definition: the certificate fails whatever the
    accuracies are. ``warning`` means a risk about which the paired test has the last word.
    """

    severity: Severity
    title: str
    remedy: str


KINDS: Mapping[str, Kind] = {
    "channel-order": Kind("fatal", "red and blue are swapped", "feed RGB: convert from BGR once, before the network"),
    "normalisation": Kind(
        "fatal", "the mean or standard deviation differs from training's", "export again: the graph normalises itself"
    ),
    "crop-before-resize": Kind("fatal", "the image is cropped before it is resized", "resize first, then crop"),
    "interpolation": Kind(
        "fatal", "the image is resized by another filter than in training", "use the filter of preprocess.json"
    ),
    "crop-ratio": Kind(
        "fatal", "another part of the image is cropped than in training", "use the resize length of preprocess.json"
    ),
    "layout": Kind(
        "fatal", "pixels are read in another layout (NHWC against NCHW)", "feed NHWC, as the graph declares"
    ),
    "preprocessing": Kind(
        "fatal", "the image is prepared in another way than in training", "use preprocess.json as it is"
    ),
    "label-order": Kind("fatal", "the classes are in another order than in training", "use labels.json as it is"),
    "calibration-noise": Kind(
        "warning", "the activation ranges are those of noise, not of samples", "calibrate with samples of the task"
    ),
    "calibration-one-class": Kind(
        "warning", "the ranges come from samples of one class", "choose class-balanced calibration samples"
    ),
    "calibration-too-few": Kind("warning", "the ranges come from too few samples", "calibrate with 32 samples or more"),
    "calibration-stale": Kind(
        "warning", "the ranges do not fit this model: they belong to another one", "calibrate this very model again"
    ),
    "calibration-overlap": Kind(
        "fatal", "samples of the certify split were used for calibration", "export again: certify samples are read once"
    ),
    "per-tensor-depthwise": Kind(
        "warning", "depthwise layers have one weight scale for all channels", "quantize their weights per channel"
    ),
    "batch-norm-training": Kind(
        "fatal", "batch normalisation is in training mode", "call eval() on every module, then export again"
    ),
    "saturation": Kind(
        "warning", "activations exceed what their 8-bit type can hold", "widen the ranges, or use unsigned activations"
    ),
    "another-model": Kind(
        "fatal", "the weights are those of another model", "give the artifact that was made from this very run"
    ),
    "dead-channel": Kind("fatal", "a channel's weights were lost", "export again from the run's weights"),
    "damaged-class": Kind(
        "fatal", "the weights of one class in the last layer were damaged", "export again from the run's weights"
    ),
    "quantization-noise": Kind(
        "warning", "quantization destroys the output of some layers", "let export repair it, or leave them in float"
    ),
    "not-repaired": Kind(
        "fatal",
        "no remedy brought the loss on the search split below the margin",
        "deploy a float precision, give repair more minutes, or accept a wider --margin",
    ),
    "runtime": Kind(
        "warning", "the runtime computes something else than the graph says", "update it, or verify with another one"
    ),
    "graphs-not-read": Kind(
        "warning",
        "the graphs were not looked into: a package is missing here",
        "verify again where edgetl[train] and the extra of the bundle's runtime are installed",
    ),
    "reference-not-reproduced": Kind(
        "fatal",
        "the reference does not reproduce its own training metric",
        "restore the run's weights, labels and samples, then export again",
    ),
    "suspicious-gain": Kind(
        "warning",
        "the deployed model is far better than the one it was made from",
        "check the reference's labels and preprocessing: compression adds no knowledge",
    ),
    "negative-transfer": Kind(
        "warning", "the transfer did not help", "train longer, choose another backbone, or deploy the baseline"
    ),
}


@dataclass(frozen=True)
class Finding:
    """One fault that was found.

    Attributes:
        kind: a key of :data:`KINDS`.
        what: one sentence: what was found, where, with the figures that show it.
        layers: torch modules or graph nodes concerned, the worst first.
        evidence: figures and names behind the sentence, as plain JSON values.
    """

    kind: str
    what: str
    layers: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("kind of fault", self.kind, KINDS)

    @property
    def severity(self) -> Severity:
        """See :class:`Kind`."""
        return KINDS[self.kind].severity

    @property
    def title(self) -> str:
        """What it is called."""
        return KINDS[self.kind].title

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return KINDS[self.kind].remedy

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "title": self.title,
            "what": self.what,
            "remedy": self.remedy,
            "layers": list(self.layers),
            "evidence": dict(self.evidence),
        }
