"""What a strategy is made of: values that the one training loop reads.

A strategy says what trains, which head, which loss terms, what it needs besides the data, and what is held still beside
the model to compare with. What it puts into the model, and how that is taken out again, is its ``prepare``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from edgetl.transfer.strategies.new_column import NewColumn
from edgetl.transfer.strategies.schedule import Mix, Schedule

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgetl.core.tensors import Arrays
    from edgetl.transfer.model import Deployable
    from edgetl.transfer.streams import Streams

#: In :attr:`ParamPolicy.trains`: what the strategy's ``prepare`` put in.
ADDED = "added"
#: What a strategy may need besides the data, and the option of ``edgetl finetune`` that gives it.
GIVEN_BY: Mapping[str, str] = {
    "teacher": "--teacher",
    "target": "--target-data",
    "replay": "--retain",
    "previous": "--from",
}
#: Those that are finished runs; the others are data.
RUNS = ("teacher", "previous")


@dataclass(frozen=True)
class ParamPolicy:
    """What trains, and how fast.

    Attributes:
        trains: "all" parameters; "head"; "backbone", all but the head's; "added", those that the strategy's ``prepare``
            put in; or a pattern of the backbone's names (``blocks.5.*``). Several are separated by commas. Nothing else
            gets a gradient, and a pattern that matches nothing is an error.
        layer_decay: factor on the learning rate for each layer group further from the head (Clark et al. 2020).
        batch_norm: "frozen" keeps the pretrained statistics, "train" uses and updates the batch's, "adapt" fits the
            head under the source's own, normalises each domain's batch by itself, and keeps the target's statistics.
            Only "frozen" does not depend on how a batch is divided.
        unfreeze: epochs after which each further group of layers, from the head on, begins to train; 0 for all at once
            (Howard and Ruder 2018).
        freeze: the share of the layer groups, from the input on, that stays as it is; "auto" for as many as the data
            hardly move (:mod:`edgetl.transfer.freezing`).
        embeddings: "frozen" keeps a text network's tables as they are: training would move the vectors of the words
            that occur in it, and no others.
    """

    trains: str = "all"
    layer_decay: float = 1.0
    batch_norm: Literal["frozen", "train", "adapt"] = "frozen"
    unfreeze: float = 0.0
    freeze: float | Literal["auto"] = 0.0
    embeddings: Literal["frozen", "train"] = "frozen"


@dataclass(frozen=True)
class HeadSpec:
    """What follows the backbone.

    Attributes:
        kind: "linear", fitted as a whole; or how a class's mean becomes its row, a key of
            :data:`edgetl.transfer.class_means.KINDS`: such a head can be given classes on the device.
        fit: of one class a sample: "logistic", "ridge", "svm", or the "best" of them on validation samples.
        folds: of the training samples, on which the penalty is chosen; 0 for validation samples.
        start: "fitted" on the backbone's features before the loop, or "random".
        weakest_penalty: the largest inverse penalty (scikit-learn's C) that a fitted start may have. Training that
            starts from the large weights of a weak penalty first destroys what the head knew: on magnetic-tile at 128
            pixels the validation loss rose from 0.49 to 1.06 in two epochs, and from 0.71 at C = 0.01 it fell to 0.43.
        class_balance: exponent γ; in the fit, class c weighs (samples of c)^-γ: 0 not at all balanced, 1 fully. Means
            something only where a sample has one class.
        shrinkage: of the metric of a kind that has one, 0 to 1; 0 to choose it on validation samples.
    """

    kind: Literal["linear", "prototype", "nearest-mean", "slda", "cosine", "ridge"] = "linear"
    fit: Literal["logistic", "ridge", "svm", "best"] = "logistic"
    folds: int = 0
    start: Literal["fitted", "random"] = "fitted"
    weakest_penalty: float = 10.0
    class_balance: float = 0.0
    shrinkage: float = 0.0


@dataclass(frozen=True)
class StreamBatch:
    """A batch of a stream: the network's inputs by name, and targets as the main batch has them; None unlabelled."""

    inputs: Mapping[str, Tensor]
    targets: Tensor | None


@dataclass(frozen=True)
class StepContext:
    """What a loss term may look at.

    Attributes:
        model: the model in training.
        inputs: the network's, by name; their first axis is n.
        targets: the labels as the task's learner gives them: int64 (n,) of classes, float32 (n, classes) of zeros and
            ones, or standardised numbers, float32 (n, 1).
        outputs: the network's, float32, shape (n, width of the head).
        class_counts: training samples of each class, float32, shape (classes,).
        streams: a batch of each stream that was given, of as many samples as the main one: "target" without labels,
            "replay" with them.
        anchor: what the strategy holds still, on the same device, in evaluation mode; None without one. Its outputs
            are those of the model in training: same classes, same scale.
        done: the share of training that is over, 0 to 1.
        labels: their kind, a key of :data:`edgetl.core.data.LABEL_KINDS`.
        feed: a module and the network's inputs → its outputs, float32, in the precision of training.
        features: what the model's head sees of ``inputs``, float32 (n, features).
        observe: the network's inputs → what the model's head sees of them, and its outputs.
        owned: by the name of a term the module that it owns.
    """

    model: nn.Module
    inputs: Mapping[str, Tensor]
    targets: Tensor
    outputs: Tensor
    class_counts: Tensor
    streams: Mapping[str, StreamBatch]
    anchor: nn.Module | None
    done: float
    labels: str
    feed: Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
    features: Tensor | None = None
    observe: Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]] | None = None
    owned: Mapping[str, nn.Module] = field(default_factory=dict)


