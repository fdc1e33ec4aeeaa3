"""A new column for a new task, beside those of an earlier run, which stay as they are."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

from edgetl.core.data.several import NAME
from edgetl.transfer.strategies.base import Need, NewColumn, Strategy
from edgetl.transfer.strategies.fine_tuning import fine_tune
from edgetl.transfer.strategies.options import check

if TYPE_CHECKING:
    from torch import Tensor

    from edgetl.core.tensors import Arrays
    from edgetl.transfer.model import Deployable

Start = Literal["pretrained", "previous"]


def progressive(
    name: str = "",
    start: str = "pretrained",
    reduction: int = 8,
    layer_decay: float = 0.8,
    batch_norm: str = "frozen",
    patience: int = 8,
) -> Strategy:
    """An earlier run stays as it is, and a new column beside it learns the new task, reading what the old ones give.

    Rusu et al. 2016, "Progressive Neural Networks". The run answers all tasks, the earlier ones bit for bit as before.
    Behind each stage and in front of its head the new column adds what an adapter makes of each earlier column's
    activation there, of which training starts without any. The network grows by a whole one a task.

    Args:
        name: of the new task, of small letters, digits, _ and -; its number, such as task2, where none is given.
        start: of the new column: "pretrained" weights of the backbone (or those of --weights), or those of the
            "previous" run's newest column.
        reduction: by which an adapter divides the channels that it reads.
        layer_decay: factor on the new column's learning rate for each layer group further from the head; 1 for one
            rate. Adapters move as the head does.
        batch_norm: of the new column: "frozen" keeps the statistics that it starts with, "train" uses and updates those
            of the batches.
        patience: epochs without a better validation score after which training ends.
    """
    check("name", name, not name or NAME.fullmatch(name) is not None, "small letters, digits, _ and -, 31 at most")
    check("start", start, start in ("pretrained", "previous"), "pretrained or previous")
    check("reduction", reduction, 1 <= reduction <= 1024, "1 to 1024")
    return replace(
        fine_tune(layer_decay=layer_decay, batch_norm=batch_norm, patience=patience),
        needs=(Need("previous", "a finished run whose tasks stay as they are"),),
        column=NewColumn(name, cast(Start, start)),
        rebuild=partial(_grown, reduction=reduction),
    )


def _grown(network: Deployable, feeds: Arrays, previous: Deployable | None, *, reduction: int) -> dict[str, Tensor]:
    """The tensors of the earlier columns, the new one, and the adapters in between."""
    from edgetl.transfer.laterals import grown

    assert previous is not None
    made = grown(previous, network, feeds, reduction)
    return {name: value.detach().clone() for name, value in made.state_dict().items()}
