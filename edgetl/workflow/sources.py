"""What a folder is that a user names: a run or a bundle."""

from __future__ import annotations

from pathlib import Path

from edgetl.base.errors import EdgetlError
from edgetl.core.bundle import MANIFEST as BUNDLE
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.run import CHECKPOINT, Run, load_run
from edgetl.core.run import MANIFEST as RUN


def open_source(source: str | Path | Run | Bundle) -> Run | Bundle:
    """A run or a bundle, from its folder or as it is.

    Raises:
        EdgetlError: the folder is neither, or damaged.
    """
    if isinstance(source, Run | Bundle):
        return source
    folder = Path(source)
    if (folder / BUNDLE).is_file():
        return load_bundle(folder)
    if (folder / RUN).is_file() or (folder / CHECKPOINT).is_dir():
        return load_run(folder)
    raise EdgetlError(
        f"{folder} is neither a run (it has no {RUN}) nor a bundle (it has no {BUNDLE})",
        "give what finetune or export wrote",
    )