@dataclass(frozen=True)
class LossTerm:
    """One summand of the loss.

    Attributes:
        name: as recorded in the run.
        loss: the mean over the batch, a scalar tensor.
        weight: its factor at a share of training done, 0 to 1.
        owns: the number of features → a module that trains along, is in checkpoints, and is never exported; None.
        applies: whether a batch has any sample that it speaks of, a bool tensor; None for always.
    """

    name: str
    loss: Callable[[StepContext], Tensor]
    weight: Callable[[float], float] = lambda done: 1.0
    owns: Callable[[int], nn.Module] | None = None
    applies: Callable[[StepContext], Tensor] | None = None


@dataclass(frozen=True)
class TaskLoss:
    """The task's own summands (:class:`edgetl.transfer.learner.Learner`).

    Attributes:
        weight: of each.
        weighed: what becomes of them, such as weights that are learned; None leaves them alone.
    """

    weight: float = 1.0
    weighed: Callable[[LossTerm], LossTerm] | None = None

    @property
    def name(self) -> str:
        """As shown where no task is known yet."""
        return "the task's own"

    def of(self, terms: tuple[LossTerm, ...]) -> tuple[LossTerm, ...]:
        """The task's terms, with their weights."""
        own = terms if self.weight == 1 else tuple(_weighted(term, self.weight) for term in terms)
        return own if self.weighed is None else tuple(map(self.weighed, own))


def _weighted(term: LossTerm, factor: float) -> LossTerm:
    return replace(term, weight=lambda done: factor * term.weight(done))


@dataclass(frozen=True)
class Need:
    """What a strategy takes besides the data.

    Attributes:
        name: a key of :data:`GIVEN_BY`. "teacher" and "previous" are finished runs; "target" gives samples without
            labels, "replay" with labels of the same classes, a batch of either beside each main one.
        about: what it is for, as a noun phrase.
        optional: whether the strategy also works without it.
        trains: whether training sees it.
    """

    name: Literal["teacher", "target", "replay", "previous"]
    about: str
    optional: bool = False
    trains: bool = True


@dataclass(frozen=True)
class Trainee:
    """A model as a strategy trains it. A checkpoint holds the parameters that train and all buffers, by name.

    Attributes:
        network: with whatever the strategy put in; the same object that it was given, or a new one.
        finalize: called once, after the best epoch's values are in ``network``; gives the model of the backbone's own
            architecture and tensor names, which is saved and exported.
    """

    network: Deployable
    finalize: Callable[[], Deployable]


def as_it_is(network: Deployable, streams: Streams) -> Trainee:
    """Nothing is put in, nothing is taken out."""
    return Trainee(network, lambda: network)


