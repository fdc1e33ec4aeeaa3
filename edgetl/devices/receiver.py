"""Takes files on a device, before anything of edgetl is there: its source is handed to the device's ``python -c``.

    python -c SOURCE CACHE        a tar stream on standard input

Each member is named by its content (``SHA256`` or ``SHA256.suffix``) and lands in ``CACHE/files`` when it is whole, so
that a transfer that was cut goes on with the file at which it was cut. A last member ``folder`` says which folder to
put together from them, by hard links, whole or not at all. A disk that fills gives up all that this stream brought.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

LAST = "folder"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def receive(cache: Path, stream: IO[bytes]) -> None:
    """Take a stream; raises SystemExit with one line if it is cut, damaged or does not fit."""
    brought: list[Path] = []
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None and member.name == LAST:
                    _assemble(cache, json.load(content))
                    return
                if content is not None:
                    brought.append(_keep(content, cache / "files" / member.name))
        raise tarfile.ReadError("no end")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise SystemExit(f"the transfer was cut off ({error})") from error
    except OSError as error:
        for path in brought if error.errno in _FULL else ():
            path.unlink()
        raise SystemExit(f"cannot write {cache} ({error.strerror or error})") from error


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


def _assemble(cache: Path, wanted: Mapping[str, Any]) -> None:
    if not wanted:
        return
    place = cache / wanted["path"]
    partial = place.with_name(f".partial.{os.getpid()}")
    try:
        for name, content in wanted["files"].items():
            path = partial / name
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


if __name__ == "__main__":
    os.umask(0o077)
    for _place in ("files", "bundles", "code"):
        _sweep(Path(sys.argv[1], _place))
    receive(Path(sys.argv[1]), sys.stdin.buffer)
