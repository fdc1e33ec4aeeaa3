"""Zip archives of one form: files as they are, in the order of their names, one behind the other, and nothing else.

Every zip program opens them (APPNOTE.TXT 6.3), and the same files give the same bytes, whatever compresses elsewhere.
The reader takes this form alone: each header is compared with the one that the writer would have written, so that an
archive leaves no room for what two readers could understand differently.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

#: Files, of which a bundle has some dozen, and bytes: what 32 bits tell, and less than what marks a larger one.
MOST_FILES, MOST_BYTES = 1000, (4 << 30) - 2
_LOCAL, _CENTRAL, _END = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s4H2LH")
#: Zip 2.0; names in UTF-8; stored; 1 January 1980, 0:00, the first moment that it can tell.
_VERSION, _FLAGS, _METHOD, _TIME, _DATE = 20, 1 << 11, 0, 0, 33
#: Made on Unix, by which attributes are those of a file that everybody may read.
_MADE_BY, _ATTRIBUTES = 3 << 8 | _VERSION, 0o100644 << 16
_LONGEST_NAME = 1024
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A file in an archive: its name, its bytes, their CRC-32, and where they begin."""

    name: str
    size: int
    crc: int
    start: int


def write_archive(stream: BinaryIO, files: Mapping[str, Path]) -> None:
    """Write an archive.

    Args:
        stream: takes it.
        files: name in the archive, relative and with forward slashes → the file.

    Raises:
        ValueError: too many files or bytes, or a file that changes while it is read; a clause says which.
    """
    if len(files) > MOST_FILES:
        raise ValueError(f"there are {len(files):,} files, and an archive holds {MOST_FILES:,}")
    position, directory = 0, bytearray()
    for name, file in sorted(files.items()):
        size, crc = _summed(file)
        encoded = name.encode()
        directory += _central(encoded, crc, size, position)
        header = _local(encoded, crc, size)
        position += len(header) + size
        if position + len(directory) + _END.size > MOST_BYTES:
            raise ValueError(f"they are more than {MOST_BYTES / 1e9:.1f} GB, which an archive cannot hold")
        stream.write(header)
        with file.open("rb") as source:
            if _copied(source, size, stream.write) != crc or source.read(1):
                raise ValueError(f"{file} changed while it was read")
    stream.write(directory + _end(len(files), len(directory), position))


def read_entries(stream: BinaryIO) -> tuple[Entry, ...]:
    """What an archive holds, in its order, all headers looked at and no content.

    Args:
        stream: the archive; it can be sought in.

    Raises:
        ValueError: it is of another form than :func:`write_archive` gives it; a clause says in what.
    """
    count, start, directory = _directory(stream)
    entries = tuple(_entries(directory, start))
    if len(entries) != count:
        raise ValueError(f"its directory has {len(entries):,} files and says {count:,}")
    names = [entry.name for entry in entries]
    if names != sorted(set(names)):
        raise ValueError("its files are not in the order of their names, or one is there twice")
    behind = entries[-1].start + entries[-1].size if entries else 0
    if behind != start:
        raise ValueError("something lies between its files and its directory, or they overlap")
    for entry in entries:
        expected = _local(entry.name.encode(), entry.crc, entry.size)
        stream.seek(entry.start - len(expected))
        _compare(_LOCAL, stream.read(len(expected)), expected, f"the header of {entry.name!a:.100}")
    return entries


def copy_content(stream: BinaryIO, entry: Entry, write: Callable[[bytes], object]) -> None:
    """Copy what an entry holds, in pieces.

    Raises:
        ValueError: it is not what its header says; everything was written by then.
    """
    stream.seek(entry.start)
    if _copied(stream, entry.size, write) != entry.crc:
        raise ValueError(f"{entry.name!a:.100} is damaged (its CRC-32 differs)")


def _summed(file: Path) -> tuple[int, int]:
    size = crc = 0
    with file.open("rb") as source:
        for block in iter(lambda: source.read(_BLOCK), b""):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc


def _copied(source: BinaryIO, size: int, write: Callable[[bytes], object]) -> int:
    """Copy so many bytes; returns their CRC-32, or -1 where there are fewer."""
    crc = 0
    while size:
        block = source.read(min(_BLOCK, size))
        if not block:
            return -1
        write(block)
        size, crc = size - len(block), zlib.crc32(block, crc)
    return crc


