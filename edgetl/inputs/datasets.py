"""Reading a data set whose files are of one kind of input: what cannot be decoded is no sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgetl.base.progress import Progress, silent
from edgetl.core.data import NEEDED, SHARES, Dataset, find_reader, read_dataset, read_rule
from edgetl.inputs.image import Preprocess
from edgetl.inputs.kinds import INPUTS, find_input


def load_dataset(
    source: str | Path,
    *,
    kind: str | None = None,
    seed: int = 0,
    shares: Mapping[str, float] = SHARES,
    into: Path | None = None,
    needed: Sequence[str] = NEEDED,
    group_by: str | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Read labelled samples and split them; see :func:`edgetl.core.data.read_dataset`.

    Args:
        source: a folder with a folder for each class, or with a folder for each split that holds those, a CSV file
            (``path`` or ``text``; ``label``, ``labels`` or ``target``; ``split``), an .npz file (``x``;
            ``y``, ``labels`` or ``target``), or ``"digits"``.
        kind: of its files, a key into :data:`edgetl.inputs.INPUTS`; None: what most of them look like.
        group_by: what belongs together besides what the column ``group`` names, and so never straddles splits:
            ``parent`` (one folder), ``exif-time`` (one camera, within seconds), ``duplicates`` (pictures that look
            alike), or a regular expression that finds the group's name in a path.
        seed, shares, into, needed, progress: see there.

    Raises:
        DataError: nothing to learn from, or more than 5 % of the files are unusable; the message names them.
        UnknownNameError: there is no such kind.
    """
    content = find_input(kind or what(source)[0]).content
    rule = None if group_by is None else read_rule(group_by)
    return read_dataset(
        source, content, seed=seed, shares=shares, into=into, needed=needed, group_by=rule, progress=progress
    )


def what(source: str | Path) -> tuple[str, str]:
    """What a data set looks like, without reading its samples: from this a task can be guessed.

    Returns:
        the kind of input (:data:`edgetl.inputs.INPUTS`; ``image`` where the suffixes tell nothing) and the kind of
        label (:data:`edgetl.core.data.LABEL_KINDS`).

    Raises:
        DataError: there is no such source, or it is malformed.
    """
    suffix, labels = find_reader(source).sniff(Path(source))
    kind = next((name for name, known in INPUTS.items() if suffix in known.suffixes), Preprocess.kind)
    return kind, labels
