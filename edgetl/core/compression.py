"""What compression leaves in a bundle: how it was quantized, on which samples, the noise of each layer, the repair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edgetl.base.schema import Json

#: What stands for a layer where a tensor comes from none.
NETWORK_INPUT = "the input"


@dataclass(frozen=True)
class ForeignArtifact:
    """The file of another tool that is deployed.

    Attributes:
        file: its name.
        sha256: of its content; where its weights are in other files, of the hashes of all.
        producer: what the file says of who wrote it; "" where it says nothing.
        changes: what edgetl put before and behind it, a clause each.
    """

    file: str = ""
    sha256: str = ""
    producer: str = ""
    changes: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What every certificate of it has to say."""
        who = f"which its file calls {self.producer}" if self.producer else "which its file does not name"
        changed = (
            f" edgetl changed it: {'; '.join(self.changes)}." if self.changes else " edgetl changed nothing of it."
        )
        return f"The artifact {self.file} was compressed by another tool, {who}.{changed}"


@dataclass(frozen=True)
class Quantization:
    """How the deployed model came about from the float one.

    Attributes:
        precision: int8, fp16 or fp32.
        engine: who did it, with its version.
        recipe: the whole calibration recipe; None for a float precision.
        samples: how many it was calibrated on.
        source_sha256: of the float ONNX file.
        left_in_float: nodes that are not quantized.
        model_type: what NNCF was told of the model; None elsewhere.
        estimator, bias_correction, equalization, pairs_removed: what the engine says of each; None where it was not
            done.
        foreign: the file, where another tool compressed it; None where edgetl did.
    """

    precision: str = ""
    engine: str = ""
    recipe: Mapping[str, Json] | None = None
    samples: int = 0
    source_sha256: str = ""
    left_in_float: tuple[str, ...] = ()
    model_type: str | None = None
    estimator: Json = None
    bias_correction: Json = None
    equalization: Json = None
    pairs_removed: Json = None
    foreign: ForeignArtifact | None = None


@dataclass(frozen=True)
class CalibrationSample:
    """A sample that gave ranges; ``label`` is what its task's labels are."""

    path: str
    sha256: str
    label: int | float | tuple[Json, ...] | None = None


@dataclass(frozen=True)
class Calibration:
    """Which samples gave the ranges: ``calibration.json``.

    Attributes:
        split: they are from.
        selection, seed: how they were drawn; None where nothing is calibrated.
        available, size: samples of the split, and those chosen.
        balanced: what the selection balances, in words; "" where it does not.
        samples: the chosen ones, in order.
    """

    split: str = "calibration"
    selection: str | None = None
    seed: int = 0
    available: int = 0
    size: int = 0
    balanced: str = ""
    samples: tuple[CalibrationSample, ...] = ()


@dataclass(frozen=True)
class LayerNoise:
    """What quantizing one layer's weights, or the activations that it produces, does to the layer that reads them.

    Attributes:
        node, module: the layer to blame: whose weights are quantized, or that produces the quantized tensor; "" for
            the network's input.
        cause: weights or activations.
        sqnr_db: signal to quantization noise at the consumer's output, decibels.
        share: part of the noise-to-signal ratios of all layers, 0 to 1.
        saturated: share of the activations beyond the ends of the grid; 0 for weights.
        consumer: node at whose output the noise was measured.
    """

    node: str
    module: str
    cause: Literal["weights", "activations"]
    sqnr_db: float
    share: float
    saturated: float
    consumer: str

    @property
    def name(self) -> str:
        """What a reader calls the layer: its module, else its node, else the network's input."""
        return self.module or self.node or NETWORK_INPUT


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One attempt of a repair, measured on the search split, or a remedy that was passed over.

    Attributes:
        remedy: which one; "default" for the first attempt.
        change: what differs from the attempt that it builds on, in words.
        precision: int8 or fp16; None where nothing was tried.
        n: search samples; it and all other figures are None where the attempt could not be made.
        score: in the metric of the repair.
        difference, expected_difference: how much better than the trained model's it is; negative is a loss.
        lost, gained: samples that only the trained model, or only the attempt, gets right.
        divergence: of its outputs from the trained model's, as the task measures it.
        collapsed: classes whose recall fell by more than chance.
        integer_macs: share of multiply-accumulates in integers.
        ms, ms_unit: time of a sample and how it was taken.
        seconds: spent on it.
        kept: whether it was the best until then: the last such one is deployed.
        note: why it was not made, or "".
    """

    remedy: str
    change: str = ""
    precision: str | None = None
    n: int | None = None
    score: float | None = None
    difference: float | None = None
    expected_difference: float | None = None
    lost: int | None = None
    gained: int | None = None
    divergence: float | None = None
    integer_macs: float | None = None
    ms: float | None = None
    collapsed: tuple[str, ...] = ()
    ms_unit: str = ""
    seconds: float | None = None
    kept: bool = False
    note: str = ""


@dataclass(frozen=True)
class RepairRecord:
    """Outcome of a repair: in the manifest without times, in ``repair.json`` with them.

    Attributes:
        needed: whether the default attempt was not good enough.
        chosen: the remedy whose attempt is deployed.
        survived: whether that is not broken on the search split; if it is, the export is refused.
        stopped: why the search ended, in a sentence.
        margin: greatest tolerable loss.
        budget_minutes, seconds: that it was allowed, and that it took.
        trials: everything that was tried, in order.
        layers: what the default attempt did to each layer, the worst first; empty where it was good enough.
        metric, unit: what the trials' scores are of, as the task has them (:class:`edgetl.tasks.Metric`).
    """

    needed: bool
    chosen: str
    survived: bool
    stopped: str
    margin: float
    budget_minutes: float
    seconds: float | None
    trials: tuple[TrialRecord, ...]
    layers: tuple[LayerNoise, ...] = ()
    metric: str = "accuracy"
    unit: str = "share"

    @property
    def measured(self) -> tuple[TrialRecord, ...]:
        """The attempts that were made."""
        return tuple(trial for trial in self.trials if trial.score is not None)

    @property
    def best(self) -> TrialRecord | None:
        """The attempt that is deployed."""
        kept = [trial for trial in self.measured if trial.kept]
        return kept[-1] if kept else None

    def untimed(self) -> RepairRecord:
        """The same without anything that a clock told, so that equal exports are equal."""
        trials = tuple(replace(trial, ms=None, ms_unit="", seconds=None) for trial in self.trials)
        return replace(self, seconds=None, trials=trials)