def _local(name: bytes, crc: int, size: int) -> bytes:
    fixed = (_VERSION, _FLAGS, _METHOD, _TIME, _DATE)
    return _LOCAL.pack(b"PK\3\4", *fixed, crc, size, size, len(name), 0) + name


def _central(name: bytes, crc: int, size: int, position: int) -> bytes:
    fixed = (_MADE_BY, _VERSION, _FLAGS, _METHOD, _TIME, _DATE)
    behind = (len(name), 0, 0, 0, 0, _ATTRIBUTES, position)
    return _CENTRAL.pack(b"PK\1\2", *fixed, crc, size, size, *behind) + name


def _end(count: int, size: int, position: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, count, count, size, position, 0)


def _directory(stream: BinaryIO) -> tuple[int, int, bytes]:
    """How many files the end of an archive tells of, where its directory begins, and the directory."""
    total = stream.seek(0, 2)
    if not _END.size <= total <= MOST_BYTES:
        raise ValueError(f"it has {total:,} bytes, which no archive has")
    stream.seek(total - _END.size)
    last = stream.read(_END.size)
    signature, *_, count, size, start, _ = _END.unpack(last)
    if signature != b"PK\5\6":
        raise ValueError("it does not end as a zip archive: it is none, cut short, or something follows it")
    if count > MOST_FILES:
        raise ValueError(f"it says that it holds {count:,} files, and an archive holds {MOST_FILES:,}")
    if last != _end(count, size, start) or start + size + _END.size != total:
        raise ValueError("its directory is not where its end says")
    if size > count * (_CENTRAL.size + _LONGEST_NAME):
        raise ValueError(f"its directory is larger than {count:,} files take")
    stream.seek(start)
    return count, start, stream.read(size)


def _entries(directory: bytes, end: int) -> Iterator[Entry]:
    place = position = 0
    while place < len(directory):
        head = directory[place : place + _CENTRAL.size]
        if len(head) < _CENTRAL.size:
            raise ValueError("its directory ends within a file")
        _, _, _, _, _, _, _, crc, _, size, length, *_ = _CENTRAL.unpack(head)
        raw = directory[place : place + _CENTRAL.size + length]
        encoded = raw[_CENTRAL.size :]
        try:
            name = encoded.decode()
        except UnicodeDecodeError:
            raise ValueError(f"the name {encoded!a:.100} is no UTF-8") from None
        expected = _central(encoded, crc, size, position)
        _compare(_CENTRAL, raw, expected, f"{name!a:.100}")
        start = position + _LOCAL.size + length
        if start + size > end:
            raise ValueError(f"{name!a:.100} reaches beyond its end")
        yield Entry(name, size, crc, start)
        place, position = place + len(raw), start + size


#: What a header says, by the place of its value; the rest is fixed and means nothing by itself.
_SAID = {
    _CENTRAL: {3: "flags", 4: "method", 8: "sizes", 11: "more", 12: "more", 15: "kind", 16: "place"},
    _LOCAL: {2: "flags", 3: "method", 6: "crc", 7: "sizes", 8: "sizes", 10: "more"},
}
_OBJECTIONS = {
    "flags": "is encrypted, or written in a stream",
    "method": "is compressed",
    "sizes": "has two sizes",
    "crc": "has two CRCs",
    "more": "has extra fields or a comment",
    "kind": "is no plain file: a link, a folder or a device",
    "place": "does not lie behind the one before it: they overlap, or something lies between",
}


def _compare(form: struct.Struct, found: bytes, expected: bytes, what: str) -> None:
    """Refuse a header that is another than the writer would have written, and say in what."""
    if found == expected:
        return
    if len(found) == len(expected):
        pairs = zip(form.unpack(found[: form.size]), form.unpack(expected[: form.size]), strict=True)
        differ = [_SAID[form][i] for i, (own, other) in enumerate(pairs) if own != other and i in _SAID[form]]
        if differ:
            raise ValueError(f"{what} {_OBJECTIONS[differ[0]]}")
    raise ValueError(f"{what} is of another form than edgetl writes")
