"""Pictures as people have them, and worse: each as a file's bytes by a name."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]
#: Where each pass of an interlaced PNG begins, and its steps: column, row, columns, rows (PNG, section 8.2).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def noise(width: int, height: int, seed: int = 0, channels: int = 3) -> Array:
    """A picture with edges, smooth parts and noise: uint8 (height, width, channels)."""
    rng = np.random.default_rng([width, height, seed])
    coarse = rng.integers(0, 256, (height // 11 + 1, width // 7 + 1, channels), dtype=np.uint8)
    large = coarse.repeat(11, axis=0).repeat(7, axis=1)[:height, :width].astype(np.int16)
    return np.clip(large + rng.integers(-20, 20, large.shape), 0, 255).astype(np.uint8)


def saved(pixels: Array | Image.Image, kind: str, **options: Any) -> bytes:
    """A file as Pillow writes it."""
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels.squeeze())
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """An EXIF block that says an orientation, in one or the other order of bytes."""
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + struct.pack(f"{order}{'HI'[kind == 4]}", orientation).ljust(
        4, b"\0"
    )
    head = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + head + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


def chunk(name: bytes, data: bytes = b"") -> bytes:
    """One of PNG's chunks."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    values: Array, colours: int, depth: int, *, before: bytes = b"", after: bytes = b"", adam7: bool = False
) -> bytes:
    """A PNG of a kind that Pillow does not write.

    Args:
        values: (height, width, samples), whole numbers of ``depth`` bits.
        colours: PNG's colour type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
        depth: bits of a sample.
        before, after: chunks before and behind the pixels.
        adam7: interlaced.
    """
    height, width = values.shape[:2]
    parts = [values[y::down, x::across] for x, y, across, down in _ADAM7] if adam7 else [values]
    rows = b"".join(b"\0" + _packed(row, depth) for part in parts if part.size for row in part)
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, int(adam7))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + pixels + after + chunk(b"IEND")


def _packed(row: Array, depth: int) -> bytes:
    if depth == 16:
        return row.astype(">u2").tobytes()
    if depth == 8:
        return row.astype(np.uint8).tobytes()
    bits = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - depth :]
    return np.packbits(bits.reshape(-1)).tobytes()


def jpegs() -> Iterator[tuple[str, bytes]]:
    """JPEGs of every kind that Pillow writes."""
    rgb = noise(61, 47)
    for quality, subsampling in ((30, 0), (75, 1), (95, 2)):
        yield f"{quality}-{subsampling}.jpg", saved(rgb, "JPEG", quality=quality, subsampling=subsampling)
    yield "grey.jpg", saved(rgb[..., 0], "JPEG")
    yield "progressive.jpg", saved(rgb, "JPEG", progressive=True, quality=80)
    yield "grey-progressive.jpg", saved(rgb[..., 1], "JPEG", progressive=True)
    yield "restarts.jpg", saved(rgb, "JPEG", restart_marker_blocks=2)
    yield "cmyk.jpg", saved(Image.fromarray(noise(40, 33, channels=4), "CMYK"), "JPEG", quality=90)
    yield "rgb-kept.jpg", saved(rgb, "JPEG", keep_rgb=True)
    yield "icc.jpg", saved(rgb, "JPEG", icc_profile=b"no profile at all" * 99)
    for side in ((1, 1), (1, 700), (700, 1), (8, 8), (9, 17)):
        yield f"{side[0]}x{side[1]}.jpg", saved(noise(*side), "JPEG")
    yield "behind.jpg", saved(rgb, "JPEG") + b"something behind the end"
    yield from orientations(rgb)


def orientations(rgb: Array) -> Iterator[tuple[str, bytes]]:
    """Turned by EXIF, by XMP, by nonsense, in JPEG and PNG."""
    for turn in range(10):
        yield f"turned-{turn}.jpg", saved(rgb, "JPEG", exif=exif(turn, "<>"[turn % 2]))
    yield "turned-long.jpg", saved(rgb, "JPEG", exif=exif(6, "<", 4))
    yield "turned-cut.jpg", saved(rgb, "JPEG", exif=exif(6)[:-9])
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    yield "xmp.jpg", saved(rgb, "JPEG", xmp=xmp)
    yield "xmp-and-exif.jpg", saved(rgb, "JPEG", xmp=xmp, exif=exif(3))
    yield "xmp-element.jpg", saved(rgb, "JPEG", xmp=b"<tiff:Orientation>5</tiff:Orientation>")
    yield "turned.png", saved(rgb, "PNG", exif=exif(6))
    block = chunk(b"eXIf", exif(5)[6:])
    yield "turned-behind.png", png(rgb, 2, 8, after=block)
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
    yield "xmp.png", png(rgb, 2, 8, before=chunk(b"iTXt", text))
    profile = b"Raw profile type exif\0\nexif\n%8d\n" % len(exif(7)) + exif(7).hex().encode() + b"\n"
    yield "profile.png", png(rgb, 2, 8, before=chunk(b"tEXt", profile))
    packed = b"Raw profile type exif\0\0" + zlib.compress(profile.partition(b"\0")[2])
    yield "profile-packed.png", png(rgb, 2, 8, before=chunk(b"zTXt", packed))


