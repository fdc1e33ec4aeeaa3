"""What a strategy takes besides the data, as the user named it: checked before any work, nothing of it read yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.base.errors import DataError, EdgetlError, RunError
from edgetl.base.storage import sha256_file, sha256_json
from edgetl.core.data.readers.columns import has_column, read_table
from edgetl.core.data.walk import walk
from edgetl.core.run import Run, load_run
from edgetl.inputs import INPUTS, kind_of
from edgetl.tasks import Task, find_task
from edgetl.transfer.strategies.base import GIVEN_BY, Strategy


@dataclass(frozen=True)
class Sources:
    """Runs and data beside the main data; None where not given.

    Attributes:
        teacher: whose answers are followed.
        previous: whose weights are the start.
        target: a folder or a CSV file of samples without labels.
        replay: labelled data, as a reader takes it.
    """

    teacher: Run | None = None
    previous: Run | None = None
    target: Path | None = None
    replay: Path | None = None

    def to_json(self) -> dict[str, dict[str, str]]:
        """What is given, and the SHA-256 of what it holds."""
        runs = {name: run for name, run in (("teacher", self.teacher), ("previous", self.previous)) if run}
        data = {name: path for name, path in (("target", self.target), ("replay", self.replay)) if path}
        return {
            **{name: {"run": str(run.path.resolve()), "digest": run.digest} for name, run in runs.items()},
            **{name: {"data": str(path.resolve()), "sha256": _digest(path)} for name, path in data.items()},
        }


def find_sources(
    teacher: str | Path | None, previous: str | Path | None, target: str | Path | None, replay: str | Path | None
) -> Sources:
    """Open the runs, and look whether the data are there.

    Raises:
        RunError: no finished run, or one to start from that has no weights of edgetl's own.
        DataError: there are no such data.
    """
    for name, path in (("target", target), ("replay", replay)):
        if path is not None and not Path(path).exists():
            raise DataError(f"there is no {path}", f"give {GIVEN_BY[name]} a folder or a file")
    start = None if previous is None else load_run(previous)
    if start is not None and start.network is not None:
        what = f"the model of {start.path} was adopted as a graph, which cannot be trained"
        raise RunError(what, "give --from a run that edgetl trained")
    return Sources(
        None if teacher is None else load_run(teacher),
        start,
        None if target is None else Path(target),
        None if replay is None else Path(replay),
    )


def check_needs(name: str, strategy: Strategy, sources: Sources) -> None:
    """Whether a strategy is given what it needs, and nothing else.

    Raises:
        EdgetlError: something is missing, or means nothing to it.
    """
    for need in strategy.needs:
        if not need.optional and getattr(sources, need.name) is None:
            raise EdgetlError(f"the strategy '{name}' needs {need.about}", f"give {GIVEN_BY[need.name]}")
    taken = {need.name for need in strategy.needs} | {"previous"}
    for source, option in GIVEN_BY.items():
        if getattr(sources, source) is not None and source not in taken:
            raise EdgetlError(f"the strategy '{name}' takes no {option}", "leave it out, or see: edgetl strategies")


def check_teacher(teacher: Run, task: Task, kind: str) -> None:
    """Whether a teacher answers what the student is to learn, from the same kind of samples.

    Raises:
        RunError: it does not.
    """
    if find_task(teacher.task).labels != task.labels:
        what = f"the teacher {teacher.path} was trained for {teacher.task}, not for {task.name}"
        raise RunError(what, "give a run of the same task")
    theirs = kind_of(teacher)
    if theirs.name != kind:
        raise RunError(f"the teacher {teacher.path} takes {theirs.noun}s", f"give one that takes {INPUTS[kind].noun}s")


def listed(source: Path) -> Iterator[Path]:
    """Every file that a folder or a CSV file of paths names; else the file itself."""
    if source.is_dir():
        yield from (source / name for name in walk(source).files)
    elif has_column(source, "path"):
        yield from (source.parent / row["path"] for row in read_table(source).rows)
    else:
        yield source


def _digest(source: Path) -> str:
    """Of the files' names and contents, wherever they lie together."""
    root = source if source.is_dir() else source.parent
    own = [] if source.is_dir() else [["", sha256_file(source)]]
    rows: list[Any] = [
        [file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file), sha256_file(file)]
        for file in listed(source)
        if file.is_file()
    ]
    return sha256_json(own + rows)
