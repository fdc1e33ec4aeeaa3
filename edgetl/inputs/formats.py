"""Picture files that Pillow does not read, or reads for something else: each in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgetl.base.errors import DataError

#: Bytes of a file that are looked at.
HEAD = 1024
#: Of cameras' raw files, many of which hold a small TIFF picture that Pillow would take for the photograph.
RAW_SUFFIXES = frozenset(
    {
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw"),
        *(".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    }
)
#: Bytes 4 to 12 of an ISO media file → what it is.
_BRANDS: Mapping[bytes, str] = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "a HEIC picture"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture"),
    b"crx ": "a camera's raw file",
    **dict.fromkeys((b"isom", b"iso2", b"mp41", b"mp42", b"qt  ", b"M4V ", b"3gp4", b"3gp5"), "a film"),
}
#: First bytes → what the file is.
_STARTS: Mapping[bytes, str] = {
    **dict.fromkeys((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0"), "a camera's raw file"),
    b"%PDF": "a PDF document",
    b"v/1\x01": "an OpenEXR picture",
    b"#?RADIANCE": "a Radiance picture",
    b"\xff\x0a": "a JPEG XL picture",
    b"\0\0\0\x0cJXL ": "a JPEG XL picture",
}
_REMEDIES: Mapping[str, str] = {
    "a camera's raw file": "develop it to JPEG or PNG",
    "an SVG drawing": "draw it as PNG in the size that is wanted",
    "a DICOM file": "convert it to PNG, with the window that is wanted",
    "a film": "take pictures out of it",
}
_CONVERT = "convert it to JPEG or PNG"


def refuse_raw(path: Path) -> None:
    """Refuse a camera's raw file by its suffix.

    Raises:
        DataError: it is one.
    """
    if path.suffix.lower() in RAW_SUFFIXES and path.is_file():
        raise _unread(str(path), "a camera's raw file")


def unread(source: Path | bytes) -> DataError:
    """The error for a file, or the bytes of one, that Pillow does not know."""
    if isinstance(source, bytes):
        name, head = "the file", source[:HEAD]
    else:
        name = str(source)
        try:
            with source.open("rb") as stream:
                head = stream.read(HEAD)
        except OSError as error:
            return DataError(f"{name} cannot be read ({error.strerror or error})", "restore it or remove it")
    kind = _kind(head)
    return DataError(f"{name} is not an image", "remove it or replace it") if kind is None else _unread(name, kind)


def _unread(name: str, kind: str) -> DataError:
    return DataError(f"{name} is {kind}, no image that is read", _REMEDIES.get(kind, _CONVERT))


def _kind(head: bytes) -> str | None:
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return _BRANDS[head[8:12]]
    if head[128:132] == b"DICM":
        return "a DICOM file"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"<svg", b"<?xml", b"<!DOCTYPE svg", b"<!--")) and b"<svg" in text:
        return "an SVG drawing"
    return next((kind for start, kind in _STARTS.items() if head.startswith(start)), None)