@dataclass(frozen=True)
class Strategy:
    """How knowledge is transferred; see the module's docstring.

    Attributes:
        params: what trains.
        head: what follows the backbone.
        terms: summands of the loss.
        schedule: how long and how fast.
        mix: how samples of a batch are mixed.
        average: decay of the moving average of what trains, which is evaluated and kept; 0 for none.
        start_share: of the start in the weights that are kept, 0 to 1 (WiSE-FT, Wortsman et al. 2022).
        labels: kinds of label that it serves; all for none.
        needs: what it takes besides the data; what is given and not among them is refused.
        anchor: what is held still beside the model: "start", the model as training starts, or "teacher".
        certifies: whose samples serve calibration, search and certify: those of the data, or of the target domain.
        keep: which epoch's weights: the "best" by the validation samples, or the "last", which no score has chosen.
        validator: by what the epoch is chosen that is kept, a key of :data:`edgetl.transfer.validators.VALIDATORS`; ""
            for the validation samples.
        prepare: called with the model as training starts, before anything is chosen to train, under the run's seed; it
            must do the same whenever it is called again.
        rebuild: the pretrained network, a few samples and the model that the run starts from, if there is one → the
            tensors of a backbone of another shape, with narrower layers or of several columns, on which the head is
            fitted before training starts; it leaves the network as it is. None for the backbone as it is.
        column: of a strategy that leaves the run before as it is, and learns the data's task beside that run's tasks.
    """

    params: ParamPolicy
    head: HeadSpec
    terms: tuple[LossTerm | TaskLoss, ...] = (TaskLoss(),)
    schedule: Schedule = field(default_factory=Schedule)
    mix: Mix = field(default_factory=Mix)
    average: float = 0.0
    start_share: float = 0.0
    labels: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    anchor: Literal["start", "teacher"] | None = None
    certifies: Literal["data", "target"] = "data"
    validator: str = ""
    keep: Literal["best", "last"] = "best"
    prepare: Callable[[Deployable, Streams], Trainee] = as_it_is
    rebuild: Callable[[Deployable, Arrays, Deployable | None], dict[str, Tensor]] | None = None
    column: NewColumn | None = None

    def resolved(self, own: tuple[LossTerm, ...]) -> Strategy:
        """With the task's own terms where it leaves them to the task."""
        terms = tuple(part for term in self.terms for part in (term.of(own) if isinstance(term, TaskLoss) else (term,)))
        return replace(self, terms=terms)

    def loss(self, context: StepContext) -> Tensor:
        """The weighted sum of the terms, a scalar; those of the task must be resolved."""
        terms = [term for term in self.terms if isinstance(term, LossTerm)]
        parts = [term.weight(context.done) * term.loss(context) for term in terms]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def scheduled(self, epochs: int | None, learning_rate: float | None) -> Strategy:
        """With the user's epochs and learning rate, where given; a strategy without gradient steps stays as it is."""
        if self.schedule.epochs == 0:
            return self
        rate = self.schedule.learning_rate if learning_rate is None else learning_rate
        length = self.schedule.epochs if epochs is None else epochs
        return replace(self, schedule=replace(self.schedule, epochs=length, learning_rate=rate))

    def to_json(self) -> dict[str, Any]:
        """Everything the outcome depends on, as plain JSON values."""
        mixing = {"mix": asdict(self.mix)} if self.mix else {}
        average = {"average": self.average} if self.average else {}
        kept = {"keep": self.keep} if self.keep != "best" else {}
        column = {"column": asdict(self.column)} if self.column else {}
        blend = {"start_share": self.start_share} if self.start_share else {}
        domain = {"certifies": self.certifies, "validator": self.validator} if self.certifies == "target" else {}
        return {
            "params": asdict(self.params),
            "head": asdict(self.head),
            "terms": [term.name for term in self.terms],
            "schedule": asdict(self.schedule),
            "streams": [need.name for need in self.needs],
            **mixing,
            **average,
            **blend,
            **domain,
            **column,
            **kept,
        }


__all__ = [
    "ADDED",
    "GIVEN_BY",
    "RUNS",
    "HeadSpec",
    "LossTerm",
    "Mix",
    "Need",
    "NewColumn",
    "ParamPolicy",
    "Schedule",
    "StepContext",
    "Strategy",
    "StreamBatch",
    "TaskLoss",
    "Trainee",
    "as_it_is",
]
