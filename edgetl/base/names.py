"""Names of files in records that come from elsewhere: which of them may be used, and what they lead to.

Imports nothing of edgetl: ``devices/receiver.py`` judges names by it on devices where nothing else of edgetl is yet.
"""

from __future__ import annotations

import re
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path

#: What Windows, shells or ONNX Runtime give a meaning of their own.
_SPECIAL = frozenset('\\:*?"<>|')
#: What Windows takes for one of its devices, whatever follows behind a dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)
#: Bytes that every file system takes in one part of a path, and systems in a whole one below some folder.
_LONGEST_PART, _LONGEST = 255, 1024


def objection(name: object) -> str | None:
    """Why a record's name of a file cannot be used below the record's folder, in a clause; None if it can.

    A name is relative, with forward slashes, and each of its parts stands for itself on every system.
    """
    if not isinstance(name, str) or not name:
        return "is no name"
    parts = name.split("/")
    sizes = [len(part.encode(errors="replace")) for part in parts]
    objections = {
        "holds characters that are not to be printed": not name.isprintable(),
        "is absolute": name.startswith("/"),
        "leads out of the folder": ".." in parts,
        "holds parts that are empty or '.'": "" in parts or "." in parts,
        "ends a part with a dot or a blank, which Windows leaves out": any(p[-1:] in (".", " ") for p in parts),
        "holds a name of Windows' own devices": any(map(_DEVICE.fullmatch, parts)),
        f"holds one of the characters {' '.join(sorted(_SPECIAL))}": not _SPECIAL.isdisjoint(name),
        "is too long": max(sizes) > _LONGEST_PART or sum(sizes) + len(sizes) > _LONGEST,
    }
    return next((what for what, holds in objections.items() if holds), None)


def check_name(name: object) -> None:
    """Refuse a record's name of a file.

    Raises:
        ValueError: it cannot be used; a clause says why.
    """
    if (found := objection(name)) is not None:
        raise ValueError(f"the name {name!a:.100} {found}")


def check_together(names: Iterable[str]) -> None:
    """Refuse names that are one and the same on some system: but for case, for how letters are composed, or because a
    file has the name of another's folder.

    Raises:
        ValueError: two are; a clause says which.
    """
    known: dict[str, tuple[str, bool]] = {}
    for name in names:
        parts = name.split("/")
        for end in range(1, len(parts) + 1):
            path, is_file = "/".join(parts[:end]), end == len(parts)
            folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
            other = known.get(folded)
            if other is not None and (is_file or other != (path, False)):
                raise ValueError(f"the names {other[0]!a:.100} and {path!a:.100} are one on some systems")
            known[folded] = path, is_file


def below(folder: Path, name: str) -> Path:
    """The path of a record's file, which may be there or not.

    Args:
        folder: of the record; may be a link itself.
        name: of the file, as the record has it.

    Raises:
        ValueError: the name cannot be used, or leads through a link; a clause says which.
    """
    check_name(name)
    path = folder
    for part in name.split("/"):
        path = path / part
        try:
            kind = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            break
        if stat.S_ISLNK(kind):
            raise ValueError(f"the name {name!a:.100} leads through a link ({path.relative_to(folder)})")
    return folder / name
