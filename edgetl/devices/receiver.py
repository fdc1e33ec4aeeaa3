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
from typing import IO, Any

LAST = "folder"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def receive(cache: str, stream: IO[bytes]) -> None:
    """Take a stream; raises SystemExit with one line if it is cut, damaged or does not fit."""
    brought: list[str] = []
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is None:
                    continue
                if member.name == LAST:
                    _assemble(cache, json.load(content))
                    return
                _keep(content, os.path.join(cache, "files", member.name), brought)
        raise tarfile.ReadError("no end")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise SystemExit(f"the transfer was cut off ({error})") from error
    except OSError as error:
        if error.errno in _FULL:
            for path in brought:
                os.unlink(path)
        raise SystemExit(f"cannot write {cache} ({error.strerror or error})") from error


def _keep(content: IO[bytes], path: str, brought: list[str]) -> None:
    partial = os.path.join(os.path.dirname(path), f".partial.{os.getpid()}")
    digest = hashlib.sha256()
    try:
        with open(partial, "wb") as file:
            for block in iter(lambda: content.read(1 << 20), b""):
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != os.path.basename(path).split(".")[0]:
            raise SystemExit("what arrives is not what was sent: send it again")
        os.chmod(partial, 0o444)
        os.rename(partial, path)
        brought.append(path)
    finally:
        _remove(partial)


def _assemble(cache: str, wanted: Mapping[str, Any]) -> None:
    if not wanted:
        return
    place = os.path.join(cache, wanted["path"])
    partial = os.path.join(os.path.dirname(place), f".partial.{os.getpid()}")
    try:
        for name, content in wanted["files"].items():
            path = os.path.join(partial, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _link(os.path.join(cache, "files", content), path)
        if not os.path.isdir(place):
            os.rename(partial, place)
    finally:
        _remove(partial)


def _link(source: str, path: str) -> None:
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno in _FULL:
            raise
        # A file system without hard links, such as an SD card's FAT.
        shutil.copyfile(source, path)


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.exists(path):
        os.unlink(path)


def _sweep(folder: str) -> None:
    """Remove what receivers left that were killed."""
    for name in os.listdir(folder):
        if name.startswith(".partial.") and not os.path.exists(f"/proc/{name.split('.')[2]}"):
            _remove(os.path.join(folder, name))


if __name__ == "__main__":
    os.umask(0o077)
    for _place in ("files", "bundles", "code"):
        _sweep(os.path.join(sys.argv[1], _place))
    receive(sys.argv[1], sys.stdin.buffer)
