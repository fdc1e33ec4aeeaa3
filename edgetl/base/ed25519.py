"""Checking Ed25519 signatures: RFC 8032, in the standard library's Python, because a device has no ``cryptography``.

Nothing here is secret, so nothing has to take the same time whatever it works on; making signatures is left to a
library that takes that care. One implementation checks everywhere: what this machine accepts, every device accepts.
"""

from __future__ import annotations

import hashlib

#: The field's prime, the group's order, and the curve's constant.
_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_1 = pow(2, (_P - 1) // 4, _P)
KEY_BYTES, SIGNATURE_BYTES = 32, 64
#: Extended homogeneous coordinates (X, Y, Z, T) of x = X/Z, y = Y/Z, x * y = T/Z.
Point = tuple[int, int, int, int]
_NEUTRAL: Point = (0, 1, 1, 0)


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a signature of a message is that of a public key (RFC 8032, section 5.1.7, without the cofactor).

    Args:
        key: 32 bytes.
        signature: 64 bytes.
        message: any.
    """
    if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    commitment, scalar = signature[:32], int.from_bytes(signature[32:], "little")
    point = _decoded(key)
    # A scalar of the order or more would be a second signature of the same message.
    if point is None or scalar >= _ORDER:
        return False
    digest = hashlib.sha512(commitment + key + message).digest()
    challenge = int.from_bytes(digest, "little") % _ORDER
    x, y, z, t = _times(challenge, point)
    found = _sum(_times(scalar, _base()), (-x % _P, y, z, -t % _P))
    return _encoded(found) == commitment


def _base() -> Point:
    y = 4 * pow(5, -1, _P) % _P
    x = _abscissa(y, 0)
    assert x is not None
    return (x, y, 1, x * y % _P)


def _sum(a: Point, b: Point) -> Point:
    """Section 5.1.4: holds for any two points, also equal ones."""
    e = (a[1] - a[0]) * (b[1] - b[0]) % _P
    f = (a[1] + a[0]) * (b[1] + b[0]) % _P
    g = 2 * a[3] * b[3] * _D % _P
    h = 2 * a[2] * b[2] % _P
    i, j, k, m = f - e, h - g, h + g, f + e
    return (i * j % _P, k * m % _P, j * k % _P, i * m % _P)


def _times(scalar: int, point: Point) -> Point:
    found = _NEUTRAL
    for bit in bin(scalar)[2:]:
        found = _sum(found, found)
        if bit == "1":
            found = _sum(found, point)
    return found


def _abscissa(y: int, sign: int) -> int | None:
    """The x of a point with this y and this lowest bit; None where there is none (section 5.1.3)."""
    squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(squared, (_P + 3) // 8, _P)
    if (x * x - squared) % _P:
        x = x * _ROOT_OF_MINUS_1 % _P
    if (x * x - squared) % _P or (x == 0 and sign):
        return None
    return _P - x if x & 1 != sign else x


def _decoded(data: bytes) -> Point | None:
    number = int.from_bytes(data, "little")
    y, sign = number & ((1 << 255) - 1), number >> 255
    x = _abscissa(y, sign) if y < _P else None
    return None if x is None else (x, y, 1, x * y % _P)


def _encoded(point: Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")
