"""One walk over a folder of samples: what a listing finds, a second one finds too.

Links to folders are followed, each folder is read once, what systems and programs leave behind is counted apart, and
what cannot be read is named.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgetl.core.data.samples import Skipped

#: What systems, file servers and programs put beside people's files: never a sample, never a class.
SYSTEM_NAMES = frozenset(
    {
        *("@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found"),
        *("__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    }
)
#: What the ignored files and folders are counted as whose name starts with a dot.
HIDDEN = "hidden"


@dataclass(frozen=True)
class Tree:
    """What lies below a folder.

    Attributes:
        files: paths relative to it, with forward slashes, in order; a link to nothing is among them, because its owner
            believes in a file there.
        folders: those that were read, itself not among them.
        skipped: folders that could not be read, or were read already under another name, and what is neither a folder
            nor a file.
        ignored: how many files and folders of systems and programs, by name; those that start with a dot together.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is a system's or a program's."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


def writable_name(name: str) -> bool:
    """Whether a file's name can stand on one line of UTF-8."""
    return len(name.splitlines()) == 1 and name.encode(errors="replace").decode() == name


def shown_name(path: str) -> str:
    """A path as lists hold it: itself, or in ASCII with escapes where it is no line of UTF-8."""
    return path if writable_name(path) else ascii(path)


def unwritable_remedy() -> str:
    """What to do about a name that is no line of UTF-8; the fault may be the locale's, which misreads good names."""
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return "rename it"
    return f"set PYTHONUTF8=1, because this locale reads names as {encoding}, or rename it"


def unlistable(path: str) -> Skipped:
    """Why a file of such a name is no sample."""
    return Skipped(shown_name(path), "its name holds a line break or is no UTF-8: " + unwritable_remedy())


def walk(root: Path, most: int | None = None) -> Tree:
    """Read a folder and all that is below it.

    Folders are read before links to folders, so that a folder keeps its own name where a link leads to it, too.

    Args:
        root: the folder.
        most: stop after so many files; None for all.
    """
    found = _Walk(root)
    for number, _ in enumerate(found.files_below(), 1):
        if number == most:
            break
    return found.tree()


class _Walk:
    """The walk under way."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seen: set[tuple[int, int]] = set()
        self.files: list[str] = []
        self.folders: list[str] = []
        self.skipped: list[Skipped] = []
        self.ignored: Counter[str] = Counter()
        self.todo: list[str] = [""]
        self.links: list[str] = []

    def files_below(self) -> Iterator[str]:
        while self.todo or self.links:
            path = self.todo.pop() if self.todo else self.links.pop(0)
            if self._is_new(path):
                yield from self._entries(path)

    def tree(self) -> Tree:
        return Tree(
            tuple(sorted(self.files)),
            tuple(sorted(self.folders)),
            tuple(sorted(self.skipped, key=lambda left_out: left_out.path)),
            dict(sorted(self.ignored.items())),
        )

    def _is_new(self, path: str) -> bool:
        try:
            status = (self.root / path).stat()
        except OSError as error:
            self._unreadable(path, error)
            return False
        identity = (status.st_dev, status.st_ino)
        if identity in self.seen:
            self.skipped.append(Skipped(shown_name(path), "it links to a folder that is read already"))
            return False
        self.seen.add(identity)
        return True

    def _entries(self, path: str) -> Iterator[str]:
        try:
            with os.scandir(self.root / path) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            self._unreadable(path, error)
            return
        if path:
            self.folders.append(path)
        below: list[str] = []
        for entry in entries:
            name = f"{path}/{entry.name}" if path else entry.name
            if is_ignored(entry.name):
                self.ignored[HIDDEN if entry.name.startswith(".") else entry.name] += 1
            elif _is(entry.is_dir):
                (self.links if entry.is_symlink() else below).append(name)
            elif _is(entry.is_file) or not os.path.exists(entry.path):  # noqa: PTH110
                self.files.append(name)
                yield name
            else:
                # Opening a pipe would wait for its writer.
                self.skipped.append(Skipped(shown_name(name), "it is no file"))
        self.todo += below[::-1]

    def _unreadable(self, path: str, error: OSError) -> None:
        self.skipped.append(Skipped(shown_name(path or "."), f"it cannot be read ({error.strerror or error})"))


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link that leads to itself
        return False