def pngs() -> Iterator[tuple[str, bytes]]:
    """PNGs of every colour type and depth, interlaced and not."""
    rng = np.random.default_rng(1)
    palette = chunk(b"PLTE", rng.integers(0, 256, 3 * 200, dtype=np.uint8).tobytes())
    kinds = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    for colours, depths in kinds.items():
        for depth in depths:
            most = min(1 << depth, 200) if colours == 3 else 1 << depth
            samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
            values = rng.integers(0, most, (29, 37, samples))
            small = palette[:4] if colours == 3 else b""
            before = chunk(b"PLTE", palette[8 : 8 + 3 * min(most, 200)]) if small else b""
            for adam7 in (False, True):
                yield (
                    f"{colours}-{depth}-{'adam7' if adam7 else 'plain'}.png",
                    png(values, colours, depth, before=before, adam7=adam7),
                )
    yield from transparent(rng)
    yield from sixteen_bits(rng)
    grey = rng.integers(0, 256, (20, 30, 1))
    yield "gamma.png", png(grey, 0, 8, before=chunk(b"gAMA", struct.pack(">I", 100000)))
    for side in ((1, 1), (1, 4000), (4000, 1), (3, 3)):
        yield f"{side[0]}x{side[1]}.png", saved(noise(*side), "PNG")


def transparent(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """With an alpha channel or a transparent colour, neither of which is seen."""
    yield "rgba.png", saved(noise(33, 21, channels=4), "PNG")
    palette = rng.integers(0, 256, 3 * 16, dtype=np.uint8).tobytes()
    clear = chunk(b"PLTE", palette) + chunk(b"tRNS", bytes(range(0, 160, 10)))
    yield "palette-clear.png", png(rng.integers(0, 16, (19, 23, 1)), 3, 4, before=clear)
    yield "rgb-clear.png", png(noise(19, 23), 2, 8, before=chunk(b"tRNS", bytes(6)))
    yield "grey-clear.png", png(noise(19, 23, channels=1), 0, 8, before=chunk(b"tRNS", b"\0\x07"))
    yield "grey-clear-2.png", png(rng.integers(0, 4, (19, 23, 1)), 0, 2, before=chunk(b"tRNS", b"\0\x01"))
    yield "wide-clear.png", png(rng.integers(0, 1 << 16, (19, 23, 1)), 0, 16, before=chunk(b"tRNS", b"\1\7"))


def sixteen_bits(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Greys whose brightest pixel needs 8 to 16 bits, and colours that have fewer bits than they say."""
    for most in (1, 200, 256, 257, 1024, 1025, 4096, 4097, 16384, 16385, 65536):
        yield f"up-to-{most}.png", png(rng.integers(0, most, (17, 25, 1)), 0, 16)
    for colours, samples in ((2, 3), (4, 2), (6, 4)):
        for most in (16, 256, 4096, 4200):
            yield f"{colours}-up-to-{most}.png", png(rng.integers(0, most, (17, 25, samples)), colours, 16)


def damaged() -> Iterator[tuple[str, bytes]]:
    """Cut off, of wrong checksums, or no picture at all."""
    whole = {"jpg": saved(noise(90, 70), "JPEG"), "png": saved(noise(90, 70), "PNG")}
    whole["progressive.jpg"] = saved(noise(90, 70), "JPEG", progressive=True)
    for kind, content in whole.items():
        for share in (0.0, 0.01, 0.1, 0.5, 0.9, 0.99):
            yield f"cut-{share}-{kind}.{kind[-3:]}", content[: int(share * len(content))]
        yield f"cut-2-{kind}.{kind[-3:]}", content[:-2]
    yield "header-checksum.png", whole["png"][:20] + b"\x77" + whole["png"][21:]
    yield "text.jpg", b"this is a text\n" * 40
    yield "empty.png", b""
    forged = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    yield "forged.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", forged) + chunk(b"IDAT", bytes(9)) + chunk(b"IEND")


#: What Pillow reads and the runner refuses, as runner/README.md says: kinds of file, and the damage that it minds.
def refused() -> Iterator[tuple[str, bytes]]:
    """Pictures that Python takes and C refuses."""
    rgb = noise(30, 20)
    for kind, suffix in (("GIF", "gif"), ("WEBP", "webp"), ("BMP", "bmp"), ("TIFF", "tif")):
        yield f"plain.{suffix}", saved(rgb, kind)
    content = png(rgb, 2, 8)
    at = content.index(b"IDAT")
    length = struct.unpack(">I", content[at - 4 : at])[0]
    yield "pixels-checksum.png", content[: at + 4 + length] + b"\0\0\0\0" + content[at + 8 + length :]
