"""The head alone, or the head and then everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from edgetl.transfer.strategies import terms
from edgetl.transfer.strategies.base import (
    HeadSpec,
    LossTerm,
    Mix,
    ParamPolicy,
    Schedule,
    StepContext,
    Strategy,
    TaskLoss,
)
from edgetl.transfer.strategies.options import check

if TYPE_CHECKING:
    from torch import Tensor


Statistics = Literal["frozen", "train"]
Kept = Literal["best", "last"]
Shape = Literal["cosine", "triangular"]
Fit = Literal["logistic", "ridge", "svm", "best"]


def linear_probe(head: str = "logistic", folds: int = 0) -> Strategy:
    """The backbone stays as it is; an L2-regularised linear head is fitted on its features.

    Kornblith et al. 2019, "Do Better ImageNet Models Transfer Better?", section 4.1.

    Args:
        head: of one class a sample: "logistic" regression, "ridge", "svm", or the "best" of them on validation samples.
        folds: of the training samples, on which the penalty is chosen; 0 to choose it on validation samples.
    """
    check("head", head, head in ("logistic", "ridge", "svm", "best"), "logistic, ridge, svm or best")
    check("folds", folds, folds == 0 or 2 <= folds <= 20, "0, or 2 to 20")
    return Strategy(
        ParamPolicy(trains="head"),
        HeadSpec(fit=cast(Fit, head), folds=folds, class_balance=1.0),
        terms=(),
        labels=("class",) if head != "logistic" else (),
    )


def fine_tune(
    trains: str = "all",
    layer_decay: float = 0.8,
    unfreeze: float = 0.0,
    freeze: str = "0",
    batch_norm: str = "frozen",
    schedule: str = "cosine",
    patience: int = 8,
    smoothing: float = terms.SMOOTHING,
    balance: float = terms.BALANCE,
    focal: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    average: float = 0.0,
    l2_sp: float = 0.0,
    start_share: float = 0.0,
    keep: str = "best",
) -> Strategy:
    """The linear probe's head first, then everything, slower the further from the head (LP-FT).

    Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution"; the rates by
    layer as in Clark et al. 2020, "ELECTRA".

    Args:
        trains: "all", "head", or patterns of the backbone's parameter names with commas between (head,blocks.5.*).
        layer_decay: factor on the learning rate for each layer group further from the head; 1 for one rate.
        unfreeze: epochs after which each further group of layers begins to train (ULMFiT, Howard and Ruder 2018).
        freeze: the share of the layer groups, from the input on, that stays as it is, such as 0.5; "auto" for as many
            as have a tenth of the relative gradients together (Lee et al. 2023). Without augmentation, what they give
            is computed once.
        batch_norm: "frozen" keeps the pretrained statistics, "train" uses and updates those of the batches.
        schedule: "cosine", or "triangular" for a rise over a tenth of all steps and a straight fall (ULMFiT).
        patience: epochs without a better validation score after which training ends.
        smoothing: of labels of one class a sample, 0 to 1.
        balance: such a class weighs (its samples)^-balance: 0 not at all balanced, 1 fully.
        focal: exponent of the focal loss of one class a sample; 0 for none (Lin et al. 2017).
        mixup: share drawn from Beta(mixup, mixup) of two blended samples; 0 for none (Zhang et al. 2018).
        cutmix: the same of a window of another image; 0 for none (Yun et al. 2019).
        average: decay of the weights' moving average, such as 0.999, which is what is kept; 0 for none.
        l2_sp: pull of what trains towards its pretrained start; 0 for none (L2-SP, Li et al. 2018).
        start_share: of the start in the weights that are kept, 0 to 1 (WiSE-FT, Wortsman et al. 2022).
        keep: the "best" epoch's weights by the validation samples, or the "last" one's.
    """
    check("start_share", start_share, 0 <= start_share <= 1, "a number from 0 to 1")
    check("layer_decay", layer_decay, 0 < layer_decay <= 1, "a number over 0, 1 at most")
    check("keep", keep, keep in ("best", "last"), "best or last")
    check("batch_norm", batch_norm, batch_norm in ("frozen", "train"), "frozen or train")
    check("schedule", schedule, schedule in ("cosine", "triangular"), "cosine or triangular")
    check("patience", patience, patience >= 1, "at least 1")
    check("smoothing", smoothing, 0 <= smoothing < 1, "a number from 0 to below 1")
    check("average", average, 0 <= average < 1, "a number from 0 to below 1")
    for name, value in {
        "unfreeze": unfreeze,
        "balance": balance,
        "focal": focal,
        "mixup": mixup,
        "cutmix": cutmix,
        "l2_sp": l2_sp,
    }.items():
        check(name, value, value >= 0, "0 or more")
    own = (smoothing, balance, focal) != (terms.SMOOTHING, terms.BALANCE, 0.0)
    task: tuple[LossTerm | TaskLoss, ...] = (terms.classes(smoothing, balance, focal),) if own else (TaskLoss(),)
    return Strategy(
        ParamPolicy(
            trains=trains, layer_decay=layer_decay, batch_norm=cast(Statistics, batch_norm), unfreeze=unfreeze,
            freeze=_share(freeze),
        ),
        HeadSpec(weakest_penalty=0.01, class_balance=1.0),
        terms=(*task, _from_start(l2_sp)) if l2_sp else task,
        schedule=Schedule(
            epochs=30, learning_rate=3e-4, weight_decay=0.05, warmup_epochs=1.0 if schedule == "cosine" else 1.5,
            shape=cast(Shape, schedule), patience=patience, clip=1.0,
        ),
        mix=Mix(mixup, cutmix),
        average=average,
        start_share=start_share,
        keep=cast(Kept, keep),
        labels=("class",) if own else (),
        anchor="start" if l2_sp else None,
    )  # fmt: skip


def _share(given: str) -> float | Literal["auto"]:
    if given == "auto":
        return "auto"
    try:
        found = float(given)
    except ValueError:
        found = -1.0
    check("freeze", given, 0 <= found < 1, "auto, or a number from 0 to below 1")
    return found


def _from_start(strength: float) -> LossTerm:
    def loss(context: StepContext) -> Tensor:
        assert context.anchor is not None
        start = dict(context.anchor.named_parameters())
        moved = [(name, now) for name, now in context.model.named_parameters() if now.requires_grad]
        return sum(((now - start[name]) ** 2).sum() for name, now in moved) * (strength / 2)

    return LossTerm(f"L2-SP ({strength:g})", loss)
