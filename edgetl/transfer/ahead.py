"""What the frozen layers in front give, computed before the loop where it is the same in every epoch."""

from __future__ import annotations

from dataclasses import replace

from edgetl.base.progress import Progress
from edgetl.inputs.image import Preprocess
from edgetl.transfer.assembly import Job, Setup
from edgetl.transfer.prefix import Activations, computed, cut
from edgetl.transfer.samples import MEMORY_LIMIT
from edgetl.transfer.stores import store_of

#: Splits that training looks at again and again.
SPLITS = ("train", "val")
#: Of ``--augment``: training images are as evaluation sees them.
NOTHING = "none"


def shortened(setup: Setup, job: Job, progress: Progress) -> tuple[Setup, dict[str, Activations]]:
    """A setup that begins where the network begins to train, and the activations of each split there.

    The same setup, and none, where something of the samples differs from epoch to epoch, or a loss needs the inputs.
    """
    found = cut(setup.network) if _same_every_time(setup, job) else None
    if found is None:
        return setup, {}
    ahead = dict[str, Activations]()
    for name in SPLITS:
        store = store_of(job.definition, job.dataset.paths(name), MEMORY_LIMIT, progress)
        told = (f"activations of {name}", progress)
        kept = computed(found, setup.network, store, setup.fabric.device, MEMORY_LIMIT, told)
        if kept is None:
            return setup, {}
        ahead[name] = kept
    return replace(setup, cut=found), ahead


def _same_every_time(setup: Setup, job: Job) -> bool:
    strategy = setup.strategy
    varies = isinstance(job.definition, Preprocess) and job.settings.augment["name"] != NOTHING
    looks = bool(job.streams.samples) or strategy.anchor == "teacher" or bool(strategy.mix)
    return setup.fabric.world_size == 1 and strategy.params.batch_norm == "frozen" and not varies and not looks
