"""A bundle as one file, to be copied or kept: a zip archive of one form (:mod:`edgetl.base.stored_zip`).

An archive may come from anybody. It is unpacked into a temporary folder, checked there as any bundle is, and only then
given its name: what is refused leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from edgetl.base.errors import BundleError, EdgetlError
from edgetl.base.names import check_name, check_together
from edgetl.base.storage import check_room, new_file, new_folder
from edgetl.base.stored_zip import Entry, copy_content, read_entries, write_archive
from edgetl.core.bundle import MANIFEST, SKETCH, Bundle, load_bundle
from edgetl.core.bundle_files import file_of
from edgetl.core.signature import SIGNATURE, STATEMENT, every_file, read_public_key, signed_names

_AGAIN = "take it from whoever packed it, or pack the bundle again: edgetl pack BUNDLE --out FILE"


def pack(bundle: str | Path | Bundle, out: str | Path) -> Path:
    """Put a bundle into one file, with its records and its signature: the same bundle gives the same bytes.

    Args:
        bundle: what to pack; it is checked first.
        out: the file, which is replaced if it is there.

    Returns:
        its path.

    Raises:
        BundleError: the bundle is damaged, holds something that is no file, or more than an archive can.
        EdgetlError: the file lies in the bundle, or cannot be written.
    """
    opened, file = load_bundle(bundle), Path(out)
    if file.resolve().is_relative_to(opened.path.resolve()):
        raise EdgetlError(f"{file} lies inside the bundle {opened.path}", "choose another --out")
    if file.is_dir():
        raise EdgetlError(f"{file} is a folder", "name a file, such as --out bundle.zip")
    files = dict(every_file(opened.path))
    files |= {name: opened.path / name for name in (STATEMENT, SIGNATURE) if (opened.path / name).is_file()}
    try:
        check_together(files)
        with new_file(file) as stream:
            check_room(file.parent, sum(path.stat().st_size for path in files.values()), "the archive")
            write_archive(stream, files)
    except ValueError as error:
        raise BundleError(f"cannot pack {opened.path}: {error}", "pack nothing but what edgetl made") from error
    return file


def unpack(archive: str | Path, out: str | Path, public_key: str | Path | None = None) -> Bundle:
    """Unpack what :func:`pack` wrote, and check it as :func:`edgetl.load_bundle` does before it is there.

    Args:
        archive: the file.
        out: the bundle's folder, which is not there yet, or is empty.
        public_key: that must have signed all of it: a file, or 64 hexadecimal digits; None asks for no signature.

    Raises:
        BundleError: it is no such archive, was altered, is not signed, or what it holds is no whole bundle.
        EdgetlError: the folder is there already, or cannot be written.
    """
    source, folder = Path(archive), Path(out)
    key = None if public_key is None else read_public_key(public_key)
    _refuse_standing(folder)
    with _opened(source) as stream:
        try:
            entries = read_entries(stream)
            _check_names([entry.name for entry in entries])
            with new_folder(folder) as partial:
                check_room(partial, sum(entry.size for entry in entries), "the bundle")
                _extract(stream, entries, partial)
                bundle = _checked(partial, source, key)
                _refuse_standing(folder)
        except ValueError as error:
            raise BundleError(f"{source} is no archive of a bundle: {error}", _AGAIN) from error
    return replace(bundle, path=folder)


def _refuse_standing(folder: Path) -> None:
    empty = folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
    if (folder.exists() or folder.is_symlink()) and not empty:
        raise EdgetlError(f"{folder} is there already", "choose another --out, or remove it")


@contextmanager
def _opened(source: Path) -> Iterator[BinaryIO]:
    # A pipe would be waited for, and a device read without end.
    if not source.is_file():
        raise BundleError(f"there is no archive {source}", "make one: edgetl pack BUNDLE --out FILE")
    try:
        stream = source.open("rb")
    except OSError as error:
        raise BundleError(f"cannot read {source} ({error.strerror or error})", "see who may read it") from error
    with stream:
        yield stream


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        check_name(name)
    check_together(names)
    if MANIFEST not in names:
        raise ValueError(f"it holds no {MANIFEST}")


def _extract(stream: BinaryIO, entries: Sequence[Entry], folder: Path) -> None:
    for entry in entries:
        file = folder / entry.name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as target:
            copy_content(stream, entry, target.write)


def _checked(folder: Path, source: Path, key: str | None) -> Bundle:
    try:
        return load_bundle(folder, key)
    except EdgetlError as error:
        # Named by the archive: the folder is gone when somebody reads this.
        raise BundleError(error.what.replace(str(folder), str(source)), _AGAIN) from error


def travelling(folder: Path, files: Iterable[str]) -> tuple[str, ...]:
    """Names of what goes with a bundle to where it runs: its files, what it is watched by, and what is signed.

    Records go along where they are signed: without them, the bundle would not be.

    Args:
        folder: of the bundle.
        files: those that its manifest names.
    """
    records = (SKETCH, *signed_names(folder))
    return tuple(dict.fromkeys((MANIFEST, *files, *(name for name in records if file_of(folder, name).is_file()))))
