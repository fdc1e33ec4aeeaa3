"""Takes files on a device, before anything of edgetl is there: its source is handed to the device's ``python -c``.

    python -c SOURCE CACHE look    standard input: what is wanted; prints the contents that are to be sent, one a line,
                                   or "whole" where the wanted folder is there already
    python -c SOURCE CACHE take    standard input: a tar stream of those contents, and at its end what is wanted

What is wanted is one JSON object: ``path`` of a folder below CACHE, or "", and ``files``, names in it → contents. A
content is named ``SHA256`` or ``SHA256.suffix`` and lies in ``CACHE/files`` when it is whole, so that a transfer that
was cut goes on with the file at which it was cut. A folder is put together from contents, by hard links, whole or not
at all. A disk that fills gives up all that this stream brought.

Nothing here is believed by its name: what lies in the cache is hashed before it is used, and removed where it is
damaged. Neither is the stream: it may come from a bundle that anybody made.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from edgetl.base.names import below, check_name

LAST = "folder"
WHOLE = "whole"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CONTENT = re.compile(r"[0-9a-f]{64}(\.[A-Za-z0-9]{1,8})?")
_FOLDER = re.compile(r"(bundles|code)/[0-9a-f]{64}|")


def look(cache: Path, wanted: Any) -> list[str]:
    """Contents that are to be sent; what is damaged is removed. ``[WHOLE]`` where the wanted folder is there, whole.

    Raises:
        ValueError: what is wanted is malformed, or names files that lie elsewhere.
    """
    path, files = _checked(wanted)
    place = cache / path
    if path and place.is_dir():
        if _is_whole(place, files):
            return [WHOLE]
        shutil.rmtree(place)
    return [content for content in dict.fromkeys(files.values()) if not _is(cache / "files" / content, content)]


def receive(cache: Path, stream: IO[bytes]) -> None:
    """Take a stream; raises SystemExit with one line if it is cut, damaged or does not fit."""
    brought: list[Path] = []
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is None:
                    raise ValueError(f"{member.name!a:.100} is no file")
                if member.name == LAST:
                    _assemble(cache, json.load(content))
                    return
                if not _CONTENT.fullmatch(member.name):
                    raise ValueError(f"{member.name!a:.100} names no content")
                brought.append(_keep(content, cache / "files" / member.name))
        raise tarfile.ReadError("no end")
    except (tarfile.TarError, EOFError) as error:
        raise SystemExit(f"the transfer was cut off ({error})") from error
    except (ValueError, RecursionError) as error:
        raise SystemExit(f"what arrives is refused: {error}") from error
    except OSError as error:
        for path in brought if error.errno in _FULL else ():
            path.unlink()
        raise SystemExit(f"cannot write {cache} ({error.strerror or error})") from error


def _checked(wanted: Any) -> tuple[str, Mapping[str, str]]:
    """The folder that is wanted, "" for none, and the content of each file in it."""
    path, files = (wanted.get("path", ""), wanted.get("files", {})) if isinstance(wanted, dict) else (None, None)
    if not isinstance(path, str) or not _FOLDER.fullmatch(path) or not isinstance(files, dict):
        raise ValueError(f"{path!a:.100} is no folder of the cache")
    for name, content in files.items():
        check_name(name)
        if not isinstance(content, str) or not _CONTENT.fullmatch(content):
            raise ValueError(f"{content!a:.100} names no content")
    return path, files


def _is_whole(place: Path, files: Mapping[str, str]) -> bool:
    inside = {path.relative_to(place).as_posix(): path for path in place.rglob("*")}
    there = {name for name, path in inside.items() if path.is_symlink() or not path.is_dir()}
    # Python itself leaves compiled code beside edgetl's.
    strays = there - set(files) if place.parent.name == "bundles" else {n for n in there if inside[n].is_symlink()}
    return not strays and all(_is(place / name, content) for name, content in files.items())


def _is(path: Path, content: str) -> bool:
    """Whether a file is there and holds what its content's name says; one that does not is removed."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except FileNotFoundError:
        return False
    except OSError:
        digest.update(b"a folder, or a disk that cannot read it")
    if digest.hexdigest() == content.split(".", maxsplit=1)[0]:
        return True
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    return False


def _keep(content: IO[bytes], path: Path) -> Path:
    partial = path.with_name(f".partial.{os.getpid()}")
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as file:
            for block in iter(lambda: content.read(1 << 20), b""):
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != path.name.split(".")[0]:
            raise SystemExit("what arrives is not what was sent: send it again")
        partial.chmod(0o444)
        return partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def _assemble(cache: Path, wanted: Any) -> None:
    folder, files = _checked(wanted)
    if not folder:
        return
    place = cache / folder
    partial = place.with_name(f".partial.{os.getpid()}")
    try:
        partial.mkdir()
        for name, content in files.items():
            path = below(partial, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            _link(cache / "files" / content, path)
        if not place.is_dir():
            partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _link(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno in _FULL:
            raise
        # A file system without hard links, such as an SD card's FAT.
        shutil.copyfile(source, path)


def _sweep(folder: Path) -> None:
    """Remove what receivers left that were killed."""
    for left in folder.glob(".partial.*"):
        if Path("/proc", left.name.split(".")[2]).exists():
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def main(cache: Path, verb: str) -> None:
    """Look or take."""
    os.umask(0o077)
    for place in ("files", "bundles", "code"):
        _sweep(cache / place)
    if verb == "take":
        receive(cache, sys.stdin.buffer)
        return
    try:
        print("\n".join(look(cache, json.load(sys.stdin.buffer))))
    except (ValueError, RecursionError) as error:
        raise SystemExit(f"what is asked for is refused: {error}") from error
    except OSError as error:
        raise SystemExit(f"cannot use {cache} ({error.strerror or error})") from error


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
