"""What a bundle says of a camera's pictures, the newest one each time: MJPEG comes in, a line for each answer goes out.

    rpicam-vid -t 0 --codec mjpeg -o - | python examples/camera.py out/rpi5
    ffmpeg -f v4l2 -input_format mjpeg -i /dev/video0 -c copy -f mjpeg - | python examples/camera.py out/x86-generic
    python examples/camera.py out/x86-generic --every < film.mjpeg

Takes edgetl's core and the bundle's runtime; no torch, no OpenCV. While one picture is looked at, the next ones come
in, and all but the newest are dropped: answers are never late, however slow the device is.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator

import edgetl

START, SCAN, END = b"\xff\xd8", 0xDA, b"\xff\xd9"


def picture_end(content: bytes) -> int:
    """Where the first JPEG of some bytes ends; 0 where its end has not come yet. It begins at their start."""
    place = len(START)
    while place + 4 <= len(content):
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        place += 2 + length
        if marker == SCAN:  # what follows is compressed, and holds no end but its own
            return content.find(END, place) + len(END) if END in content[place:] else 0
    return 0


async def pictures() -> AsyncIterator[bytes]:
    """The JPEGs of standard input, one after another."""
    held = b""
    while chunk := await asyncio.to_thread(sys.stdin.buffer.read1, 1 << 16):
        held += chunk
        while (start := held.find(START)) >= 0:
            held = held[start:]
            if not (end := picture_end(held)):
                break
            yield held[:end]
            held = held[end:]


async def watch(bundle: str, every: bool) -> None:
    model = edgetl.load_bundle(bundle)
    newest: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(1)

    async def read() -> None:
        number = 0
        async for picture in pictures():
            number += 1
            if not every and newest.full():
                newest.get_nowait()
            await newest.put((number, picture))
        await newest.put(None)

    reading = asyncio.create_task(read())
    while (taken := await newest.get()) is not None:
        number, picture = taken
        answer = await model.predict_async(picture)
        print(
            f"{number}: {answer.label} {answer.probability}" if answer.label else f"{number}: {answer.value}",
            flush=True,
        )
    await reading


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--every", action="store_true", help="drop no picture: for a film in a file")
    options = parser.parse_args()
    try:
        asyncio.run(watch(options.bundle, options.every))
    except edgetl.EdgetlError as error:
        sys.exit(f"error: {error}")
