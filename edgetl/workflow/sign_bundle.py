"""Signing a bundle: whoever holds the private key vouches for every file in it, as it is now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgetl.base.errors import EdgetlError
from edgetl.base.extras import require
from edgetl.base.storage import write_bytes
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.signature import CONTEXT, SIGNATURE, STATEMENT, check_signature, statement

#: Holds the password of a key that has one: an option would be in every list of processes.
PASSWORD_VARIABLE = "EDGETL_KEY_PASSWORD"


def sign(bundle: str | Path | Bundle, key: str | Path) -> str:
    """Sign a bundle: ``signature.json`` and ``signature.sig`` are written.

    Sign last: a certificate or a benchmark that is written later is none of what was signed.

    Args:
        bundle: what to sign; it is checked first.
        key: file of an Ed25519 private key, in PEM (PKCS 8) or OpenSSH's format. ``EDGETL_KEY_PASSWORD`` holds its
            password, if it has one.

    Returns:
        the public key, 64 hexadecimal digits.

    Raises:
        BundleError: the bundle is damaged, or holds something that is no file.
        EdgetlError: the key cannot be used, or the folder not be written.
        MissingExtraError: ``cryptography`` is not installed.
    """
    opened = load_bundle(bundle)
    private = _private_key(Path(key))
    signed = statement(opened.path)
    # The old signature is none of the new statement.
    (opened.path / SIGNATURE).unlink(missing_ok=True)
    write_bytes(opened.path / STATEMENT, signed)
    write_bytes(opened.path / SIGNATURE, private.sign(CONTEXT + signed))
    public = str(private.public_key().public_bytes_raw().hex())
    check_signature(opened.path, public)
    return public


def _private_key(file: Path) -> Any:
    serialization = require("cryptography.hazmat.primitives.serialization", "signing")
    ed25519 = require("cryptography.hazmat.primitives.asymmetric.ed25519", "signing")
    remedy = "make one: openssl genpkey -algorithm ed25519 -out KEY"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise EdgetlError(f"cannot read the key {file} ({error.strerror or error})", remedy) from error
    password = os.environ.get(PASSWORD_VARIABLE, "").encode() or None
    openssh = b"OPENSSH PRIVATE KEY" in content
    read = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        found = read(content, password)
    except TypeError as error:
        raise EdgetlError(f"the key {file} has a password, or none ({error})", f"set {PASSWORD_VARIABLE}") from error
    except Exception as error:  # of many kinds, for damaged bytes, a wrong password, and what is no key at all
        raise EdgetlError(f"{file} holds no private key that can be read ({error})", remedy) from error
    if not isinstance(found, ed25519.Ed25519PrivateKey):
        raise EdgetlError(f"the key {file} is not of the kind Ed25519", remedy)
    return found
