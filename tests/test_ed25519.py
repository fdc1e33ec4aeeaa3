"""The checker of signatures against RFC 8032's own vectors, ``cryptography``, and what must not pass."""

from __future__ import annotations

import random

import pytest

from edgetl.base.ed25519 import verify

ORDER = 2**252 + 27742317777372353535851937790883648493
#: RFC 8032, section 7.1: public key, message, signature.
VECTORS = (
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
)


@pytest.mark.parametrize(("key", "message", "signature"), VECTORS)
def test_the_rfcs_vectors(key: str, message: str, signature: str) -> None:
    public, said, signed = (bytes.fromhex(text) for text in (key, message, signature))
    assert verify(public, signed, said)
    assert not verify(public, signed, said + b"x")
    for place in range(0, 64, 5):
        changed = bytearray(signed)
        changed[place] ^= 1 << place % 8
        assert not verify(public, bytes(changed), said)


def test_a_second_form_of_a_signature_is_none() -> None:
    """S + L would be as good to a checker that does not look (RFC 8032, section 8.4)."""
    public, said, signed = (bytes.fromhex(text) for text in VECTORS[1])
    scalar = int.from_bytes(signed[32:], "little") + ORDER
    assert not verify(public, signed[:32] + scalar.to_bytes(32, "little"), said)


NO_KEYS = (
    *(b"", b"\0" * 31, b"\xff" * 32, (2**255 - 19).to_bytes(32, "little")),
    *(b"\x02" + b"\0" * 31, b"\x01" + b"\0" * 30 + b"\x80"),
)


@pytest.mark.parametrize("key", NO_KEYS)
def test_what_is_no_key_signs_nothing(key: bytes) -> None:
    """Too short, too large a number, no point of the curve, a zero with a sign."""
    assert not verify(key, bytes.fromhex(VECTORS[0][2]), b"")
    assert not verify(key, b"\0" * 64, b"")


def test_it_agrees_with_cryptography() -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519", reason="edgetl[sign]")
    draw = random.Random(0)
    for turn in range(10):
        private = ed25519.Ed25519PrivateKey.from_private_bytes(draw.randbytes(32))
        public, said = private.public_key().public_bytes_raw(), draw.randbytes(turn)
        signed = private.sign(said)
        assert verify(public, signed, said)
        for _ in range(3):
            changed = bytearray(public + signed)
            changed[draw.randrange(96)] ^= 1 << draw.randrange(8)
            try:
                ed25519.Ed25519PublicKey.from_public_bytes(bytes(changed[:32])).verify(bytes(changed[32:]), said)
                accepted = True
            except Exception:
                accepted = False
            assert verify(bytes(changed[:32]), bytes(changed[32:]), said) is accepted
