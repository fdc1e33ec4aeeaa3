"""A real device behind SSH.

What is sent there is kept in ``~/.cache/edgetl`` under the SHA-256 of its content, so that nothing is sent twice and
a transfer that was cut goes on where it was cut (see ``receiver.py``):

    files/SHA256[.suffix] samples, and each file of the folders below
    bundles/SHA256/       bundles; of those that are not signed, without the records that were made after export
    code/SHA256/          the device's share of edgetl
    calls/PID.*           one scratch folder for each call, gone when it ends

Each lies there whole or not at all, is hashed before it is used, and sent again where it is damaged. The folder may be
deleted at any time.

A call is one remote shell (``remote/run.sh``) that watches its standard input: when this side is gone, or kills its end
because time is up, the shell kills the work and removes what that left.
"""

from __future__ import annotations

import json
import math
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from edgetl.base.errors import BundleError, DeviceError
from edgetl.base.progress import Progress, silent
from edgetl.base.storage import sha256_bytes, sha256_file, sha256_json
from edgetl.core.bundle import MANIFEST
from edgetl.core.bundle_archive import travelling
from edgetl.core.bundle_files import file_of
from edgetl.core.manifest import read_manifest
from edgetl.core.signature import ENROLLED
from edgetl.devices.base import EXECUTED, DeviceProbe, Executed, Kind, describe, install_remedy, probe_by_calling
from edgetl.devices.connection import Address, Connection, close_connection, connect
from edgetl.devices.payload import payload, payload_digest, receiver_program
from edgetl.devices.process import FULL_DISK, Finished, answer, read_outputs, remaining
from edgetl.devices.receiver import LAST, WHOLE
from edgetl.devices.remote import program
from edgetl.inputs import modules_for

OLDEST_PYTHON = (3, 10)
#: Of the receiver: what is missing there, and here it comes.
_VERBS = ("look", "take")


