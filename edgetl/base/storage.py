"""Bytes on disk: canonical JSON, content hashes, and writes that are whole or absent.

Every file and folder that edgetl leaves behind goes through :func:`new_file` or :func:`new_folder`, so
that a reader never meets a half-written one, whatever killed the writer.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from edgetl.base.errors import EdgetlError

DIGEST_FIELD = "digest"
#: Bytes of a JSON file, which takes ten times as many once it is read: a million samples have 250 MB.
MOST_JSON = 512 << 20
_DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def canonical_json(value: Any) -> bytes:
    """Encode ``value`` so that equal values give equal bytes (sorted keys, no spaces, no NaN; RFC 8785 in spirit)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        # Not hashlib.file_digest: devices still run Python 3.10.
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``."""
    return sha256_bytes(canonical_json(value))


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``record`` with a ``digest`` over all its other fields, so that an edit shows."""
    body = {key: value for key, value in record.items() if key != DIGEST_FIELD}
    return {**body, DIGEST_FIELD: sha256_json(body)}


def is_sealed(record: Mapping[str, Any]) -> bool:
    """Whether ``record`` still carries the digest of its other fields."""
    body = {key: value for key, value in record.items() if key != DIGEST_FIELD}
    try:
        return record.get(DIGEST_FIELD) == sha256_json(body)
    except (TypeError, ValueError):  # a value that canonical JSON cannot hold, such as NaN, was never sealed
        return False


def _unwritable(path: Path, error: OSError) -> EdgetlError:
    return EdgetlError(
        f"cannot write {path} ({error.strerror or error})", "free space or choose a writable folder with --out"
    )


def check_room(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what would end on a full disk.

    Args:
        folder: where it is to be written; it exists.
        needed: bytes, about.
        what: is to be written, for the message.

    Raises:
        EdgetlError: there is less free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        sizes = f"{free / 1e6:,.1f} MB are free at {folder}, and {what} takes about {needed / 1e6:,.1f} MB"
        raise EdgetlError(sizes, "free space or choose another --out")


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name beside ``path``, then rename it into place, replacing what stood there.

    Leaves nothing behind if the body raises. An :class:`OSError` of the body that names another file passes unchanged.

    Raises:
        EdgetlError: the folder is read-only or the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        temporary = None
    except OSError as error:
        if temporary is None or error.filename is None or str(error.filename) == temporary:
            raise _unwritable(path, error) from error
        raise
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside ``path``, then rename it into place.

    Raises:
        EdgetlError: the folder is read-only or the disk is full; nothing is left behind.
    """
    with new_file(path) as stream:
        stream.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, whole or not at all."""
    write_bytes(path, readable_json(value))


def readable_json(value: Any) -> bytes:
    """The bytes that :func:`write_json` writes."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def write_sealed(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``record`` with its digest (see :func:`sealed`), whole or not at all."""
    write_json(path, sealed(record))


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits:.40} is no finite number")
    return value


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text that anybody may have written.

    Raises:
        ValueError: it is none, no UTF-8, nested too deep to be read, or holds what cannot be written again: a number
            that is not finite, half of a character.
    """
    text = content if isinstance(content, str) else content.decode()
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    return value


def parse_toml(content: str) -> dict[str, Any]:
    """The table of a TOML text that anybody may have written.

    Raises:
        ValueError: it is none, or nested too deep to be read.
    """
    # Not above: a device's Python may be 3.10, which has none; nobody writes TOML there.
    import tomllib

    try:
        return tomllib.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_json(path: Path, error: type[EdgetlError] = EdgetlError) -> Any:
    """Read a JSON file.

    Raises:
        error: the file is missing, unreadable, larger than :data:`MOST_JSON` or not JSON.
    """
    try:
        if path.stat().st_size > MOST_JSON:
            raise error(f"{path} is larger than {MOST_JSON >> 20} MiB", "no record is: make it again")
        return parse_json(path.read_bytes())
    except OSError as problem:
        raise error(f"cannot read {path} ({problem.strerror or problem})") from problem
    except ValueError as problem:
        raise error(f"{path} is not whole JSON ({problem})", "make it again") from problem


def read_sealed(path: Path, error: type[EdgetlError] = EdgetlError) -> dict[str, Any]:
    """Read a record written by :func:`write_sealed`.

    Raises:
        error: missing, not JSON, or not byte for byte what :func:`write_sealed` wrote.
    """
    record = read_json(path, error)
    # The digest covers values; a byte can also change between them or in how a number is spelled.
    if not isinstance(record, dict) or not is_sealed(record) or path.read_bytes() != readable_json(record):
        raise error(f"{path} was altered or damaged (its digest does not match)", "make it again")
    return record


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name, then rename it to ``path``, replacing what stood there.

    Leaves nothing behind if the body raises. An :class:`OSError` of the body that has nothing to do with this
    folder (a missing input, a broken connection) passes unchanged.

    Raises:
        EdgetlError: the parent is read-only or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial"))
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield temporary
        _into_place(temporary, path)
    except OSError as error:
        if error.errno in _DISK_TROUBLE or str(error.filename).startswith(str(temporary)):
            raise _unwritable(path, error) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _into_place(temporary: Path, path: Path) -> None:
    temporary.chmod(0o755)
    aside = temporary.with_suffix(".old.partial")
    # Moved, not removed: a process killed while removing would leave part of the old folder under its name.
    if path.is_dir() and not path.is_symlink():
        path.replace(aside)
    temporary.replace(path)
    shutil.rmtree(aside, ignore_errors=True)
