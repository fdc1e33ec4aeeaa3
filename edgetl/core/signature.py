"""Who vouches for a bundle: an Ed25519 signature of the SHA-256 of every file in it.

    signature.json   ``files``: name → SHA-256 of every file in the folder but these two, manifest and records too
    signature.sig    64 bytes: the signature of :data:`CONTEXT` and the bytes of ``signature.json``

A seal (a record's own digest) shows accidents: whoever changes a record can seal it again. Only a signature shows who
made it. With a public key in hand, nothing of a bundle is parsed before the signature of its raw bytes is that key's,
and nothing is used that was not signed.
"""

from __future__ import annotations

import base64
import binascii
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgetl.base.ed25519 import KEY_BYTES, SIGNATURE_BYTES, verify
from edgetl.base.errors import BundleError
from edgetl.base.names import below, check_name
from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import canonical_json, read_json, sha256_file

STATEMENT, SIGNATURE = "signature.json", "signature.sig"
#: What the owner of a device adds to a bundle, and what is left of that where it was cut off. Of a signed bundle they
#: may lie there without being signed; nothing that asked for the signature uses them then
#: (:mod:`edgetl.runtime.open_head`).
ENROLLED, ENROLLED_PARTIAL = "enrolled.head", "enrolled.head.partial"
#: Signed with it, so that a key's signature of something else is none of a bundle.
CONTEXT = b"edgetl bundle signature 1\n"
#: Bytes of a statement, and of a file that holds a key.
_MOST, _LONGEST_KEY = 64 << 20, 4096
#: What stands before the 32 bytes of an Ed25519 key in a PEM file (RFC 8410), and in OpenSSH's format (RFC 8709).
_PEM = bytes.fromhex("302a300506032b6570032100")
_OPENSSH = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What is signed: ``files``, name → SHA-256."""

    files: Mapping[str, str]
    schema: Literal[1] = 1


def read_public_key(given: str | Path) -> str:
    """A public key as 64 hexadecimal digits.

    Args:
        given: those digits, or a file that holds them, a PEM public key, or a line of OpenSSH's.

    Raises:
        BundleError: there is no such file, or it holds no Ed25519 public key.
    """
    if re.fullmatch(r"[0-9a-f]{64}", str(given)):
        return str(given)
    file = Path(given)
    try:
        with file.open("rb") as stream:
            text = stream.read(_LONGEST_KEY).decode("ascii", "replace").strip()
    except OSError as error:
        raise BundleError(f"cannot read the public key {file} ({error.strerror or error})", "name its file") from error
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return text
    pem = re.fullmatch(r"-----BEGIN PUBLIC KEY-----\s(.*)\s-----END PUBLIC KEY-----", text, re.DOTALL)
    line = re.fullmatch(r"ssh-ed25519 (\S+)( .*)?", text)
    for found, head in ((pem, _PEM), (line, _OPENSSH)):
        data = _decoded(found[1]) if found else b""
        if data.startswith(head) and len(data) == len(head) + KEY_BYTES:
            return data[len(head) :].hex()
    remedy = "give the public half: openssl pkey -in KEY -pubout, or ssh-keygen's .pub"
    raise BundleError(f"{file} holds no Ed25519 public key", remedy)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""


def is_signed(folder: Path) -> bool:
    """Whether a bundle has a signature, by whomever and of whatever."""
    return (folder / SIGNATURE).exists()


def statement(folder: Path) -> bytes:
    """The bytes of ``signature.json`` for a folder as it is now.

    Raises:
        BundleError: it holds something that is no file, or whose name cannot be used.
    """
    found = dict(every_file(folder))
    return canonical_json(to_json(Statement(files={name: sha256_file(file) for name, file in sorted(found.items())})))


def signed_names(folder: Path) -> tuple[str, ...]:
    """Names of the files that a signed bundle consists of, its signature's included; none for one without.

    They are as the statement has them, which nobody vouches for here: only :func:`check_signature` does.

    Raises:
        BundleError: the statement is malformed, or names files that lie elsewhere.
    """
    if not is_signed(folder):
        return ()
    names = _read(folder / STATEMENT).files
    for name in names:
        _refuse_name(folder, name)
    return (*names, STATEMENT, SIGNATURE)


def check_signature(folder: Path, public_key: str) -> None:
    """Check that everything in a bundle's folder was signed with a key, and that nothing of that is missing.

    Args:
        folder: of the bundle.
        public_key: 64 hexadecimal digits (:func:`read_public_key`).

    Raises:
        BundleError: there is no signature, it is another key's, or a file was altered, is missing, or was not signed.
    """
    again = "take the bundle from whoever signed it, or sign it again"
    signed, signature = (_raw(folder, name, most) for name, most in ((STATEMENT, _MOST), (SIGNATURE, SIGNATURE_BYTES)))
    if signed is None or signature is None:
        raise BundleError(f"{folder} is not signed", "sign it: edgetl sign BUNDLE --key KEY; or take one that is")
    if not verify(bytes.fromhex(public_key), signature, CONTEXT + signed):
        raise BundleError(f"{folder} is not signed by the key {public_key[:16]}…, or its signature was altered", again)
    expected, found = _read(folder / STATEMENT).files, dict(every_file(folder))
    for name in sorted({*expected, *found}):
        if name not in expected and name in (ENROLLED, ENROLLED_PARTIAL):
            continue
        if name not in expected:
            raise BundleError(f"{folder}: {name} is not among what was signed", again)
        if name not in found:
            raise BundleError(f"{folder} lacks {name}, which was signed", again)
        if sha256_file(found[name]) != expected[name]:
            raise BundleError(f"{found[name]} is not what was signed", again)


def _read(file: Path) -> Statement:
    return from_json(Statement, read_json(file, BundleError), file, BundleError, "sign the bundle again")


def _raw(folder: Path, name: str, most: int) -> bytes | None:
    try:
        file = below(folder, name)
        if not file.is_file() or file.stat().st_size > most:
            return None
        return file.read_bytes()
    except (ValueError, OSError) as error:
        raise BundleError(f"cannot read {folder / name} ({error})", "take the bundle from whoever signed it") from error


def every_file(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file in a folder but the signature's own two.

    Raises:
        BundleError: one is a link or something else that is no file, or its name cannot be used.
    """
    waiting = [folder]
    while waiting:
        for entry in waiting.pop().iterdir():
            name, kind = entry.relative_to(folder).as_posix(), entry.lstat().st_mode
            if stat.S_ISDIR(kind):
                waiting.append(entry)
            elif not stat.S_ISREG(kind):
                raise BundleError(f"{folder}: {name!a:.100} is no file", "remove it")
            elif name not in (STATEMENT, SIGNATURE):
                _refuse_name(folder, name)
                yield name, entry


def _refuse_name(folder: Path, name: str) -> None:
    try:
        check_name(name)
    except ValueError as error:
        raise BundleError(f"{folder}: {error}", "use no bundle that names such files") from error