@dataclass(frozen=True)
class SshDevice:
    """A device behind SSH.

    Attributes:
        name: what the user calls it.
        address: where it is.
        known_arch: its machine as the last probe found it; empty before the first.
        required_key: see :class:`edgetl.devices.base.Device`.
    """

    name: str
    address: Address
    known_arch: str = ""
    required_key: str = ""

    @property
    def kind(self) -> Kind:
        """See :class:`edgetl.devices.base.Device`."""
        return "ssh"

    @property
    def arch(self) -> str:
        """As the last probe found it."""
        return self.known_arch

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
        self._check_python(link, None if bundle is None else modules_for(bundle))
        verb, *options = arguments
        command = [self.address.python, "-m", "edgetl.runtime", verb]
        code = self._place_code(link)
        if bundle is not None:
            command.append(self._place_bundle(link, bundle, progress))
        command += options
        there = self._place_samples(link, files, progress)
        if files:
            command += ["--samples", "samples.txt", "--out", "outputs.npz"]
        seconds = remaining()
        limit = "" if seconds is None else str(math.ceil(seconds))
        listed = "".join(f"{name}\n" for name in there).encode()
        done = link.run(
            program("run"),
            [link.cache, str(len(there)), code, limit, *command],
            feed=lambda stream: _write(stream, listed),
            progress=progress,
        )
        line, _, outputs = done.stdout.partition(b"\n")
        spoken = _with_local_names(replace(done, stdout=line), dict(zip(there, files, strict=True)))
        record = answer(self.name, spoken)
        return {**record, "outputs": read_outputs(self.name, outputs)} if files else record

    def close(self) -> None:
        """See :class:`edgetl.devices.base.Device`."""
        close_connection(self.name, self.address)

    def _check_python(self, link: Connection, modules: Sequence[str] | None) -> None:
        """Check that there is a Python new enough, with numpy and what reading the samples takes."""
        python, needed = self.address.python, ("numpy", *(modules or ()))
        if (python, *needed) in link.checked:
            return
        code = f"import sys; print(*sys.version_info[:2]); import {', '.join(needed)}"
        done = link.run('exec "$@"', [python, "-c", code])
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
            remedy = install_remedy(python) if modules is None else install_remedy(python, needed)
            raise DeviceError(f"{self.name} lacks a package ({done.last_line})", remedy)
        link.checked.add((python, *needed))

    def _place_code(self, link: Connection) -> str:
        content = payload()
        members: dict[str, Path | bytes] = {**content}
        names = {name: sha256_bytes(data) for name, data in content.items()}
        return self._place(link, f"code/{payload_digest(content)}", members, names, silent)

    def _place_bundle(self, link: Connection, bundle: Path, progress: Progress) -> str:
        added = [ENROLLED] if file_of(bundle, ENROLLED).is_file() else []
        listed = [*travelling(bundle, read_manifest(bundle / MANIFEST).files), *added]
        absent = [name for name in listed if not file_of(bundle, name).is_file()]
        if absent:
            raise BundleError(f"{bundle} lacks {absent[0]}", "export it again or copy it whole")
        # Not the manifest's own digests: a damaged copy must not stand in the way of a whole one.
        names = {name: sha256_file(bundle / name) for name in listed}
        members: dict[str, Path | bytes] = {name: bundle / name for name in listed}
        return self._place(link, f"bundles/{sha256_json(names)}", members, names, progress)

    def _place_samples(self, link: Connection, files: Sequence[Path], progress: Progress) -> list[str]:
        """Take sample files there; returns their paths there, in order."""
        if not files:
            return []
        names = [_content_name(file) for file in files]
        members: dict[str, Path | bytes] = dict(zip(names, files, strict=True))
        self._place(link, "", members, dict(zip(members, members, strict=True)), progress)
        return [f"{link.cache}/files/{name}" for name in names]

    def _place(
        self,
        link: Connection,
        folder: str,
        members: Mapping[str, Path | bytes],
        names: Mapping[str, str],
        progress: Progress,
    ) -> str:
        """Send what is missing of ``members`` (``names``: by content), and put ``folder`` together from them."""
        wanted = json.dumps({"path": folder, "files": dict(names)}).encode()
        look, take = ([self.address.python, "-I", "-S", "-c", receiver_program(), link.cache, v] for v in _VERBS)
        asking = link.run('exec "$@"', look, feed=lambda stream: _write_all(stream, wanted))
        missing = set(self._must(asking).stdout.decode().split())
        if missing != {WHOLE} and (missing or folder):
            sent = {names[name]: content for name, content in members.items() if names[name] in missing}
            feed = _archive({**sent, LAST: wanted}, f"{link.name}: sending", progress)
            self._must(link.run('exec "$@"', take, feed=feed))
        return f"{link.cache}/{folder}"

    def _must(self, done: Finished) -> Finished:
        if done.status:
            if any(words in done.last_line for words in FULL_DISK):
                raise DeviceError(f"{self.name} has no space left ({done.last_line})", "free space there")
            raise DeviceError(
                f"{self.name} does not take files ({done.last_line})", "check its disk, then run it again"
            )
        return done


def _content_name(file: Path) -> str:
    suffix = file.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", file.suffix) else ""
    try:
        return sha256_file(file) + suffix
    except OSError as error:
        raise DeviceError(f"cannot read {file} ({error.strerror})", "restore the file") from error


def _archive(members: Mapping[str, Path | bytes], task: str, progress: Progress) -> Callable[[IO[bytes]], None]:
    def feed(stream: IO[bytes]) -> None:
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for done, (name, content) in enumerate(members.items()):
                data = content if isinstance(content, bytes) else content.read_bytes()
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o600
                archive.addfile(info, BytesIO(data))
                progress(task, done, len(members) - 1)
        stream.close()

    return feed


def _write(stream: IO[bytes], data: bytes) -> None:
    stream.write(data)


def _write_all(stream: IO[bytes], data: bytes) -> None:
    stream.write(data)
    stream.close()


def _with_local_names(done: Finished, names: Mapping[str, Path]) -> Finished:
    """Speak of the user's files, not of their copies there."""
    text = done.stderr
    for there, here in names.items():
        text = text.replace(there, str(here)) if there in text else text
    return replace(done, stderr=text)
