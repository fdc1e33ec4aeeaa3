"""A real device behind SSH.

What is sent there is kept in ``~/.cache/edgetl`` under the SHA-256 of its content, so that nothing is sent twice:

    files/SHA256.suffix   images
    bundles/SHA256/       bundles, without the records that were made after export
    code/SHA256/          the device's share of edgetl
    calls/                one scratch folder for each call, gone when it ends

Each lies there whole or not at all: it is unpacked under another name first. The folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from edgetl.bundle import MANIFEST
from edgetl.devices.base import EXECUTED, DeviceProbe, Executed, Kind, describe, install_remedy, probe_by_calling
from edgetl.devices.connection import Address, Connection, connect
from edgetl.devices.payload import payload, payload_digest
from edgetl.devices.process import PROGRESS_VARIABLE, Finished, answer, read_array
from edgetl.errors import BundleError, DeviceError
from edgetl.progress import Progress, silent
from edgetl.storage import read_sealed, sha256_file, sha256_json

OLDEST_PYTHON = (3, 10)
#: Last member of every archive. GNU tar takes an archive cut off between two members for whole.
_WHOLE = ".whole"
_UNPACK = (
    'set -e; umask 077; t=$(mktemp -d "$1/.partial.XXXXXX"); trap \'rm -rf "$t"\' EXIT; tar -xf - -C "$t"; '
    f'rm "$t/{_WHOLE}"; '
)
_PLACE_FOLDER = _UNPACK + 'if [ ! -d "$1/$2" ]; then mv "$t" "$1/$2"; fi'
_PLACE_FILES = _UNPACK + 'for f in "$t"/*; do mv "$f" "$1/"; done'
_MISSING = 'while read -r n; do [ -f "$1/$n" ] || echo "$n"; done'
_SCRATCH = 'd=$(mktemp -d "$1/calls/XXXXXX") && cat > "$d/images.txt" && echo "$d"'
#: Runs Python so that it ends when this side is gone, which closes standard input.
_RUN = (
    'cd "$1" || exit 1; p=$2; shift 2; exec 3<&0; '
    f'PYTHONPATH="$p" {PROGRESS_VARIABLE}=1 "$@" </dev/null & c=$!; '
    "( cat <&3; kill $c ) >/dev/null 2>&1 & w=$!; exec 3<&-; "
    "wait $c; s=$?; kill $w 2>/dev/null; exit $s"
)


@dataclass(frozen=True)
class SshDevice:
    """A device behind SSH.

    Attributes:
        name: what the user calls it.
        address: where it is.
    """

    name: str
    address: Address

    @property
    def kind(self) -> Kind:
        """See :class:`edgetl.devices.base.Device`."""
        return "ssh"

    @property
    def arch(self) -> str:
        """Empty: only a probe can tell."""
        return ""

    @property
    def executed(self) -> Executed:
        """``device``."""
        return EXECUTED[self.kind]

    @property
    def where(self) -> str:
        """The address."""
        return self.address.url

    def to_json(self) -> dict[str, str]:
        """See :class:`edgetl.devices.base.Device`."""
        return describe(self)

    def probe(self) -> DeviceProbe:
        """See :class:`edgetl.devices.base.Device`."""
        return probe_by_calling(self)

    def call(
        self,
        arguments: Sequence[str],
        *,
        bundle: Path | None = None,
        files: Sequence[Path] = (),
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """See :class:`edgetl.devices.base.Device`."""
        link = connect(self.name, self.address)
        self._check_python(link)
        verb, *options = arguments
        command = [self.address.python, "-m", "edgetl.runtime", verb]
        code = _place_code(link)
        if bundle is not None:
            command.append(_place_bundle(link, bundle, progress))
        command += options
        there = _place_images(link, files, progress)
        with _scratch(link, there) as scratch:
            if files:
                command += ["--images", f"{scratch}/images.txt", "--out", f"{scratch}/logits.npy"]
            done = link.run(_RUN, [scratch, code, *command], progress=progress)
            record = answer(self.name, _with_local_names(done, dict(zip(there, files, strict=True))))
            if not files:
                return record
            logits = link.run('cat "$1"', [f"{scratch}/logits.npy"])
            return {**record, "logits": read_array(self.name, logits.stdout)}

    def _check_python(self, link: Connection) -> None:
        python = self.address.python
        program = "import sys; print(*sys.version_info[:2]); import numpy, PIL"
        done = link.run('exec "$@"', [python, "-c", program])
        found = re.match(rb"(\d+) (\d+)\s", done.stdout)
        if found is None:
            raise DeviceError(
                f"{self.name} has no working {python} ({done.last_line})",
                "install Python there, or name another one with ?python=/path/to/python in its address",
            )
        have = int(found[1]), int(found[2])
        if have < OLDEST_PYTHON:
            raise DeviceError(
                f"{self.name} has Python {have[0]}.{have[1]}, and edgetl needs {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]}",
                "name a newer one with ?python=/path/to/python in its address",
            )
        if done.status:
            raise DeviceError(f"{self.name} lacks a package ({done.last_line})", install_remedy(python))


def _place_code(link: Connection) -> str:
    content = payload()
    members: dict[str, Path | bytes] = {**content}
    return _place_folder(link, "code", payload_digest(content), members, silent)


def _place_bundle(link: Connection, bundle: Path, progress: Progress) -> str:
    names = [MANIFEST, *read_sealed(bundle / MANIFEST, BundleError)["files"]]
    absent = [name for name in names if not (bundle / name).is_file()]
    if absent:
        raise BundleError(f"{bundle} lacks {absent[0]}", "export it again or copy it whole")
    # Not the manifest's own digest: a damaged copy must not stand in the way of a whole one.
    digest = sha256_json({name: sha256_file(bundle / name) for name in names})
    return _place_folder(link, "bundles", digest, {name: bundle / name for name in names}, progress)


def _place_folder(
    link: Connection, place: str, digest: str, members: Mapping[str, Path | bytes], progress: Progress
) -> str:
    parent = f"{link.cache}/{place}"
    if link.run('[ -d "$1/$2" ]', [parent, digest]).status:
        feed = _archive(members, f"{link.name}: sending {place}", progress)
        _must(link, link.run(_PLACE_FOLDER, [parent, digest], feed=feed))
    return f"{parent}/{digest}"


def _place_images(link: Connection, files: Sequence[Path], progress: Progress) -> list[str]:
    """Take image files there; returns their paths there, in order."""
    if not files:
        return []
    parent = f"{link.cache}/files"
    names = [_content_name(file) for file in files]
    by_name = dict(zip(names, files, strict=True))
    asked = "".join(f"{name}\n" for name in by_name).encode()
    listed = _must(link, link.run(_MISSING, [parent], feed=lambda stream: _write(stream, asked)))
    missing = listed.stdout.decode().split()
    if missing:
        members = {name: by_name[name] for name in missing}
        feed = _archive(members, f"{link.name}: sending images", progress)
        _must(link, link.run(_PLACE_FILES, [parent], feed=feed))
    return [f"{parent}/{name}" for name in names]


def _content_name(file: Path) -> str:
    suffix = file.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", file.suffix) else ""
    try:
        return sha256_file(file) + suffix
    except OSError as error:
        raise DeviceError(f"cannot read {file} ({error.strerror})", "restore the file") from error


def _archive(members: Mapping[str, Path | bytes], task: str, progress: Progress) -> Callable[[IO[bytes]], None]:
    def feed(stream: IO[bytes]) -> None:
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for done, (name, content) in enumerate({**members, _WHOLE: b""}.items()):
                data = content if isinstance(content, bytes) else content.read_bytes()
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o600
                archive.addfile(info, BytesIO(data))
                progress(task, done, len(members))

    return feed


def _write(stream: IO[bytes], data: bytes) -> None:
    stream.write(data)


@contextlib.contextmanager
def _scratch(link: Connection, images: Sequence[str]) -> Iterator[str]:
    """A folder for one call, with the list of images in it."""
    listed = "".join(f"{name}\n" for name in images).encode()
    made = _must(link, link.run(_SCRATCH, [link.cache], feed=lambda stream: _write(stream, listed)))
    folder = made.stdout.decode().strip()
    try:
        yield folder
    finally:
        if link.alive:
            with contextlib.suppress(DeviceError):
                link.run('rm -rf "$1"', [folder])


def _must(link: Connection, done: Finished) -> Finished:
    if done.status:
        raise DeviceError(f"{link.name} does not take files ({done.last_line})", "check its disk and its tar")
    return done


def _with_local_names(done: Finished, names: Mapping[str, Path]) -> Finished:
    """Speak of the user's files, not of their copies there."""
    text = done.stderr
    for there, here in names.items():
        text = text.replace(there, str(here)) if there in text else text
    return replace(done, stderr=text)
